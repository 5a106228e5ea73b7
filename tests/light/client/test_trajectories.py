"""Trajectories and groups: round trips, copies, and groups of rollouts that are yet to run."""

import asyncio
import copy
import json
import math
import multiprocessing
import pickle
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage
from openai.types.chat.chat_completion import Choice
from pydantic import BaseModel, ConfigDict, ValidationError

from art.errors import ConfigurationError
from art.rollouts import PendingRollouts
from art.trajectories import (
    History,
    PendingTrajectoryGroup,
    PydanticException,
    Trajectory,
    TrajectoryGroup,
)


@pytest.fixture(autouse=True)
def _nothing_is_never_awaited() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def make_choice(
    token_ids: list[int], prompt: list[int], *, content: str | None = "yes", **message: Any
) -> Choice:
    return Choice.model_validate(
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": content, **message},
            "logprobs": {
                "content": [
                    {"token": str(token), "bytes": None, "logprob": -0.5, "top_logprobs": []}
                    for token in token_ids
                ]
            },
            "prompt_token_ids": prompt,
            "token_ids": token_ids,
        }
    )


TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def make_group() -> TrajectoryGroup:
    trajectory = Trajectory(
        messages_and_choices=[
            {"role": "user", "content": "Is it?"},
            make_choice([3, 4], [1, 2]),
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "42"}]},
            make_choice([6], [1, 2, 3, 4, 5], content=None, tool_calls=[TOOL_CALL]),
        ],
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        additional_histories=[History(messages_and_choices=[make_choice([8], [7])])],
        reward=0.25,
        initial_policy_version=1,
        metrics={"correct": True, "turns": 2, "score": 0.5},
        metadata={"scenario": "s1", "seed": 3, "best": None},
        logs=["a line"],
    )
    return TrajectoryGroup(
        [trajectory, ValueError("no")], metadata={"id": "g"}, metrics={"n": 1}, logs=["x"]
    )


class TestRoundTrips:
    def test_a_group_comes_back_from_json_with_its_choices(self) -> None:
        group = make_group()
        back = TrajectoryGroup.model_validate_json(group.model_dump_json())
        assert back.model_dump() == group.model_dump()
        items = back.trajectories[0].messages_and_choices
        assert [isinstance(item, Choice) for item in items] == [False, True, False, True]
        choice = items[1]
        assert isinstance(choice, Choice)
        assert (choice.model_extra or {})["token_ids"] == [3, 4]
        assert (choice.model_extra or {})["prompt_token_ids"] == [1, 2]
        assert choice.logprobs is not None
        history = back.trajectories[0].additional_histories[0]
        assert isinstance(history.messages_and_choices[0], Choice)
        # bool, int and float are kept apart.
        assert json.dumps(back.trajectories[0].metrics) == json.dumps(group.trajectories[0].metrics)

    @example(
        reward=math.nan, metrics={"a": math.inf, "b": -math.inf}, metadata={}, content="", tokens=[]
    )
    @given(
        reward=st.floats(),
        metrics=st.dictionaries(st.text(), st.one_of(st.booleans(), st.integers(), st.floats())),
        metadata=st.dictionaries(
            st.text(),
            st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.floats(-1e6, 1e6)),
        ),
        content=st.text(),
        tokens=st.lists(st.integers(0, 2**31)),
    )
    def test_any_values_survive_json(
        self,
        reward: float,
        metrics: dict[str, Any],
        metadata: dict[str, Any],
        content: str,
        tokens: list[int],
    ) -> None:
        trajectory = Trajectory(
            messages_and_choices=[{"role": "user", "content": content}, make_choice(tokens, [1])],
            reward=reward,
            metrics=metrics,
            metadata=metadata,
        )

        def refuse(constant: str) -> None:
            raise ValueError(f"{constant} is not JSON")

        text = trajectory.model_dump_json()
        json.loads(text, parse_constant=refuse)
        back = Trajectory.model_validate_json(text)
        assert repr(back.model_dump()) == repr(trajectory.model_dump())

    @pytest.mark.parametrize(
        "duplicate",
        [
            copy.copy,
            copy.deepcopy,
            lambda group: pickle.loads(pickle.dumps(group)),
            lambda group: group.model_copy(),
            lambda group: TrajectoryGroup.model_validate(group.model_dump()),
        ],
        ids=["copy", "deepcopy", "pickle", "model_copy", "model_validate"],
    )
    def test_copies_are_equal(self, duplicate: Any) -> None:
        group = make_group()
        assert duplicate(group).model_dump() == group.model_dump()

    def test_a_copy_has_lists_of_its_own(self) -> None:
        group = make_group()
        shallow, deep = copy.copy(group), copy.deepcopy(group)
        shallow.trajectories.append(Trajectory())
        shallow.metadata["more"] = 1
        shallow.exceptions.clear()
        deep.trajectories[0].reward = 9.0
        assert (len(group), len(group.exceptions), group.metadata) == (1, 1, {"id": "g"})
        assert group.trajectories[0].reward == 0.25
        assert shallow.trajectories[0] is group.trajectories[0]


class TestTrajectory:
    def test_choices_become_assistant_messages_with_text(self) -> None:
        trajectory = make_group().trajectories[0]
        trajectory.messages_and_choices.append({"role": "assistant", "content": None})
        assert trajectory.messages() == [
            {"role": "user", "content": "Is it?"},
            {"role": "assistant", "content": "yes"},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "42"}]},
            {"role": "assistant", "content": "", "tool_calls": [TOOL_CALL]},
            {"role": "assistant", "content": ""},
        ]
        assert trajectory.additional_histories[0].messages() == [
            {"role": "assistant", "content": "yes"}
        ]

    def test_each_logged_message_says_whether_it_is_trainable(self) -> None:
        logged = make_group().trajectories[0].for_logging()
        assert [message["trainable"] for message in logged["messages"]] == [
            False,
            True,
            False,
            True,
        ]
        assert logged["reward"] == 0.25
        assert logged["logs"] == ["a line"]
        assert json.loads(json.dumps(logged)) == logged

    async def test_durations_of_blocks_add_up_and_survive_errors(self) -> None:
        trajectory = Trajectory()
        for _ in range(2):
            async with trajectory.track_duration("model"):
                await asyncio.sleep(0.02)
        with pytest.raises(KeyError):
            async with trajectory.track_duration("tool"):
                raise KeyError
        assert trajectory.finish() is trajectory
        assert 0.03 < trajectory.metrics["model_duration"] < 1
        assert trajectory.metrics["duration"] >= trajectory.metrics["model_duration"]
        assert trajectory.metrics["tool_duration"] >= 0

    def test_defaults_are_not_shared(self) -> None:
        one, other = Trajectory(), Trajectory()
        one.log("x")
        one.metrics["a"] = 1
        one.messages_and_choices.append({"role": "user", "content": ""})
        assert other.model_dump() == Trajectory().model_dump()
        assert "reward=0.0" in str(one)

    @pytest.mark.parametrize("item", ["text", {"content": "no role"}, None, 3])
    def test_what_is_not_a_message_is_refused(self, item: Any) -> None:
        with pytest.raises(ValidationError, match="role"):
            Trajectory(messages_and_choices=[item])

    def test_a_message_is_kept_as_it_is(self) -> None:
        message = {"role": "user", "content": iter(["kept"]), "cache_control": {"type": "x"}}
        kept = Trajectory(messages_and_choices=[message]).messages_and_choices[0]  # type: ignore[list-item]
        assert kept is message


async def rollout(number: int, *, delay: float = 0.0, fail: bool = False) -> Trajectory:
    await asyncio.sleep(delay)
    if fail:
        raise RuntimeError(f"rollout {number}")
    return Trajectory(reward=number)


class TestGroup:
    def test_trajectories_and_exceptions_are_told_apart(self) -> None:
        items: list[Trajectory | BaseException] = [
            Trajectory(reward=1),
            ValueError("bad"),
            Trajectory(reward=2),
        ]
        group = TrajectoryGroup(
            (item for item in items),
            exceptions=[KeyError("k")],
        )
        assert [trajectory.reward for trajectory in group] == [1, 2]
        assert len(group) == 2
        assert [error.type for error in group.exceptions] == [
            "<class 'ValueError'>",
            "<class 'KeyError'>",
        ]
        assert group.exceptions[0].message == "bad"

    def test_an_exception_keeps_its_traceback_and_cause(self) -> None:
        try:
            try:
                raise KeyError("inner")
            except KeyError as error:
                raise ValueError("outer") from error
        except ValueError as error:
            kept = PydanticException.of(error)
        assert "inner" in kept.traceback
        assert "test_an_exception_keeps_its_traceback" in kept.traceback

    async def test_trajectories_are_in_the_order_of_the_rollouts(self) -> None:
        group = await TrajectoryGroup(
            (rollout(number, delay=0.02 * (3 - number)) for number in range(4)),
            metadata={"id": 1},
        )
        assert [trajectory.reward for trajectory in group] == [0, 1, 2, 3]
        assert group.metadata == {"id": 1}

    async def test_all_rollouts_run_at_once(self) -> None:
        barrier = asyncio.Barrier(5)

        async def meet() -> Trajectory:
            await barrier.wait()
            return Trajectory()

        async with asyncio.timeout(5):
            assert len(await TrajectoryGroup(meet() for _ in range(5))) == 5

    async def test_exceptions_are_in_the_order_of_the_rollouts(self) -> None:
        group = await TrajectoryGroup(rollout(number, fail=number % 2 == 0) for number in range(4))
        assert [trajectory.reward for trajectory in group] == [1, 3]
        assert [error.message for error in group.exceptions] == ["rollout 0", "rollout 2"]

    async def test_callables_tasks_and_futures_are_rollouts_too(self) -> None:
        assert len(await TrajectoryGroup([partial(rollout, 1), partial(rollout, 2)])) == 2
        assert len(await TrajectoryGroup([asyncio.create_task(rollout(1))])) == 1

    async def test_a_finished_group_may_be_awaited(self) -> None:
        group = make_group()
        assert await group is group

    async def test_cancelling_cancels_every_rollout_and_is_no_failure(self) -> None:
        cancelled = 0

        async def endless() -> Trajectory:
            nonlocal cancelled
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled += 1
                raise
            return Trajectory()

        async def run() -> TrajectoryGroup:
            return await TrajectoryGroup(endless() for _ in range(3))

        task = asyncio.create_task(run())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cancelled == 3

    async def test_a_rollout_that_is_cancelled_propagates(self) -> None:
        async def cancelled() -> Trajectory:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await TrajectoryGroup([cancelled(), rollout(1, delay=60)])

    def test_a_keyboard_interrupt_propagates(self) -> None:
        async def interrupted() -> Trajectory:
            raise KeyboardInterrupt

        async def main() -> None:
            await TrajectoryGroup([interrupted(), rollout(1, delay=60)])

        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())

    async def test_a_rollout_that_returns_no_trajectory_is_an_error(self) -> None:
        async def forgetful() -> None:
            pass

        with pytest.raises(TypeError, match="it returned None"):
            await TrajectoryGroup([forgetful(), rollout(1, delay=60)])  # type: ignore[list-item]

    def test_a_mix_of_finished_and_pending_is_an_error(self) -> None:
        with pytest.raises(TypeError, match="not a mix"):
            TrajectoryGroup([Trajectory(), rollout(1)])

    async def test_a_group_can_be_awaited_once(self) -> None:
        pending: Any = TrajectoryGroup([rollout(1)])
        await pending
        with pytest.raises(RuntimeError, match="only once"):
            await pending

    def test_a_wrong_field_is_found_before_the_rollouts_run(self) -> None:
        with pytest.raises(TypeError, match="metdata"):
            TrajectoryGroup([rollout(1)], metdata={})  # type: ignore[call-arg]
        with pytest.raises(ValidationError, match="logs"):
            TrajectoryGroup([rollout(1)], logs=3)  # type: ignore[arg-type]

    async def test_fields_reach_the_group(self) -> None:
        group = await TrajectoryGroup(
            [rollout(1), rollout(2, fail=True)],
            exceptions=(error for error in [KeyError("given")]),
            metadata={"a": 1},
            metrics={"b": 2},
            logs=["c"],
        )
        assert (group.metadata, group.metrics, group.logs) == ({"a": 1}, {"b": 2}, ["c"])
        assert [error.message for error in group.exceptions] == ["rollout 2", "'given'"]

    async def test_a_wrong_configuration_is_no_failure_of_one_rollout(self) -> None:
        async def misconfigured() -> Trajectory:
            raise ConfigurationError("no endpoint")

        with pytest.raises(ConfigurationError, match="no endpoint"):
            await TrajectoryGroup([misconfigured(), rollout(1, delay=60)])

    def test_pending_groups_can_be_closed_unstarted(self) -> None:
        pending: Any = TrajectoryGroup(rollout(number) for number in range(3))
        assert isinstance(pending, PendingTrajectoryGroup)
        assert isinstance(pending, PendingRollouts)
        assert len(pending) == 3
        pending.close()

    async def test_completion_tokens_are_counted(self) -> None:
        async def counted() -> Trajectory:
            return Trajectory(
                messages_and_choices=[make_choice([1, 2, 3], [0]), make_choice([4], [0])]
            )

        group = await TrajectoryGroup([counted()])
        assert group.trajectories[0].metrics["completion_tokens"] == 2.0


def test_nan_rewards_survive_pickle() -> None:
    back = pickle.loads(pickle.dumps(TrajectoryGroup([Trajectory(reward=math.nan)])))
    assert math.isnan(back.trajectories[0].reward)


NUMBERS: dict[str, tuple[Any, bool | int | float]] = {
    "numpy float32": (np.float32(0.5), 0.5),
    "numpy int64": (np.int64(3), 3),
    "numpy bool": (np.bool_(True), True),
    "array": (np.array(0.25), 0.25),
    "array of one": (np.array([[2]]), 2),
    "decimal": (Decimal("1.5"), 1.5),
    "fraction": (Fraction(1, 4), 0.25),
    "NaN": (np.float16("nan"), math.nan),
}


def torch_numbers() -> dict[str, tuple[Any, bool | int | float]]:
    torch = pytest.importorskip("torch")
    return {
        "float": (torch.tensor(0.5, requires_grad=True), 0.5),
        "bfloat16": (torch.tensor([0.5], dtype=torch.bfloat16), 0.5),
        "int": (torch.tensor(3), 3),
        "bool": (torch.tensor(True), True),
    }


class TestNumbersOfOtherLibraries:
    def check(self, number: Any, plain: bool | int | float) -> None:
        """The number is taken by the constructor, and by assignment, which nothing checks."""
        given = Trajectory(reward=number, metrics={"m": number}, metadata={"d": number})
        assigned = Trajectory()
        assigned.reward = assigned.metrics["m"] = assigned.metadata["d"] = number
        expected = repr({"m": plain})
        for trajectory in (given, assigned):
            group = TrajectoryGroup([trajectory], metrics={"m": number}, metadata={"m": number})
            for name in ("metrics", "metadata"):
                assert repr(group.model_dump()[name]) == expected
            dumped = Trajectory.model_validate_json(trajectory.model_dump_json())
            logged = trajectory.for_logging()
            for values in (dumped.metrics, trajectory.model_dump()["metrics"], logged["metrics"]):
                assert repr(values) == expected
            assert repr(logged["metadata"]["d"]) == repr(plain)
            assert repr(float(dumped.reward)) == repr(float(logged["reward"])) == repr(float(plain))

    @pytest.mark.parametrize("name", NUMBERS)
    def test_numpy_and_the_standard_library(self, name: str) -> None:
        self.check(*NUMBERS[name])

    def test_torch(self) -> None:
        for number, plain in torch_numbers().values():
            self.check(number, plain)

    async def test_they_are_pythons_once_a_rollout_is_finished(self) -> None:
        async def computed() -> Trajectory:
            trajectory = Trajectory(metadata={"best": None})
            trajectory.reward = np.float32(0.5)  # type: ignore[assignment]  # as users do
            trajectory.metrics["score"] = np.int64(2)  # type: ignore[assignment]
            return trajectory

        finished = (await TrajectoryGroup([computed()])).trajectories[0]
        assert (type(finished.reward), type(finished.metrics["score"])) == (float, int)

    @pytest.mark.parametrize("value", [np.zeros(2), [1], 1j, "high"])
    def test_what_is_no_number_is_refused(self, value: Any) -> None:
        with pytest.raises(ValidationError):
            Trajectory(metrics={"m": value})


THOUGHT = ChatCompletionMessage(role="assistant", content="a thought")
CALL = ChatCompletionMessage.model_validate(
    {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
)


class ForeignChoice(BaseModel):
    """A Choice of another client's class, such as litellm's."""

    model_config = ConfigDict(extra="allow")

    finish_reason: str
    index: int
    message: dict[str, Any]
    logprobs: Any = None


class TestObjectsOfAClient:
    """They are taken by the constructor, and where they were appended."""

    @pytest.fixture(params=["given", "appended"])
    def with_item(self, request: pytest.FixtureRequest) -> Callable[[Any], Trajectory]:
        def make(item: Any) -> Trajectory:
            if request.param == "given":
                return Trajectory(messages_and_choices=[{"role": "user", "content": "hi"}, item])
            trajectory = Trajectory(messages_and_choices=[{"role": "user", "content": "hi"}])
            trajectory.messages_and_choices.append(item)
            return trajectory

        return make

    @pytest.mark.parametrize(
        ("message", "plain"),
        [
            (THOUGHT, {"role": "assistant", "content": "a thought"}),
            (CALL, {"role": "assistant", "content": "", "tool_calls": [TOOL_CALL]}),
        ],
    )
    def test_a_message(
        self,
        with_item: Callable[[Any], Trajectory],
        message: ChatCompletionMessage,
        plain: dict[str, Any],
    ) -> None:
        trajectory = with_item(message)
        back = Trajectory.model_validate_json(trajectory.model_dump_json())
        for each in (trajectory, back):
            assert each.messages()[1] == plain
            logged = each.for_logging()["messages"][1]
            assert logged["trainable"] is False
            assert logged["role"] == "assistant"

    @pytest.mark.parametrize("kind", ["another class", "a dict"])
    def test_a_choice(self, with_item: Callable[[Any], Trajectory], kind: str) -> None:
        choice = make_choice([3, 4], [1, 2], content="yes")
        fields = choice.model_dump()
        trajectory = with_item(ForeignChoice(**fields) if kind == "another class" else fields)
        back = Trajectory.model_validate_json(trajectory.model_dump_json())
        for each in (trajectory, back):
            assert each.messages()[1] == {"role": "assistant", "content": "yes"}
            assert each.for_logging()["messages"][1]["trainable"] is True
        assert back.messages_and_choices[1] == choice

    async def test_they_are_plain_once_a_rollout_is_finished(self) -> None:
        async def computed() -> Trajectory:
            trajectory = Trajectory()
            items: list[Any] = [THOUGHT, make_choice([3], [1]).model_dump()]
            trajectory.messages_and_choices += items
            return trajectory

        items = (await TrajectoryGroup([computed()])).trajectories[0].messages_and_choices
        assert items == [{"role": "assistant", "content": "a thought"}, make_choice([3], [1])]


class OwnHistory(History):
    agent: str


class OwnTrajectory(Trajectory):
    difficulty: int


class OwnGroup(TrajectoryGroup):
    scenario: str = ""


def make_own_group() -> OwnGroup:
    history = OwnHistory(messages_and_choices=[], agent="critic")
    trajectory = OwnTrajectory(difficulty=3, additional_histories=[history])
    return OwnGroup([trajectory], scenario="chess")  # type: ignore[call-arg]  # its own field


class TestSubclasses:
    def test_their_fields_are_written(self) -> None:
        written = json.loads(make_own_group().model_dump_json())
        assert written["scenario"] == "chess"
        assert written["trajectories"][0]["difficulty"] == 3
        assert written["trajectories"][0]["additional_histories"][0]["agent"] == "critic"

    async def test_a_group_that_is_awaited_keeps_them(self) -> None:
        async def own() -> OwnTrajectory:
            return OwnTrajectory(difficulty=4)

        pending: Any = OwnGroup([own()], scenario="go")  # type: ignore[call-arg]
        group = await pending
        assert (type(group), group.scenario) == (OwnGroup, "go")
        assert copy.copy(group) == group

    def test_they_cross_processes(self) -> None:
        group = make_own_group()
        group.trajectories += make_group().trajectories
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
            assert processes.submit(written_by, group).result() == group.model_dump_json()
        assert cloudpickle.loads(cloudpickle.dumps(group)) == group


def written_by(group: TrajectoryGroup) -> str:
    return group.model_dump_json()
