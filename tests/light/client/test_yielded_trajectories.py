"""Trajectories that an agent yields, captured where it was started."""

import asyncio

import pytest

import art
from art.errors import NoTrajectoryError


async def agent(reward: float) -> str:
    await asyncio.sleep(0)
    art.yield_trajectory(art.Trajectory(reward=reward))
    return "an answer"


async def test_the_last_trajectory_that_was_yielded_is_captured() -> None:
    async def twice() -> None:
        await agent(1.0)
        await agent(2.0)

    assert (await art.capture_yielded_trajectory(twice())).reward == 2.0


async def test_captures_at_once_and_inside_each_other_are_kept_apart() -> None:
    async def outer(reward: float) -> None:
        inner = await art.capture_yielded_trajectory(agent(-reward))
        art.yield_trajectory(art.Trajectory(reward=reward, metrics={"inner": inner.reward}))

    captured = await asyncio.gather(
        *(art.capture_yielded_trajectory(outer(float(n))) for n in range(20))
    )
    assert [(each.reward, each.metrics["inner"]) for each in captured] == [
        (float(n), -float(n)) for n in range(20)
    ]


async def test_a_task_that_the_agent_starts_belongs_to_it() -> None:
    async def parent() -> None:
        await asyncio.create_task(agent(3.0))

    assert (await art.capture_yielded_trajectory(parent())).reward == 3.0


async def test_an_agent_without_a_trajectory_is_an_error() -> None:
    with pytest.raises(NoTrajectoryError, match=r"art\.yield_trajectory"):
        await art.capture_yielded_trajectory(asyncio.sleep(0))


async def test_an_agent_runs_without_a_capture() -> None:
    assert await agent(1.0) == "an answer"
