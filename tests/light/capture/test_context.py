"""Capture by context: every client in the process, and runs that are kept apart."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import pytest

import art
from art.endpoint.server import OpenAIServer
from art.errors import CaptureError
from art.rl.sequences import training_batch
from art.types import Choice
from tests.light.capture.conftest import Echo

Model = art.TrainableModel[None]
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


async def ask(
    client: openai.AsyncOpenAI, messages: list[Any], **options: Any
) -> openai.types.chat.ChatCompletion:
    completion: openai.types.chat.ChatCompletion = await client.chat.completions.create(
        model="agent", messages=messages, **options
    )
    return completion


async def converse(client: openai.AsyncOpenAI, *texts: str) -> list[str]:
    """A conversation as agents have it: what came back is sent again, as a dict."""
    messages: list[Any] = []
    answers = []
    for text in texts:
        messages.append(user(text))
        message = (await ask(client, messages)).choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        answers.append(message.content or "")
    return answers


def shape(items: art.MessagesAndChoices) -> list[str]:
    """Each item's text, that of a Choice in brackets."""
    return [
        f"[{item.message.content}]" if isinstance(item, Choice) else str(item["content"])
        for item in items
    ]


def assert_trained_once(trajectory: art.Trajectory, echo: Echo) -> None:
    """Every sample that was taken is trained on once, with the tokens that the sampler gave."""
    other = trajectory.model_copy(update={"reward": 1.0})
    batch = training_batch([art.TrajectoryGroup([trajectory, other])])
    given = [ids for samples in echo.sampled.values() for ids in samples]
    assert batch.metrics["data/step_trainer_tokens"] == 2 * sum(map(len, given))
    text = [sequence.tokens[sequence.mask].tolist() for sequence in batch.sequences]
    joined = np.concatenate(text).tolist()
    assert sorted(joined) == sorted(2 * [token for ids in given for token in ids])


class TestConversations:
    async def test_a_conversation_of_several_turns(self, model: Model, echo: Echo) -> None:
        trajectory = await art.capture_auto_trajectory(
            converse(model.openai_client(), "a", "b", "c")
        )
        expected = ["a", "[echo 1: a]", "b", "[echo 2: b]", "c", "[echo 3: c]"]
        assert shape(trajectory.messages_and_choices) == expected
        assert trajectory.additional_histories == []
        assert trajectory.tools is None
        assert trajectory.metrics["duration"] > 0
        assert_trained_once(trajectory, echo)

    @pytest.mark.parametrize("stream", [False, True])
    async def test_tools_and_their_results(self, model: Model, echo: Echo, stream: bool) -> None:
        async def agent() -> list[str]:
            client = model.openai_client()
            messages: list[Any] = [user("call look")]
            if stream:
                async with client.chat.completions.stream(
                    model="agent", messages=messages, tools=TOOLS
                ) as events:
                    completion: Any = await events.get_final_completion()
            else:
                completion = await ask(client, messages, tools=TOOLS)
            message = completion.choices[0].message
            [call] = message.tool_calls
            messages += [
                message,
                {"role": "tool", "tool_call_id": call.id, "content": "seen"},
            ]
            await ask(client, messages, tools=TOOLS)
            ids.append(call.id)
            return []

        ids: list[str] = []
        trajectory = await art.capture_auto_trajectory(agent())
        _, call, result, last = trajectory.messages_and_choices
        assert isinstance(call, Choice)
        assert isinstance(last, Choice)
        assert call.finish_reason == "tool_calls"
        assert call.message.tool_calls is not None
        assert [each.id for each in call.message.tool_calls] == ids
        assert not isinstance(result, Choice)
        assert result.get("tool_call_id") == ids[0]
        assert trajectory.tools == TOOLS
        assert trajectory.additional_histories == []
        assert_trained_once(trajectory, echo)

    async def test_sub_agents_branches_and_other_tools_are_additional_histories(
        self, model: Model, echo: Echo
    ) -> None:
        async def agent() -> None:
            client = model.openai_client()
            await converse(client, "a", "b")
            sub = [{"role": "system", "content": "sub"}, user("x")]
            await ask(client, sub)
            branch = [user("a"), {"role": "assistant", "content": "echo 1: a"}, user("other")]
            await ask(client, branch)
            await ask(client, [user("a")], tools=TOOLS)

        trajectory = await art.capture_auto_trajectory(agent())
        assert shape(trajectory.messages_and_choices) == [
            *["a", "[echo 1: a]", "b", "[echo 2: b]"],
        ]
        histories = trajectory.additional_histories
        assert [shape(history.messages_and_choices) for history in histories] == [
            ["sub", "x", "[echo 1: x]"],
            ["a", "echo 1: a", "other", "[echo 2: other]"],
            ["a", "[echo 1: a]"],
        ]
        assert [history.tools for history in histories] == [None, None, TOOLS]
        assert_trained_once(trajectory, echo)

    async def test_each_choice_of_one_request_is_a_branch(self, model: Model, echo: Echo) -> None:
        async def agent() -> None:
            client = model.openai_client()
            completion = await ask(client, [user("a")], n=3)
            chosen = completion.choices[2].message.content
            await ask(client, [user("a"), {"role": "assistant", "content": chosen}, user("b")])

        trajectory = await art.capture_auto_trajectory(agent())
        assert shape(trajectory.messages_and_choices) == ["a", "[echo 1: a]"]
        histories = trajectory.additional_histories
        assert [shape(history.messages_and_choices) for history in histories] == [
            ["a", "[other1 1: a]"],
            ["a", "[other2 1: a]", "b", "[echo 2: b]"],
        ]
        assert_trained_once(trajectory, echo)

    async def test_nulls_parts_and_white_space_do_not_part_a_conversation(
        self, model: Model
    ) -> None:
        async def agent() -> None:
            client = model.openai_client()
            await ask(client, [{"role": "developer", "content": "s"}, user("a")])
            parts = [{"type": "text", "text": " a"}]
            answer = {"role": "assistant", "content": "echo 1: a\n", "refusal": None}
            await ask(client, [{"role": "system", "content": "s"}, user(parts), answer, user("b")])  # type: ignore[arg-type]

        trajectory = await art.capture_auto_trajectory(agent())
        assert shape(trajectory.messages_and_choices)[2:] == ["[echo 1: a]", "b", "[echo 2: b]"]
        assert trajectory.additional_histories == []


def by_a_sync_client(url: str, key: str) -> None:
    messages: list[Any] = [user("a")]
    with openai.OpenAI(base_url=url, api_key=key) as client:
        client.chat.completions.create(model="agent", messages=messages)


def by_httpx(url: str, key: str) -> None:
    httpx.post(
        f"{url}/chat/completions",
        json={"model": "agent", "messages": [user("a")]},
        headers={"Authorization": f"Bearer {key}"},
    ).raise_for_status()


class TestClients:
    """Any client in the process that is built on httpx, made by whomever and whenever."""

    @pytest.mark.parametrize("call", [by_a_sync_client, by_httpx])
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    async def test_a_client_of_the_users_own(
        self, server: OpenAIServer, call: Callable[[str, str], None], host: str
    ) -> None:
        url = server.base_url.replace("127.0.0.1", host)
        trajectory = await art.capture_auto_trajectory(asyncio.to_thread(call, url, server.api_key))
        assert shape(trajectory.messages_and_choices) == ["a", "[echo 1: a]"]

    async def test_a_client_that_was_made_before(self, model: Model) -> None:
        client = model.openai_client()
        await converse(client, "not captured")
        trajectory = await art.capture_auto_trajectory(converse(client, "a"))
        await converse(client, "not captured either")
        assert shape(trajectory.messages_and_choices) == ["a", "[echo 1: a]"]

    async def test_tasks_and_threads_that_the_agent_starts(self, model: Model) -> None:
        url, key = str(model.inference_base_url), str(model.inference_api_key)

        async def agent() -> None:
            await asyncio.create_task(converse(model.openai_client(), "task"))
            await asyncio.to_thread(by_httpx, url, key)

        trajectory = await art.capture_auto_trajectory(agent())
        assert shape(trajectory.messages_and_choices)[0] == "task"
        assert shape(trajectory.additional_histories[0].messages_and_choices)[0] == "a"

    async def test_other_servers_see_no_token(self, model: Model) -> None:
        seen: list[bytes] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            writer.close()

        async def agent() -> None:
            async with httpx.AsyncClient() as client:
                await client.get(f"http://127.0.0.1:{port}/")
            await converse(model.openai_client(), "a")

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
            port = other.sockets[0].getsockname()[1]
            trajectory = await art.capture_auto_trajectory(agent())
        assert len(trajectory.messages_and_choices) == 2
        assert b"host" in seen[0].lower()
        assert b"x-art" not in seen[0].lower()


class TestContexts:
    async def test_twenty_rollouts_at_once_are_kept_apart(self, model: Model, echo: Echo) -> None:
        client = model.openai_client()

        async def rollout(number: int) -> None:
            name = str(number)
            await converse(client, name, "same", name)
            await asyncio.gather(converse(client, f"sub {name}"), converse(client, "same"))
            trajectory = art.auto_trajectory(required=True)
            trajectory.reward = float(number)
            trajectory.metadata["turns"] = len(trajectory.messages_and_choices)

        groups = await art.gather_trajectory_groups(
            [
                art.TrajectoryGroup(
                    art.capture_auto_trajectory(rollout(number)) for number in range(20)
                )
            ],
            pbar_desc=None,
        )
        [group] = groups
        for number, trajectory in enumerate(group):
            name = str(number)
            assert trajectory.reward == number
            assert trajectory.metadata["turns"] == 6
            assert shape(trajectory.messages_and_choices) == [
                *[name, f"[echo 1: {name}]", "same", "[echo 2: same]", name, f"[echo 3: {name}]"]
            ]
            histories = [
                shape(history.messages_and_choices) for history in trajectory.additional_histories
            ]
            sub = [f"sub {name}", f"[echo 1: sub {name}]"]
            assert sorted(histories) == sorted([["same", "[echo 1: same]"], sub])
        batch = training_batch(groups)
        assert batch.metrics["data/step_num_trajectories_dropped"] == 0
        given = sum(len(ids) for samples in echo.sampled.values() for ids in samples)
        # A mean reward of 9.5 is no rollout's, so all of them are trained on.
        assert batch.metrics["data/step_trainer_tokens"] == given

    async def test_the_inner_of_two_captures_has_the_requests(self, model: Model) -> None:
        client = model.openai_client()
        inner: list[art.Trajectory] = []

        async def outer() -> None:
            await converse(client, "a")
            inner.append(await art.capture_auto_trajectory(converse(client, "b")))
            await converse(client, "c")

        trajectory = await art.capture_auto_trajectory(outer())
        assert shape(inner[0].messages_and_choices)[0] == "b"
        assert shape(trajectory.messages_and_choices)[0] == "a"
        assert shape(trajectory.additional_histories[0].messages_and_choices)[0] == "c"

    async def test_an_error_of_the_agent_propagates_and_ends_the_capture(
        self, model: Model
    ) -> None:
        async def agent() -> None:
            seen.append(art.auto_trajectory(required=True))
            await converse(model.openai_client(), "a")
            raise KeyError("lost")

        seen: list[art.Trajectory] = []
        with pytest.raises(KeyError, match="lost"):
            await art.capture_auto_trajectory(agent())
        assert shape(seen[0].messages_and_choices) == ["a", "[echo 1: a]"]
        assert art.auto_trajectory() is None

    async def test_a_task_that_a_rollout_left_behind_goes_on_without_being_captured(
        self, model: Model, caplog: pytest.LogCaptureFixture
    ) -> None:
        left: list[asyncio.Task[list[str]]] = []

        async def agent() -> None:
            async def later() -> list[str]:
                await handed_over.wait()
                return await converse(model.openai_client(), "a")

            left.append(asyncio.create_task(later()))

        handed_over = asyncio.Event()
        trajectory = await art.capture_auto_trajectory(agent())
        handed_over.set()
        assert await left[0] == ["echo 1: a"]
        assert trajectory.messages_and_choices == []
        assert "not captured" in caplog.text

    async def test_outside_of_a_capture_there_is_none(self) -> None:
        assert art.auto_trajectory() is None
        with pytest.raises(CaptureError, match="capture_auto_trajectory"):
            art.auto_trajectory(required=True)
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(art.auto_trajectory).result() is None

    async def test_it_is_json_like_any_other(self, model: Model) -> None:
        trajectory = await art.capture_auto_trajectory(converse(model.openai_client(), "a"))
        back = art.Trajectory.model_validate_json(trajectory.model_dump_json())
        assert back.model_dump() == trajectory.model_dump()
        json.dumps(trajectory.for_logging())


async def test_turns_of_the_responses_api_are_captured(model: Model, echo: Echo) -> None:
    async def agent() -> None:
        client = model.openai_client()
        for stream in (False, True):
            response = await client.responses.create(model="agent", input="a", stream=stream)
            if isinstance(response, openai.AsyncStream):
                async for _ in response:
                    pass

    trajectory = await art.capture_auto_trajectory(agent())
    assert shape(trajectory.messages_and_choices) == ["a", "[echo 1: a]"]
    [again] = trajectory.additional_histories
    assert shape(again.messages_and_choices) == ["a", "[echo 1: a]"]
    assert_trained_once(trajectory, echo)
