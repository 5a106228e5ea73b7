"""Capture by URL: an agent in another process, with its base URL and key alone."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

import art
from art.capture.captures import CAPTURES, Captures
from art.endpoint.server import OpenAIServer
from art.errors import CaptureError
from art.rl.sequences import training_batch
from tests.light.capture.conftest import Echo
from tests.light.capture.test_context import Model, assert_trained_once, by_httpx, converse, shape
from tests.light.client.test_trajectories import make_choice
from tests.processes import run_python

# An agent that knows nothing of art.
AGENT = """
import openai, sys
client = openai.OpenAI()
messages = []
for text in sys.argv[2:]:
    messages.append({"role": "user", "content": text})
    with client.chat.completions.stream(model=sys.argv[1], messages=messages) as events:
        message = events.get_final_completion().choices[0].message
    messages.append({"role": "assistant", "content": message.content})
    print(message.content)
"""


@pytest.fixture(autouse=True)
async def _nothing_is_left_open() -> AsyncIterator[None]:
    yield
    assert not CAPTURES._lent
    assert not CAPTURES._here


async def test_an_agent_in_a_process_of_its_own(model: Model, echo: Echo) -> None:
    async with model.rollout_endpoint() as rollout:
        assert rollout.base_url.endswith("/v1")
        assert model.inference_api_key not in rollout.env.values()
        ran = await asyncio.to_thread(
            run_python, AGENT, rollout.model_name, "a", "b", env=rollout.env
        )
        trajectory = await rollout.trajectory()
        assert await rollout.trajectory() is trajectory
    assert ran.stdout.split("\n") == ["echo 1: a", "echo 2: b", ""]
    assert shape(trajectory.messages_and_choices) == ["a", "[echo 1: a]", "b", "[echo 2: b]"]
    assert trajectory.metrics["duration"] > 0
    assert_trained_once(trajectory, echo)


async def test_twenty_rollouts_at_once_are_kept_apart(model: Model, echo: Echo) -> None:
    async def rollout(number: int) -> art.Trajectory:
        async with model.rollout_endpoint() as endpoint:
            async with openai.AsyncOpenAI(
                base_url=endpoint.base_url, api_key=endpoint.api_key
            ) as client:
                await asyncio.gather(
                    converse(client, str(number), "same"), converse(client, "same", str(number))
                )
            trajectory = await endpoint.trajectory()
        trajectory.reward = float(number)
        return trajectory

    group = await art.TrajectoryGroup(rollout(number) for number in range(20))
    assert not group.exceptions
    for number, trajectory in enumerate(group):
        [other] = trajectory.additional_histories
        histories = [trajectory.messages_and_choices, other.messages_and_choices]
        name = str(number)
        assert sorted(shape(items) for items in histories) == sorted(
            [
                [name, f"[echo 1: {name}]", "same", "[echo 2: same]"],
                ["same", "[echo 1: same]", name, f"[echo 2: {name}]"],
            ]
        )
    batch = training_batch([group])
    given = sum(len(ids) for samples in echo.sampled.values() for ids in samples)
    assert batch.metrics["data/step_trainer_tokens"] == given


async def test_a_header_names_a_rollout_too(model: Model) -> None:
    async with model.rollout_endpoint() as rollout:
        client = model.openai_client().with_options(default_headers=rollout.headers)
        await converse(client, "a")
        trajectory = await rollout.trajectory()
    assert shape(trajectory.messages_and_choices) == ["a", "[echo 1: a]"]


async def test_the_urls_own_rollout_takes_precedence_over_the_contexts(model: Model) -> None:
    async def agent() -> None:
        async with model.rollout_endpoint() as rollout:
            await asyncio.to_thread(by_httpx, rollout.base_url, rollout.api_key)
            fetched.append(await rollout.trajectory())

    fetched: list[art.Trajectory] = []
    outer = await art.capture_auto_trajectory(agent())
    assert len(fetched[0].messages_and_choices) == 2
    assert outer.messages_and_choices == []


class TestAccess:
    async def test_the_token_opens_its_own_rollout_alone(
        self, model: Model, server: OpenAIServer
    ) -> None:
        base = server.base_url
        async with (
            model.rollout_endpoint() as one,
            model.rollout_endpoint() as other,
            httpx.AsyncClient() as client,
        ):
            rollouts = f"{base}/rollouts"
            for method, url, key, status in [
                ("GET", f"{one.base_url}/models", one.api_key, 200),
                ("GET", f"{one.base_url}/models", server.api_key, 200),
                ("GET", f"{one.base_url}/models", "none", 401),
                ("GET", f"{one.base_url}/models", other.api_key, 401),
                ("GET", f"{base}/models", one.api_key, 401),
                ("GET", f"{rollouts}/{one.api_key}x/v1/models", server.api_key, 404),
                ("DELETE", f"{rollouts}/{other.api_key}", one.api_key, 401),
                ("DELETE", f"{rollouts}/{one.api_key}", one.api_key, 401),
                ("POST", rollouts, one.api_key, 401),
                # Not even by way of its own URL, which lies under the endpoint's.
                ("DELETE", f"{one.base_url}/rollouts/{other.api_key}", one.api_key, 401),
                ("POST", f"{one.base_url}/rollouts", one.api_key, 401),
            ]:
                headers = {"Authorization": f"Bearer {key}"}
                response = await client.request(method, url, headers=headers)
                assert response.status_code == status, (method, url)
            key_of_anthropic = {"x-api-key": one.api_key}
            response = await client.get(f"{one.base_url}/models", headers=key_of_anthropic)
            assert response.is_success

    async def test_a_rollout_that_was_fetched_is_closed(self, model: Model) -> None:
        async with model.rollout_endpoint() as rollout:
            await rollout.trajectory()
            async with openai.AsyncOpenAI(
                base_url=rollout.base_url, api_key=rollout.api_key, max_retries=0
            ) as client:
                with pytest.raises(openai.NotFoundError, match="this rollout is not captured"):
                    await converse(client, "a")

    async def test_a_trajectory_that_is_gone_is_an_error(
        self, model: Model, server: OpenAIServer
    ) -> None:
        async with model.rollout_endpoint() as rollout:
            CAPTURES.close(rollout.api_key)
            with pytest.raises(CaptureError, match="is gone") as caught:
                await rollout.trajectory()
            assert isinstance(caught.value.__cause__, openai.NotFoundError)

    async def test_a_rollout_that_fails_leaves_nothing_open(self, model: Model) -> None:
        async def fail() -> None:
            async with model.rollout_endpoint() as rollout:
                await asyncio.to_thread(by_httpx, rollout.base_url, rollout.api_key)
                raise KeyError

        with pytest.raises(KeyError):
            await fail()


def test_captures_beyond_the_bound_close_the_least_recently_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    captures = Captures(max_lent=2)
    first, second = captures.lend(), captures.lend()
    captures.find(first)
    third = captures.lend()
    here = captures.open(art.Trajectory())
    found = [captures.find(token) is not None for token in (first, second, third, here)]
    assert found == [True, False, True, True]
    assert "is lost" in caplog.text


def test_tokens_cannot_be_guessed() -> None:
    captures = Captures()
    tokens = {captures.lend() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 32


def test_a_request_that_ends_after_its_trajectory_was_fetched_adds_nothing() -> None:
    captures = Captures()
    token = captures.lend()
    capture = captures.find(token)
    assert capture is not None
    trajectory = captures.close(token)
    capture.record([{"role": "user", "content": "late"}], None, [make_choice([2], [1])])
    assert trajectory is not None
    assert trajectory.messages_and_choices == []


async def test_prompts_of_tokens_are_captured_and_join_by_their_tokens(
    model: Model, echo: Echo
) -> None:
    def ids(text: str) -> list[int]:
        return list(echo.tokenizer.encode(text, add_special_tokens=False))

    prompt = ids("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n")
    async with model.rollout_endpoint() as rollout:
        headers = {"Authorization": f"Bearer {rollout.api_key}"}
        root = rollout.base_url.removesuffix("/v1")
        async with httpx.AsyncClient(headers=headers) as client:

            async def generate(token_ids: list[int], n: int = 1) -> list[list[int]]:
                """Speak vLLM's dialect of tokens."""
                answer = await client.post(
                    f"{root}/inference/v1/generate",
                    json={"token_ids": token_ids, "sampling_params": {"n": n}},
                )
                return [each["token_ids"] for each in answer.raise_for_status().json()["choices"]]

            async def complete(token_ids: list[int]) -> None:
                """Speak OpenAI's dialect of prompts."""
                answer = await client.post(
                    f"{rollout.base_url}/completions",
                    json={"model": rollout.model_name, "prompt": token_ids},
                )
                answer.raise_for_status()

            [first] = await generate(prompt)
            await complete(
                [*prompt, *first, *ids("\n<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n")]
            )
            await generate(ids("<|im_start|>user\nc<|im_end|>\n"), n=2)
        trajectory = await rollout.trajectory()
    texts = shape(trajectory.messages_and_choices)
    assert texts[1::2] == ["[echo 1: a]", "[echo 2: b]"]
    assert "b" in texts[2]
    assert "a" not in texts[2].replace("assistant", "")
    branches = [shape(each.messages_and_choices)[-1] for each in trajectory.additional_histories]
    assert branches == ["[echo 1: c]", "[other1 1: c]"]
    assert_trained_once(trajectory, echo)


async def test_an_agent_that_speaks_anthropics_dialect_is_captured(
    model: Model, echo: Echo
) -> None:
    async with model.rollout_endpoint() as rollout:
        async with httpx.AsyncClient(headers={"x-api-key": rollout.api_key}) as client:
            messages: list[dict[str, object]] = []
            for text in ("a", "b"):
                messages.append({"role": "user", "content": text})
                answer = await client.post(
                    f"{rollout.base_url}/messages",
                    json={"model": rollout.model_name, "max_tokens": 50, "messages": messages},
                )
                content = answer.raise_for_status().json()["content"]
                messages.append({"role": "assistant", "content": content})
        trajectory = await rollout.trajectory()
    assert shape(trajectory.messages_and_choices) == ["a", "[echo 1: a]", "b", "[echo 2: b]"]
    assert_trained_once(trajectory, echo)
