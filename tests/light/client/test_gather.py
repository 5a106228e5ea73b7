"""Gathering: order, failures, cancellation, retries and the progress bar."""

import asyncio
import io
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from art.errors import ConfigurationError
from art.gather import gather_trajectories, gather_trajectory_groups
from art.trajectories import Trajectory, TrajectoryGroup


@pytest.fixture(autouse=True)
def _nothing_is_never_awaited() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """What tqdm's bars have written, with every bar that was opened closed."""
    import tqdm.auto

    text = io.StringIO()
    opened: list[Any] = []

    class Bar(tqdm.std.tqdm):  # type: ignore[type-arg]
        def __init__(self, **options: Any) -> None:
            self.closings = 0
            opened.append(self)
            super().__init__(**options, file=text, mininterval=0, ncols=200)

        def close(self) -> None:
            self.closings += 1
            super().close()

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)

    def written() -> str:
        assert opened
        assert all(each.closings for each in opened)
        return text.getvalue()

    return written


class Rollouts:
    """Rollouts that count how many of them are running."""

    def __init__(self) -> None:
        self.running = 0
        self.cancelled = 0
        self.finished = 0

    async def __call__(
        self, number: float, *, delay: float = 0.0, error: Exception | None = None, **metrics: float
    ) -> Trajectory:
        self.running += 1
        try:
            await asyncio.sleep(delay)
            if error is not None:
                raise error
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        self.finished += 1
        return Trajectory(reward=number, metrics=dict(metrics))


@pytest.fixture
def rollouts() -> Rollouts:
    return Rollouts()


def rewards(groups: list[TrajectoryGroup]) -> list[list[float]]:
    return [[trajectory.reward for trajectory in group] for group in groups]


class TestGroups:
    async def test_results_are_in_the_order_of_the_inputs(self, rollouts: Rollouts) -> None:
        groups = await gather_trajectory_groups(
            TrajectoryGroup(
                rollouts(10 * group + each, delay=0.01 * (6 - 2 * group - each))
                for each in range(2)
            )
            for group in range(3)
        )
        assert rewards(groups) == [[0, 1], [10, 11], [20, 21]]

    @settings(max_examples=30, deadline=None)
    @given(
        delays=st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=4),
        failing=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3))),
    )
    def test_every_rollout_is_in_its_place_once(
        self, delays: list[list[int]], failing: set[tuple[int, int]]
    ) -> None:
        async def one(group: int, each: int, delay: int) -> Trajectory:
            for _ in range(delay):
                await asyncio.sleep(0)
            if (group, each) in failing:
                raise ValueError(f"{group} {each}")
            return Trajectory(metadata={"name": f"{group} {each}"})

        async def gather() -> list[TrajectoryGroup]:
            return await gather_trajectory_groups(
                (
                    TrajectoryGroup([one(g, e, delay) for e, delay in enumerate(row)])
                    for g, row in enumerate(delays)
                    if row
                ),
                max_exceptions=len(failing),
            )

        groups = asyncio.run(gather())
        rows = [(g, row) for g, row in enumerate(delays) if row]
        assert len(groups) == len(rows)
        for group, (g, row) in zip(groups, rows, strict=True):
            names = [f"{g} {e}" for e in range(len(row))]
            failed = [f"{g} {e}" for e in range(len(row)) if (g, e) in failing]
            assert [t.metadata["name"] for t in group] == [n for n in names if n not in failed]
            assert [error.message for error in group.exceptions] == failed

    async def test_the_bar_shows_means(self, rollouts: Rollouts, bar: Callable[[], str]) -> None:
        await gather_trajectory_groups(
            [
                TrajectoryGroup([rollouts(1.0, turns=2), rollouts(0.0)]),
                TrajectoryGroup([rollouts(0.5, turns=4), rollouts(9.0, error=ValueError("x"))]),
            ],
            pbar_desc="step 3",
            max_exceptions=1,
        )
        last = bar().replace("\r", "\n").strip().splitlines()[-1]
        assert last.startswith("step 3: ")
        assert "3/4" in last
        assert "reward=0.5" in last
        assert "turns=3" in last
        assert "exceptions=1" in last

    async def test_the_bar_shows_no_more_means_than_asked_for(
        self, rollouts: Rollouts, bar: Callable[[], str]
    ) -> None:
        await gather_trajectory_groups([TrajectoryGroup([rollouts(1.0, a=2)])], max_metrics=1)
        assert "reward=1" in bar()
        assert "a=2" not in bar()

    async def test_the_first_failure_too_many_cancels_the_rest(
        self, rollouts: Rollouts, bar: Callable[[], str]
    ) -> None:
        error = ValueError("the first")
        with pytest.raises(ValueError, match="the first") as caught:
            await gather_trajectory_groups(
                [
                    TrajectoryGroup([rollouts(0, delay=60), rollouts(1, delay=0.01, error=error)]),
                    TrajectoryGroup([rollouts(2, delay=60)]),
                    group_of(rollouts, delay=60),
                ]
            )
        assert caught.value is error
        assert (rollouts.running, rollouts.cancelled) == (0, 3)
        bar()

    @pytest.mark.parametrize(
        ("max_exceptions", "failures", "allowed"),
        [
            (0, 0, True),
            (0, 1, False),
            (2, 2, True),
            (2, 3, False),
            (0.25, 2, True),
            (0.25, 3, False),
            (1.0, 1, True),
            (1.0, 2, False),
            (math.inf, 8, True),
        ],
    )
    async def test_as_many_rollouts_may_fail_as_max_exceptions_says(
        self, rollouts: Rollouts, max_exceptions: float, failures: int, allowed: bool
    ) -> None:
        def groups() -> Iterator[Any]:
            for start in (0, 4):
                yield TrajectoryGroup(
                    rollouts(n, error=ValueError("x") if n < failures else None)
                    for n in range(start, start + 4)
                )

        gathering = gather_trajectory_groups(groups(), max_exceptions=max_exceptions)
        if allowed:
            gathered = await gathering
            assert sum(len(group.exceptions) for group in gathered) == failures
            assert sum(len(group) for group in gathered) == 8 - failures
        else:
            with pytest.raises(ValueError, match="x"):
                await gathering

    async def test_allowed_failures_are_logged(
        self, rollouts: Rollouts, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            await gather_trajectory_groups(
                [TrajectoryGroup([rollouts(0, error=KeyError("gone"))])], max_exceptions=1
            )
        assert "KeyError('gone')" in caplog.text

    @pytest.mark.parametrize("max_exceptions", [-1, math.nan])
    async def test_options_are_checked_and_nothing_leaks(
        self, rollouts: Rollouts, max_exceptions: float
    ) -> None:
        groups: list[Any] = [TrajectoryGroup([rollouts(0)]), group_of(rollouts)]
        with pytest.raises(ConfigurationError, match="max_exceptions"):
            await gather_trajectory_groups(groups, max_exceptions=max_exceptions)
        with pytest.raises(ConfigurationError, match="retries"):
            await gather_trajectories([rollouts(0)], retries=-1)

    async def test_cancelling_the_gather_cancels_the_rollouts(
        self, rollouts: Rollouts, bar: Callable[[], str]
    ) -> None:
        task = asyncio.create_task(
            gather_trajectory_groups(
                [TrajectoryGroup([rollouts(0, delay=60)]), group_of(rollouts, delay=60)],
                max_exceptions=10,
            )
        )
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (rollouts.running, rollouts.cancelled) == (0, 2)
        bar()

    async def test_coroutines_of_groups_are_gathered_with_their_rollouts_counted(
        self, rollouts: Rollouts, bar: Callable[[], str]
    ) -> None:
        groups = await gather_trajectory_groups(
            [group_of(rollouts, size=3), nested_group_of(rollouts, size=2), group_of(rollouts)]
        )
        assert [len(group) for group in groups] == [3, 2, 1]
        assert "6/6" in bar()
        assert "reward=1" in bar()

    async def test_a_failure_inside_a_nested_group_counts(self, rollouts: Rollouts) -> None:
        error = ValueError("nested")
        with pytest.raises(ValueError, match="nested"):
            await gather_trajectory_groups([nested_group_of(rollouts, error=error)])
        (group,) = await gather_trajectory_groups(
            [nested_group_of(rollouts, error=error)], max_exceptions=1
        )
        assert len(group.exceptions) == 1

    async def test_a_group_inside_a_rollout_is_the_rollouts_own(
        self, rollouts: Rollouts, bar: Callable[[], str]
    ) -> None:
        async def with_subagents() -> Trajectory:
            inner = await TrajectoryGroup([rollouts(5), rollouts(5, error=ValueError("inner"))])
            return Trajectory(reward=len(inner))

        async def scenario() -> TrajectoryGroup:
            return await TrajectoryGroup([with_subagents()])

        groups = await gather_trajectory_groups([TrajectoryGroup([with_subagents()]), scenario()])
        assert rewards(groups) == [[1], [1]]
        assert "2/2" in bar()
        assert "reward=1" in bar()
        assert "exceptions" not in bar()

    async def test_a_coroutine_of_a_group_that_may_fail_leaves_none(
        self, rollouts: Rollouts
    ) -> None:
        async def failing() -> TrajectoryGroup:
            raise ValueError("whole group")

        groups = await gather_trajectory_groups([failing(), group_of(rollouts)], max_exceptions=1)
        assert len(groups) == 1
        with pytest.raises(ValueError, match="whole group"):
            await gather_trajectory_groups([failing(), group_of(rollouts)])

    async def test_a_coroutine_of_something_else_is_an_error(self, rollouts: Rollouts) -> None:
        with pytest.raises(TypeError, match="gather_trajectories"):
            await gather_trajectory_groups([rollouts(1)])  # type: ignore[list-item]

    async def test_a_group_is_replaced_by_what_after_each_returns(self, rollouts: Rollouts) -> None:
        seen: list[float] = []

        async def score(group: TrajectoryGroup) -> TrajectoryGroup | list[TrajectoryGroup] | None:
            reward = group.trajectories[0].reward
            seen.append(reward)
            if reward == 0:
                return None
            return [group, group] if reward == 1 else group

        groups = await gather_trajectory_groups(
            [TrajectoryGroup([rollouts(n, delay=0.01 * (2 - n))]) for n in range(3)],
            after_each=score,
        )
        assert seen == [2, 1, 0]
        assert rewards(groups) == [[1], [1], [2]]

    async def test_an_error_in_after_each_is_not_a_rollouts(self, rollouts: Rollouts) -> None:
        async def broken(group: TrajectoryGroup) -> None:
            raise LookupError("judge")

        with pytest.raises(LookupError, match="judge"):
            await gather_trajectory_groups(
                [TrajectoryGroup([rollouts(0)]), TrajectoryGroup([rollouts(0, delay=60)])],
                after_each=broken,
                max_exceptions=10,
            )
        assert rollouts.cancelled == 1

    async def test_no_groups_give_an_empty_list(self) -> None:
        assert await gather_trajectory_groups([]) == []


async def group_of(rollouts: Rollouts, *, size: int = 1, delay: float = 0.0) -> TrajectoryGroup:
    return TrajectoryGroup([await rollouts(1, delay=delay) for _ in range(size)])


async def nested_group_of(
    rollouts: Rollouts, *, size: int = 1, error: Exception | None = None
) -> TrajectoryGroup:
    return await TrajectoryGroup(rollouts(1, error=error) for _ in range(size))


class TestTrajectories:
    async def test_trajectories_are_in_the_order_of_the_inputs(
        self, rollouts: Rollouts, bar: Callable[[], str]
    ) -> None:
        gathered = await gather_trajectories(rollouts(n, delay=0.01 * (2 - n)) for n in range(3))
        assert [trajectory.reward for trajectory in gathered] == [0, 1, 2]
        assert "3/3" in bar()

    async def test_a_rollout_may_return_several_trajectories(
        self, rollouts: Rollouts, bar: Callable[[], str]
    ) -> None:
        async def two(n: int) -> Iterator[Trajectory]:
            return iter([await rollouts(n), await rollouts(n + 0.5)])

        gathered = await gather_trajectories(two(n) for n in range(2))
        assert [[t.reward for t in each] for each in gathered] == [[0, 0.5], [1, 1.5]]
        assert "4/4" in bar()

    async def test_exceptions_stand_in_their_places(self, rollouts: Rollouts) -> None:
        error = ValueError("x")
        gathered = await gather_trajectories(
            [rollouts(0), rollouts(1, error=error), rollouts(2)], max_exceptions=0.5
        )
        assert gathered[1] is error
        assert [t.reward for t in gathered if isinstance(t, Trajectory)] == [0, 2]

    async def test_one_too_many_raises_and_cancels(
        self, rollouts: Rollouts, bar: Callable[[], str]
    ) -> None:
        with pytest.raises(ValueError, match="x"):
            await gather_trajectories([rollouts(1, error=ValueError("x")), rollouts(0, delay=60)])
        assert (rollouts.running, rollouts.cancelled) == (0, 1)
        bar()


class TestRetries:
    async def test_a_rollout_is_run_again(self) -> None:
        tries: list[int] = []

        async def flaky(number: int) -> Trajectory:
            tries.append(number)
            if tries.count(number) <= 2:
                raise ConnectionError("flaky")
            return Trajectory(reward=number)

        groups = await gather_trajectory_groups(
            [TrajectoryGroup(partial(flaky, n) for n in range(2))], retries=2
        )
        assert rewards(groups) == [[0, 1]]
        assert sorted(tries) == [0, 0, 0, 1, 1, 1]

    async def test_the_last_failure_counts_once(self, rollouts: Rollouts) -> None:
        failing = partial(rollouts, 0, error=ValueError("x"))
        gathered = await gather_trajectories([failing], retries=3, max_exceptions=1)
        assert isinstance(gathered[0], ValueError)
        with pytest.raises(ValueError, match="x"):
            await gather_trajectories([failing], retries=3)

    async def test_a_coroutine_cannot_be_retried(self, rollouts: Rollouts) -> None:
        message = re.escape("functools.partial(rollout, model, scenario)")
        with pytest.raises(ConfigurationError, match=message):
            await gather_trajectories([rollouts(0), rollouts(1)], retries=1, max_exceptions=10)
        with pytest.raises(ConfigurationError, match=message):
            await gather_trajectory_groups(
                [TrajectoryGroup([rollouts(0)])], retries=1, max_exceptions=10
            )

    async def test_cancellation_is_not_retried(self) -> None:
        tries = 0

        async def cancelled() -> Trajectory:
            nonlocal tries
            tries += 1
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await gather_trajectories([cancelled], retries=5, max_exceptions=5)
        assert tries == 1
