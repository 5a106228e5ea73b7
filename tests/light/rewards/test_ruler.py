"""RULER with a real HTTP server as the judge: good, slow, malformed, failing."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

import art
from art.errors import ConfigurationError, JudgeError, MissingAPIKeyError
from art.metrics import MetricsBuilder
from art.rewards import TrajectoryScore, ruler, ruler_score_group
from tests.chat_server import Answer, ChatServer, chat_server

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def judge() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("art.structured_output._FIRST_DELAY", 0.01)


def scores(*values: float) -> str:
    """What a judge that answers well says."""
    return json.dumps(
        {
            "scores": [
                {"trajectory_id": str(number), "explanation": f"why {number}", "score": value}
                for number, value in enumerate(values, start=1)
            ]
        }
    )


def conversation(answer: str) -> art.Messages:
    return [
        {"role": "system", "content": "You add."},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": answer},
    ]


PAIR = [conversation("4"), conversation("5")]


async def test_a_judge_scores_each_conversation_in_their_order(judge: ChatServer) -> None:
    answer = json.loads(scores(1.0, 0.25))
    answer["scores"].reverse()
    judge.say(Answer(json.dumps(answer)))
    result = await ruler(PAIR, "my-judge", base_url=judge.base_url, api_key="k")
    assert result == [
        TrajectoryScore(trajectory_id="1", explanation="why 1", score=1.0),
        TrajectoryScore(trajectory_id="2", explanation="why 2", score=0.25),
    ]
    assert judge.keys == ["k"]
    (request,) = judge.requests
    assert request["model"] == "my-judge"
    assert request["response_format"]["type"] == "json_schema"


async def test_the_judge_sees_the_rubric_the_tools_and_what_all_share_once(
    judge: ChatServer,
) -> None:
    judge.say(Answer(scores(1, 0)))
    tools: art.Tools = [{"type": "function", "function": {"name": "calculator"}}]
    await ruler(PAIR, "j", rubric="Be right {always}.", tools=tools, base_url=judge.base_url)
    system, user = (message["content"] for message in judge.requests[0]["messages"])
    assert "Be right {always}." in system
    assert "calculator" in user
    assert user.count("You add.") == 1
    assert user.count('"4"') == user.count('"5"') == 1


async def test_equal_conversations_are_judged_once(judge: ChatServer) -> None:
    judge.say(Answer(scores(0.5)))
    result = await ruler([conversation("4")] * 3, "j", base_url=judge.base_url)
    assert [(each.trajectory_id, each.score) for each in result] == [
        ("1", 0.5),
        ("2", 0.5),
        ("3", 0.5),
    ]
    assert judge.requests[0]["messages"][1]["content"].count("2 + 2?") == 1


async def test_nothing_is_asked_about_no_conversations(judge: ChatServer) -> None:
    assert await ruler([], "j", base_url=judge.base_url) == []
    assert judge.requests == []


async def test_half_a_surrogate_pair_reaches_the_judge_escaped(judge: ChatServer) -> None:
    judge.say(Answer(scores(1, 0)))
    await ruler([conversation("\ud83d"), conversation("5")], "j", base_url=judge.base_url)
    assert "\\ud83d" in judge.requests[0]["messages"][1]["content"]


@pytest.mark.parametrize(
    "content",
    [
        f"<think>They want {{json}}.</think>\n```json\n{scores(1, 0)}\n```\nDone {{}}"[:-3],
        f'First I thought {{"scores": []}} but no: {scores(1, 0)}',
    ],
    ids=["reasoning and a fence", "two objects"],
)
async def test_text_around_the_scores_is_no_harm(judge: ChatServer, content: str) -> None:
    judge.say(Answer(content))
    result = await ruler(PAIR, "j", base_url=judge.base_url, max_retries=0)
    assert [each.score for each in result] == [1, 0]


BAD = {
    "no JSON": (Answer("They are all good."), "holds no JSON object"),
    "no scores": (Answer('{"winner": 1}'), "Field required"),
    "one too few": (Answer(scores(1)), r"scores \['1'\]"),
    "one too many": (Answer(scores(1, 0, 0)), "the ids are 1 to 2"),
    "above 1": (Answer(scores(1, 7)), r"the score of 2 is 7.0, not in \[0, 1\]"),
    "not finite": (Answer(scores(1, float("nan"))), "the score of 2 is nan"),
    "null": (Answer(None), "the answer has no text"),
    "no choices": (Answer(b'{"choices": []}'), "the answer has no text"),
    "not an object": (Answer(b"[]"), "the answer has no text"),
    "no JSON at all": (Answer(b"<html>"), "j"),
    "failing": (Answer("out of memory", status=500), "500 for j: .*out of memory"),
    "busy": (Answer("slow down", status=429), "429"),
}


@pytest.mark.parametrize(("answer", "message"), BAD.values(), ids=BAD)
async def test_a_bad_answer_is_asked_for_again_and_then_an_error(
    judge: ChatServer, answer: Answer, message: str
) -> None:
    judge.say(answer)
    with pytest.raises(JudgeError, match=message):
        await ruler(PAIR, "j", base_url=judge.base_url, max_retries=2)
    assert len(judge.requests) == 3
    judge.say(answer, Answer(scores(1, 0)))
    assert len(await ruler(PAIR, "j", base_url=judge.base_url, max_retries=1)) == 2


@pytest.mark.parametrize(
    "answer",
    [Answer(scores(1, 0), delay=3), Answer(scores(1, 0), pause=0.1)],
    ids=["silent", "a byte at a time"],
)
async def test_a_judge_that_hangs_costs_its_timeout_and_no_more(
    judge: ChatServer, answer: Answer
) -> None:
    judge.say(answer)
    start = time.monotonic()
    with pytest.raises(JudgeError, match=r"did not answer within 0\.4 seconds"):
        await ruler(PAIR, "j", base_url=judge.base_url, timeout=0.4, max_retries=0)
    assert time.monotonic() - start < 2


async def test_a_judge_that_is_not_there_is_an_error() -> None:
    with pytest.raises(JudgeError, match="asking j failed"):
        await ruler(PAIR, "j", base_url="http://127.0.0.1:9/v1", max_retries=1)


async def test_a_judge_on_this_machine_is_asked_directly(
    judge: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    judge.say(Answer(scores(1, 0)))
    await ruler(PAIR, "j", base_url=judge.base_url, max_retries=0)
    assert len(judge.requests) == 1


async def test_a_server_that_takes_no_schema_is_asked_without(judge: ChatServer) -> None:
    judge.script = lambda body: (
        Answer("response_format is not supported", status=400)
        if "response_format" in body
        else Answer(scores(1, 0))
    )
    await ruler(PAIR, "j", base_url=judge.base_url, max_retries=0)
    assert ["response_format" in request for request in judge.requests] == [True, False]


async def test_a_request_that_the_server_refuses_is_not_repeated(judge: ChatServer) -> None:
    judge.say(Answer("the prompt is too long", status=400))
    with pytest.raises(JudgeError, match="too long"):
        await ruler(PAIR, "j", base_url=judge.base_url)
    assert len(judge.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_wrong_key_or_model_ends_the_run_also_where_failures_are_swallowed(
    judge: ChatServer, status: int
) -> None:
    judge.say(Answer("no such model", status=status))
    group = art.TrajectoryGroup([art.Trajectory(messages_and_choices=[*each]) for each in PAIR])
    with pytest.raises(ConfigurationError, match="Check the model's name"):
        await ruler_score_group(group, "j", base_url=judge.base_url, swallow_exceptions=True)


async def test_arguments_for_litellm_are_taken(judge: ChatServer) -> None:
    judge.say(Answer(scores(1, 0)))
    params = {"api_base": judge.base_url, "api_key": "k2", "temperature": 0.5, "num_retries": 0}
    await ruler(PAIR, "hosted_vllm/qwen", params)
    (request,) = judge.requests
    assert (request["model"], request["temperature"], judge.keys) == ("qwen", 0.5, ["k2"])
    with pytest.raises(ConfigurationError, match="'drop_params', which only litellm knows"):
        await ruler(PAIR, "openai/o3", {"drop_params": True})


async def test_a_client_of_ones_own_judges_and_stays_open(judge: ChatServer) -> None:
    judge.say(Answer(scores(1, 0)))
    async with openai.AsyncOpenAI(base_url=judge.base_url, api_key="k3") as client:
        for _ in range(2):
            await ruler(PAIR, "openai/gpt-x", client=client)
    assert [request["model"] for request in judge.requests] == ["openai/gpt-x"] * 2
    with pytest.raises(ConfigurationError, match="not both"):
        await ruler(PAIR, "j", client=client, base_url=judge.base_url)


async def test_a_provider_needs_its_key_and_must_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(MissingAPIKeyError, match="set OPENAI_API_KEY"):
        await ruler(PAIR)
    with pytest.raises(ConfigurationError, match=r"'bedrock', which art does not know.*base_url"):
        await ruler(PAIR, "bedrock/claude")


async def test_the_judge_may_be_shown(
    judge: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    judge.say(Answer(scores(1, 0)))
    await ruler(PAIR, "j", base_url=judge.base_url, debug=True)
    assert "why 1" in capsys.readouterr().err


@pytest.fixture
def group() -> art.TrajectoryGroup:
    return art.TrajectoryGroup(
        [
            art.Trajectory(messages_and_choices=[*messages], reward=0.1, metrics={"turns": 1})
            for messages in PAIR
        ],
        exceptions=[ValueError("one failed")],
        metadata={"scenario": "sum"},
        metrics={"difficulty": 2},
    )


async def test_a_scored_group_is_a_copy_with_the_scores_as_rewards(
    judge: ChatServer, group: art.TrajectoryGroup
) -> None:
    judge.say(Answer(scores(1, 0)))
    before = group.model_dump_json()
    scored = await ruler_score_group(group, "j", base_url=judge.base_url)
    assert scored is not None
    assert group.model_dump_json() == before
    assert [each.reward for each in scored] == [1, 0]
    assert [each.metrics for each in scored] == [
        {"turns": 1, "independent_reward": 0.1, "ruler_score": score} for score in (1, 0)
    ]
    assert [each.logs for each in scored] == [["RULER: why 1"], ["RULER: why 2"]]
    # ART's own loses these.
    assert (scored.metadata, scored.metrics, len(scored.exceptions)) == (
        {"scenario": "sum"},
        {"difficulty": 2},
        1,
    )


async def test_a_failing_judge_costs_its_group_and_not_the_run(
    judge: ChatServer, group: art.TrajectoryGroup
) -> None:
    judge.script = lambda body: (
        Answer("no", status=500) if "spoilt" in json.dumps(body) else Answer(scores(1, 0))
    )

    async def roll(answer: str) -> art.Trajectory:
        return art.Trajectory(messages_and_choices=[*conversation(answer)])

    async def score(group: art.TrajectoryGroup) -> art.TrajectoryGroup | None:
        return await ruler_score_group(
            group, "j", base_url=judge.base_url, swallow_exceptions=True, max_retries=0
        )

    groups = await art.gather_trajectory_groups(
        [
            art.TrajectoryGroup([roll("4"), roll("5")]),
            art.TrajectoryGroup([roll("spoilt"), roll("5")]),
            art.TrajectoryGroup([roll("6"), roll("4")]),
        ],
        after_each=score,
    )
    assert [[each.reward for each in group] for group in groups] == [[1, 0], [1, 0]]
    judge.say(Answer("no", status=500))
    with pytest.raises(JudgeError):
        await ruler_score_group(group, "j", base_url=judge.base_url, max_retries=0)


async def test_a_cancelled_judgement_is_cancelled(
    judge: ChatServer, group: art.TrajectoryGroup
) -> None:
    judge.say(Answer(delay=2))
    task = asyncio.create_task(
        ruler_score_group(group, "j", base_url=judge.base_url, swallow_exceptions=True)
    )
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_additional_histories_are_refused(group: art.TrajectoryGroup) -> None:
    group.trajectories[0].additional_histories = [art.History(messages_and_choices=[])]
    with pytest.raises(ConfigurationError, match="additional_histories"):
        await ruler_score_group(group)


async def test_the_judge_is_charged_to_the_active_builder(judge: ChatServer) -> None:
    judge.say(Answer("no JSON"), Answer(scores(1, 0)))
    builder = MetricsBuilder("train")
    builder.register_model_pricing("j", prompt_per_million=10, completion_per_million=100)
    with builder.activate_context():
        await ruler(PAIR, "j", base_url=judge.base_url)
        await ruler(PAIR, "unpriced", base_url=judge.base_url)
    # Each of the two answers, the bad one too: 100 tokens of prompt and 10 of completion.
    metrics: dict[str, Any] = await builder.flush()
    assert metrics["costs/train/judge/ruler"] == pytest.approx(2 * (100 * 10 + 10 * 100) / 1e6)
