"""Batches of groups: order, failures, how much runs ahead, and what is left when one stops."""

import asyncio
import warnings
from collections.abc import Iterator
from functools import partial

import pytest

import art
from art.errors import ConfigurationError
from art.trajectories import Trajectory, TrajectoryGroup


@pytest.fixture(autouse=True)
def _nothing_is_never_awaited() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


async def roll(number: float, delay: float = 0.0, error: Exception | None = None) -> Trajectory:
    await asyncio.sleep(delay)
    if error is not None:
        raise error
    return Trajectory(reward=number)


async def group(number: float, error: Exception | None = None) -> TrajectoryGroup:
    return TrajectoryGroup([await roll(number, error=error)])


def rewards(batches: list[list[TrajectoryGroup]]) -> list[list[float]]:
    return [[each.trajectories[0].reward for each in batch] for batch in batches]


async def test_batches_come_in_the_order_of_completion_and_the_last_may_be_smaller() -> None:
    groups = (TrajectoryGroup([roll(n, delay)]) for n, delay in [(0, 0.2), (1, 0), (2, 0), (3, 0)])
    batches = [batch async for batch in art.trajectory_group_batches(groups, batch_size=3)]
    assert [sorted(batch) for batch in rewards(batches)] == [[1, 2, 3], [0]]


async def test_skipped_batches_do_not_run() -> None:
    groups = [group(number) for number in range(5)]
    batches = [
        batch async for batch in art.trajectory_group_batches(groups, batch_size=2, skip_batches=2)
    ]
    assert rewards(batches) == [[4]]


@pytest.mark.parametrize(("batch_size", "concurrent"), [(1, 2), (2, 1), (2, 2)])
async def test_so_many_batches_run_at_once_also_while_the_caller_trains(
    batch_size: int, concurrent: int
) -> None:
    started = 0

    async def count(number: int) -> TrajectoryGroup:
        nonlocal started
        started += 1
        return await group(number)

    batches = art.trajectory_group_batches(
        map(count, range(8)), batch_size=batch_size, max_concurrent_batches=concurrent
    )
    await anext(batches)
    await asyncio.sleep(0.05)  # the caller trains
    assert started == batch_size * concurrent
    await batches.aclose()


async def test_failures_are_allowed_for_each_batch_anew() -> None:
    groups = [
        partial(group, number, RuntimeError("lost") if number % 2 else None) for number in range(4)
    ]
    batches = [
        batch
        async for batch in art.trajectory_group_batches(
            groups, batch_size=1, max_batch_exceptions=1, max_concurrent_batches=1
        )
    ]
    assert rewards(batches) == [[0], [2]]


async def test_one_failure_more_than_is_allowed_ends_it_and_cancels_the_others() -> None:
    cancelled = asyncio.Event()

    async def wait() -> TrajectoryGroup:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    batches = art.trajectory_group_batches([wait(), group(0, RuntimeError("lost"))], batch_size=2)
    with pytest.raises(RuntimeError, match="lost"):
        await anext(batches)
    assert cancelled.is_set()


async def test_a_caller_that_stops_early_cancels_what_runs() -> None:
    batches = art.trajectory_group_batches(
        [group(0), TrajectoryGroup([roll(1, delay=60)]), group(2)],
        batch_size=1,
        max_concurrent_batches=2,
    )
    assert rewards([await anext(batches)]) == [[0]]
    await batches.aclose()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"batch_size": 1, "skip_batches": -1}], ids=str
)
async def test_a_number_out_of_range_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="batch_size and max_concurrent_batches"):
        await anext(art.trajectory_group_batches([group(0)], **options))  # type: ignore[arg-type]  # options by name


async def test_the_deprecated_option_of_the_bar_warns() -> None:
    batches = art.trajectory_group_batches([], batch_size=1, pbar_total_completion_tokens=True)
    with pytest.warns(DeprecationWarning, match="completion_tokens"):
        assert [batch async for batch in batches] == []
    with pytest.warns(DeprecationWarning, match="completion_tokens"):
        await art.gather_trajectories([], pbar_total_completion_tokens=True)
    with pytest.warns(DeprecationWarning, match="completion_tokens"):
        await art.gather_trajectory_groups([], pbar_total_completion_tokens=True)
