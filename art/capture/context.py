"""Capture by context: what a coroutine asks, and what it starts asks, is its trajectory."""

import logging
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, overload

from art.capture.captures import CAPTURES
from art.capture.http_clients import mark_requests
from art.errors import CaptureError
from art.trajectories import Trajectory

logger = logging.getLogger(__name__)

_current: ContextVar[tuple[str, Trajectory] | None] = ContextVar("art_capture", default=None)


@overload
def auto_trajectory(*, required: Literal[True]) -> Trajectory: ...


@overload
def auto_trajectory(*, required: Literal[False] = False) -> Trajectory | None: ...


def auto_trajectory(*, required: bool = False) -> Trajectory | None:
    """Return the trajectory that is being captured, to set its reward or its metrics.

    It has all turns whose responses the agent has received.

    Args:
        required: Whether it is an error to be outside of any capture.

    Returns:
        The trajectory of :func:`capture_auto_trajectory`; ``None`` outside of any.

    Raises:
        art.errors.CaptureError: There is none, and it is ``required``.
    """
    current = _current.get()
    if current is not None:
        return current[1]
    if required:
        raise CaptureError(
            "No trajectory is being captured here. Run this code inside "
            "art.capture_auto_trajectory(...), in its task or in one that it starts; a thread "
            "needs contextvars.copy_context(), as asyncio.to_thread does by itself"
        )
    return None


async def capture_auto_trajectory(coroutine: Awaitable[Any]) -> Trajectory:
    """Run an agent, and capture what it asks trainable models as a trajectory.

    ::

        async def rollout(scenario):
            answer = await my_agent(scenario)
            art.auto_trajectory(required=True).reward = score(answer)

        group = await art.TrajectoryGroup(
            art.capture_auto_trajectory(rollout(scenario)) for _ in range(8)
        )

    Captured is every request for a turn that ``coroutine``, and the tasks and threads that it
    starts with its context, send to the endpoint of a model registered in this process, by a
    client that is built on httpx: openai's, and the frameworks above it. The turns have their
    exact tokens, also where the response was streamed. Rollouts that run at once are kept apart.
    A request that continues no conversation captured before, such as a sub-agent's, begins one of
    ``additional_histories``.

    An agent in another process has no part in this context: give it the URL of
    :meth:`art.model.TrainableModel.rollout_endpoint`.

    Args:
        coroutine: The agent. What it returns is not used.

    Returns:
        The trajectory, with its metric ``duration``.

    Raises:
        BaseException: What ``coroutine`` raised.
    """
    with capturing() as trajectory:
        await coroutine
    return trajectory


@contextmanager
def capturing() -> Iterator[Trajectory]:
    """Capture the requests of the block.

    Yields:
        The trajectory; it gets its metric ``duration`` when the block ends.
    """
    mark_requests(_current_token)
    trajectory = Trajectory()
    token = CAPTURES.open(trajectory)
    outer = _current.set((token, trajectory))
    try:
        yield trajectory
    finally:
        _current.reset(outer)
        CAPTURES.close(token)
        trajectory.finish()


def _current_token() -> str | None:
    current = _current.get()
    if current is None:
        return None
    if CAPTURES.find(current[0]) is None:
        # A task that a rollout left behind goes on, and so do its requests.
        logger.warning("a request was sent after the capture in its context ended: not captured")
        return None
    return current[0]
