"""Trajectories that an agent yields: a rollout inside code whose result is something else.

::

    async def agent(question: str) -> str:
        ...
        art.yield_trajectory(trajectory)
        return answer

    trajectory = await art.capture_yielded_trajectory(agent("Is the sky blue?"))
"""

import logging
from collections.abc import Awaitable
from contextvars import ContextVar

from art.errors import NoTrajectoryError
from art.trajectories import Trajectory

logger = logging.getLogger(__name__)

# A list, which the tasks that a coroutine starts share with it: of a variable they get a copy.
_yielded: ContextVar[list[Trajectory] | None] = ContextVar("art_yielded_trajectories", default=None)


def yield_trajectory(trajectory: Trajectory) -> None:
    """Hand a trajectory to the :func:`capture_yielded_trajectory` that runs this code.

    Outside of any, as where the agent serves its users, nothing happens; the logger has a line
    at level debug.

    Args:
        trajectory: The trajectory.
    """
    captured = _yielded.get()
    if captured is None:
        logger.debug("No capture_yielded_trajectory is running: a trajectory was let go")
    else:
        captured.append(trajectory)


async def capture_yielded_trajectory(coroutine: Awaitable[object]) -> Trajectory:
    """Run an agent and return the trajectory that it yields.

    Captures that run at once, or inside each other, are kept apart. Tasks that the agent starts
    belong to it.

    Args:
        coroutine: The agent; what it returns is dropped.

    Returns:
        The last trajectory that it handed to :func:`yield_trajectory`.

    Raises:
        art.errors.NoTrajectoryError: It yielded none.
        Exception: What the agent raised.
    """
    captured: list[Trajectory] = []
    token = _yielded.set(captured)
    try:
        await coroutine
    finally:
        _yielded.reset(token)
    if not captured:
        raise NoTrajectoryError(
            "The coroutine ended without art.yield_trajectory(trajectory): call it in the agent, "
            "in this process, before the agent returns"
        )
    return captured[-1]
