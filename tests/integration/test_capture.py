"""Captured rollouts train: by context and by URL, on a real engine."""

import asyncio
from typing import Any

import openai

import art
from tests.processes import run_python

AGENT = """
import openai, sys
completion = openai.OpenAI().chat.completions.create(
    model=sys.argv[1], messages=[{"role": "user", "content": "hello"}], max_tokens=4)
print(completion.choices[0].message.content)
"""


async def converse(model: art.TrainableModel[None]) -> None:
    """Two turns, by a client of the agent's own."""
    url, key = model.inference_base_url, model.inference_api_key
    async with openai.AsyncOpenAI(base_url=url, api_key=key) as client:
        messages: list[Any] = [{"role": "user", "content": "hello"}]
        for _ in range(2):
            completion = await client.chat.completions.create(
                model=model.get_inference_name(), messages=messages, max_tokens=4
            )
            message = completion.choices[0].message
            messages += [message, {"role": "user", "content": "and then?"}]


async def test_rollouts_captured_in_both_ways_train_together(
    backend: art.TinkerBackend, model: art.TrainableModel[None]
) -> None:
    async def here() -> art.Trajectory:
        trajectory = await art.capture_auto_trajectory(converse(model))
        trajectory.reward = 1.0
        return trajectory

    async def elsewhere() -> art.Trajectory:
        async with model.rollout_endpoint() as rollout:
            await asyncio.to_thread(run_python, AGENT, rollout.model_name, env=rollout.env)
            return await rollout.trajectory()

    groups = await art.gather_trajectory_groups(
        [art.TrajectoryGroup([here(), here(), elsewhere()])], pbar_desc=None
    )
    result = await backend.train(model, groups)
    assert result.step == 1
    assert result.metrics["data/step_num_trajectories_dropped"] == 0
    assert 0 < result.metrics["data/step_trainer_tokens"] <= 2 * 2 * 4 + 4
    # Of the step before its update: the trainer computes the logprobs that the sampler did.
    assert result.metrics["offpolicy/logprob_difference"] < 1e-3
