"""The functions of ART's `art.utils`."""

import asyncio
import logging
import random
from collections import Counter

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

import art
from art.errors import ConfigurationError
from art.utils import (
    format_message,
    get_model_step,
    get_trajectory_messages,
    iterate_dataset,
    limit_concurrency,
    log_http_errors,
)


@given(
    size=st.integers(0, 20), per_step=st.integers(1, 7), epochs=st.integers(0, 3), data=st.data()
)
def test_a_dataset_is_gone_through_once_an_epoch_and_can_be_resumed(
    size: int, per_step: int, epochs: int, data: st.DataObject
) -> None:
    dataset = list(range(size))
    batches = list(iterate_dataset(dataset, per_step, epochs, use_tqdm=False))
    assert [batch.step for batch in batches] == list(range(len(batches)))
    assert Counter(item for batch in batches for item in batch.items) == {
        item: epochs for item in dataset if epochs
    }
    for epoch in range(epochs):
        of_epoch = [batch for batch in batches if batch.epoch == epoch]
        assert [batch.epoch_step for batch in of_epoch] == list(range(len(of_epoch)))
        assert all(len(batch.items) == per_step for batch in of_epoch[:-1])
    start = data.draw(st.integers(0, len(batches) + 1))
    resumed = list(iterate_dataset(dataset, per_step, epochs, start, use_tqdm=False))
    assert resumed == batches[start:]


def test_the_order_is_that_of_art_and_leaves_the_global_generator_alone() -> None:
    random.seed(7)
    state = random.getstate()
    items = [
        item
        for batch in iterate_dataset(list("abcdef"), 2, 2, use_tqdm=False)
        for item in batch.items
    ]
    assert random.getstate() == state
    expected = []
    for epoch in range(2):
        order = list("abcdef")
        random.seed(epoch)
        random.shuffle(order)
        expected += order
    assert items == expected


def test_a_dataset_cannot_be_gone_through_in_batches_of_none() -> None:
    with pytest.raises(ConfigurationError, match="groups_per_step"):
        next(iter(iterate_dataset([1], groups_per_step=0)))


class Calls:
    """Counts how many calls run at once, by name."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def __call__(self, name: str) -> None:
        self.running[name] += 1
        self.most[name] = max(self.most[name], self.running[name])
        await asyncio.sleep(0.01)
        self.running[name] -= 1


def test_so_many_calls_run_at_once_in_each_event_loop() -> None:
    calls = Calls()

    @limit_concurrency(2)
    async def limited(name: str) -> None:
        await calls(name)

    async def run() -> None:
        await asyncio.gather(*(limited("a") for _ in range(5)))

    asyncio.run(run())
    asyncio.run(run())
    assert calls.most == {"a": 2}


async def test_each_key_has_a_limit_of_its_own() -> None:
    calls = Calls()

    @limit_concurrency(1, derive_key=lambda name: name)
    async def limited(name: str) -> None:
        await calls(name)

    async with asyncio.timeout(5):
        await asyncio.gather(*(limited(name) for name in "aabb"))
    assert calls.most == {"a": 1, "b": 1}


def test_a_limit_of_none_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 1, not 0"):
        limit_concurrency(0)


@log_http_errors
async def fetch(response: httpx.Response) -> str:
    response.raise_for_status()
    return response.text


REQUEST = httpx.Request("GET", "http://shop.example/apples")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(409, json={"detail": "sold out"}, request=REQUEST), " sold out"),
        (httpx.Response(500, text="<html>", request=REQUEST), ""),
    ],
    ids=["json", "no json"],
)
async def test_an_http_error_says_what_the_server_said_and_keeps_its_type(
    answer: httpx.Response, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(httpx.HTTPStatusError) as raised, caplog.at_level(logging.ERROR):
        await fetch(answer)
    note = f"[HTTP {answer.status_code}] http://shop.example/apples{words}"
    assert raised.value.__notes__ == [note]
    assert caplog.messages == [f"fetch: {note}"]


async def test_other_errors_and_results_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    assert await fetch(httpx.Response(200, text="apples", request=REQUEST)) == "apples"

    @log_http_errors
    async def fail() -> None:
        raise openai.OpenAIError("no key")

    with pytest.raises(openai.OpenAIError):
        await fail()
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "user", "content": "hello"}, "User:\nhello"),
        ({"role": "assistant", "content": None, "refusal": "no"}, "Assistant:\nno"),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]},
            "User:\na\n[image_url]",
        ),
        (
            {
                "role": "assistant",
                "content": "well",
                "tool_calls": [{"function": {"name": "buy", "arguments": '{"n": 1}'}}],
            },
            'Assistant:\nwell\nbuy({"n": 1})',
        ),
    ],
    ids=["text", "refusal", "parts", "tool call"],
)
def test_a_message_is_shown_as_text(message: art.Message, text: str) -> None:
    assert format_message(message) == text


def test_the_messages_of_a_trajectory_are_plain() -> None:
    trajectory = art.Trajectory(messages_and_choices=[{"role": "user", "content": "hello"}])
    assert get_trajectory_messages(trajectory) == [{"role": "user", "content": "hello"}]


def test_the_step_of_a_model_is_read_from_its_folder(tmp_path: object) -> None:
    model: art.Model[None] = art.Model(name="m", project="p")
    root = str(tmp_path)
    assert get_model_step(model, root) == 0
    for step in ("0001", "0012"):
        (model.get_output_dir().__class__(root) / "p/models/m/checkpoints" / step).mkdir(
            parents=True
        )
    assert get_model_step(model, root) == 12


async def test_the_older_way_to_train_names_the_present_one() -> None:
    model: art.TrainableModel[None] = art.TrainableModel(name="m", project="p", base_model="b")
    with pytest.raises(ConfigurationError, match=r"backend\.train\(model, groups"):
        await model.train([])
