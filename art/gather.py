"""Gathering trajectories: many rollouts at once, with a progress bar."""

import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias, cast, overload

from art.errors import ConfigurationError
from art.rollouts import PendingRollouts, Rollout, Tally, discard, run, run_all, tallying
from art.runs.progress import terminal_progress
from art.trajectories import (
    PendingTrajectoryGroup,
    Trajectory,
    TrajectoryGroup,
    finish_trajectory,
)

AfterEach: TypeAlias = Callable[
    [TrajectoryGroup], Awaitable[TrajectoryGroup | list[TrajectoryGroup] | None]
]


async def gather_trajectory_groups(
    groups: Iterable[Rollout[TrajectoryGroup]],
    *,
    pbar_desc: str | None = "gather",
    pbar_total_completion_tokens: bool = False,
    max_exceptions: float = 0,
    max_metrics: int | None = None,
    after_each: AfterEach | None = None,
    retries: int = 0,
) -> list[TrajectoryGroup]:
    """Run the rollouts of many groups at once.

    Args:
        groups: Groups made from rollouts, coroutines that return a group, or callables that give
            one of these.
        pbar_desc: The progress bar's label. The bar shows the running means of the reward and
            the metrics.
        pbar_total_completion_tokens: Without effect, as in ART; ``True`` warns.
        max_exceptions: How many rollouts may fail; between 0 and 1, which part of them.
        max_metrics: How many means the bar shows; ``None`` is all.
        after_each: Called with each complete group, as soon as it is; what it returns takes the
            group's place, several groups or none if it likes.
        retries: How often a rollout that fails is run again before it counts as failed. The
            rollouts must then be callables: ``functools.partial(rollout, model, scenario)``.

    Returns:
        The groups, in the order given. A coroutine of a group that failed, and was allowed to,
        leaves no group.

    Raises:
        art.errors.ConfigurationError: An option is out of range, ``retries`` were asked for a
            coroutine, or a rollout raised one.
        Exception: What a rollout raised, when it is one more than ``max_exceptions``. All others
            are cancelled first.
    """

    async def gather_one(source: Rollout[TrajectoryGroup]) -> list[TrajectoryGroup]:
        group = await complete_group(source, tally)
        if group is None or after_each is None:
            return [] if group is None else [group]
        replacement = await after_each(group)
        if replacement is None:
            return []
        return replacement if isinstance(replacement, list) else [replacement]

    warn_of_completion_tokens_bar(pbar_total_completion_tokens)
    sources = list(groups)
    try:
        tally = Tally(
            total=sum(
                len(source) if isinstance(source, PendingTrajectoryGroup) else 1
                for source in sources
            ),
            max_exceptions=max_exceptions,
            retries=retries,
        )
        with _shown(tally, pbar_desc, max_metrics):
            gathered = await run_all([gather_one(source) for source in sources])
    finally:
        discard(sources)
    return [group for groups_of_one in gathered for group in groups_of_one]


def warn_of_completion_tokens_bar(asked_for: bool) -> None:
    """Warn of ART's option ``pbar_total_completion_tokens``, deprecated there, where it is set."""
    if asked_for:
        warnings.warn(
            "pbar_total_completion_tokens has no effect, as in ART; the bar shows the mean of "
            "completion_tokens where completions carry logprobs",
            DeprecationWarning,
            stacklevel=3,
        )


@contextmanager
def _shown(tally: Tally, description: str | None, max_metrics: int | None) -> Iterator[None]:
    """Show a tally as a progress bar while the block runs, however it ends."""
    with terminal_progress(description, tally.total) as progress:

        def show(tally: Tally, newly_counted: int) -> None:
            values: dict[str, float | str] = dict(list(tally.means().items())[:max_metrics])
            if tally.exceptions:
                values["exceptions"] = tally.exceptions
            progress.expect(tally.total)
            progress.advance(newly_counted, values)

        tally.on_change = show
        try:
            yield
        finally:
            tally.on_change = None


async def complete_group(source: Rollout[TrajectoryGroup], tally: Tally) -> TrajectoryGroup | None:
    """Run one group.

    Args:
        source: A group made from rollouts, a coroutine that returns a group, or a callable that
            gives one of these. ``tally`` expects its rollouts, or the coroutine as one.
        tally: Counts rewards and failures, and says how many failures are allowed.

    Returns:
        The group; ``None`` where the coroutine failed and was allowed to.

    Raises:
        TypeError: A coroutine returned something else.
        art.errors.ConfigurationError: A rollout raised one.
        Exception: What a rollout raised, when it is one more than are allowed.
    """
    if isinstance(source, PendingTrajectoryGroup):
        return await source.run(tally)
    try:
        with tallying(tally):
            group = await run(source, tally.retries)
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a rollout raises; the tally keeps count
        tally.record_exception(error)
        return None
    if not isinstance(group, TrajectoryGroup):
        raise TypeError(
            f"a group's coroutine returned {type(group).__name__}, not a TrajectoryGroup; "
            "use gather_trajectories for single trajectories"
        )
    for trajectory in group:
        finish_trajectory(trajectory)
    # The coroutine was expected as one rollout; those that it ran in a group of its own, inside
    # this gather, have been expected and recorded there.
    tally.expect(tally.record(group) - 1)
    return group


@overload
async def gather_trajectories(
    trajectories: Iterable[Rollout[Trajectory]],
    *,
    pbar_desc: str | None = ...,
    pbar_total_completion_tokens: bool = ...,
    max_exceptions: Literal[0] = ...,
    max_metrics: int | None = ...,
    retries: int = ...,
) -> list[Trajectory]: ...


@overload
async def gather_trajectories(
    trajectories: Iterable[Rollout[Trajectory]],
    *,
    pbar_desc: str | None = ...,
    pbar_total_completion_tokens: bool = ...,
    max_exceptions: float,
    max_metrics: int | None = ...,
    retries: int = ...,
) -> list[Trajectory | BaseException]: ...


@overload
async def gather_trajectories(
    trajectories: Iterable[Rollout[Iterable[Trajectory]]],
    *,
    pbar_desc: str | None = ...,
    pbar_total_completion_tokens: bool = ...,
    max_exceptions: Literal[0] = ...,
    max_metrics: int | None = ...,
    retries: int = ...,
) -> list[list[Trajectory]]: ...


@overload
async def gather_trajectories(
    trajectories: Iterable[Rollout[Iterable[Trajectory]]],
    *,
    pbar_desc: str | None = ...,
    pbar_total_completion_tokens: bool = ...,
    max_exceptions: float,
    max_metrics: int | None = ...,
    retries: int = ...,
) -> list[list[Trajectory] | BaseException]: ...


async def gather_trajectories(
    trajectories: Iterable[Rollout[Trajectory]] | Iterable[Rollout[Iterable[Trajectory]]],
    *,
    pbar_desc: str | None = "gather",
    pbar_total_completion_tokens: bool = False,
    max_exceptions: float = 0,
    max_metrics: int | None = None,
    retries: int = 0,
) -> (
    list[Trajectory]
    | list[Trajectory | BaseException]
    | list[list[Trajectory]]
    | list[list[Trajectory] | BaseException]
):
    """Run many rollouts at once, without grouping them.

    Args:
        trajectories: Coroutines that return a trajectory, or several; or callables that give one.
        pbar_desc: The progress bar's label.
        pbar_total_completion_tokens: Without effect, as in ART; ``True`` warns.
        max_exceptions: How many rollouts may fail; between 0 and 1, which part of them.
        max_metrics: How many running means the bar shows; ``None`` is all.
        retries: How often a rollout that fails is run again before it counts as failed. The
            rollouts must then be callables: ``functools.partial(rollout, model, scenario)``.

    Returns:
        For each rollout, in the order given, its trajectory (or a list of its trajectories), or
        the exception that it raised.

    Raises:
        art.errors.ConfigurationError: An option is out of range, ``retries`` were asked for a
            coroutine, or a rollout raised one.
        Exception: What a rollout raised, when it is one more than ``max_exceptions``. All others
            are cancelled first.
    """
    warn_of_completion_tokens_bar(pbar_total_completion_tokens)
    pending: PendingRollouts[Trajectory | Iterable[Trajectory]] = PendingRollouts(
        cast("Iterable[Rollout[Trajectory | Iterable[Trajectory]]]", trajectories)
    )

    def finish(result: Trajectory | Iterable[Trajectory]) -> Trajectory | list[Trajectory]:
        finished = [result] if isinstance(result, Trajectory) else list(result)
        for trajectory in finished:
            finish_trajectory(trajectory)
        tally.expect(tally.record(finished) - 1)
        return result if isinstance(result, Trajectory) else finished

    try:
        tally = Tally(
            total=len(pending),
            max_exceptions=max_exceptions,
            retries=retries,
        )
        with _shown(tally, pbar_desc, max_metrics):
            results = await pending.results(tally, finish)
    finally:
        pending.close()
    return cast("list[Trajectory | BaseException]", results)
