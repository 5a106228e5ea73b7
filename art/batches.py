"""Batches of trajectory groups: rollouts that go on while the last batch is being trained."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable

from art.errors import ConfigurationError
from art.gather import complete_group, warn_of_completion_tokens_bar
from art.rollouts import Rollout, Tally, discard
from art.runs.progress import terminal_progress
from art.trajectories import PendingTrajectoryGroup, TrajectoryGroup


async def trajectory_group_batches(
    groups: Iterable[Rollout[TrajectoryGroup]],
    *,
    batch_size: int,
    max_batch_exceptions: float = 0,
    max_concurrent_batches: int = 4,
    skip_batches: int = 0,
    pbar_desc: str | None = "batches",
    pbar_total_completion_tokens: bool = False,
) -> AsyncGenerator[list[TrajectoryGroup], None]:
    """Run the rollouts of many groups, and yield the groups in batches as they complete.

    ::

        async for batch in art.trajectory_group_batches(groups, batch_size=8):
            await backend.train(model, batch)

    Groups of later batches run while the caller trains on this one, so that their completions
    may come from an older step.

    Args:
        groups: Groups made from rollouts, coroutines that return a group, or callables that give
            one of these.
        batch_size: Groups of a batch; the last batch may be smaller.
        max_batch_exceptions: How many rollouts may fail for each batch; between 0 and 1, which
            part of those that ran for it.
        max_concurrent_batches: Of how many batches the rollouts run at once.
        skip_batches: How many batches to leave out at the beginning, where a run is resumed.
        pbar_desc: The label of the progress bar, one for each batch.
        pbar_total_completion_tokens: Without effect, as in ART; ``True`` warns.

    Yields:
        Complete groups, in the order in which they completed. A coroutine of a group that failed,
        and was allowed to, leaves no group.

    Raises:
        art.errors.ConfigurationError: An option is out of range, or a rollout raised one.
        Exception: What a rollout raised, when it is one more than ``max_batch_exceptions``. All
            others are cancelled first, as they are when the caller stops early.
    """
    warn_of_completion_tokens_bar(pbar_total_completion_tokens)
    sources = list(groups)
    waiting: deque[Rollout[TrajectoryGroup]] = deque()
    running: set[asyncio.Task[TrajectoryGroup | None]] = set()
    completed: list[TrajectoryGroup] = []
    try:
        if min(batch_size, max_concurrent_batches) < 1 or skip_batches < 0:
            raise ConfigurationError(
                "batch_size and max_concurrent_batches must be at least 1 and skip_batches not "
                f"negative; they are {batch_size}, {max_concurrent_batches} and {skip_batches}"
            )
        tally = Tally(max_exceptions=max_batch_exceptions)
        waiting.extend(sources[batch_size * skip_batches :])
        while waiting or running or completed:
            with terminal_progress(pbar_desc, batch_size) as progress:
                progress.advance(min(len(completed), batch_size))
                while len(completed) < batch_size and (waiting or running):
                    while waiting and len(running) < batch_size * max_concurrent_batches:
                        running.add(asyncio.create_task(_run(waiting.popleft(), tally)))
                    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    new = [group for task in done if (group := task.result()) is not None]
                    running -= done
                    completed += new
                    progress.advance(len(new), dict(tally.means()))
            batch, completed = completed[:batch_size], completed[batch_size:]
            tally.start_over()
            if batch:
                yield batch
    finally:
        await _cancel(running)
        discard(sources)


async def _run(source: Rollout[TrajectoryGroup], tally: Tally) -> TrajectoryGroup | None:
    tally.expect(len(source) if isinstance(source, PendingTrajectoryGroup) else 1)
    return await complete_group(source, tally)


async def _cancel(tasks: set[asyncio.Task[TrajectoryGroup | None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
