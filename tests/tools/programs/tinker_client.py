"""A user's script: a typed config, the hosted service, groups, and a step with other losses."""

import asyncio

import art
from art.dev import InternalModelConfig, PeftArgs
from art.errors import MissingAPIKeyError
from art.rl import group_advantages


async def rollout(model: art.TrainableModel, question: str) -> art.Trajectory:
    trajectory = art.Trajectory(messages_and_choices=[{"role": "user", "content": question}])
    completion = await model.openai_client().chat.completions.create(
        model=model.get_inference_name(), messages=trajectory.messages()
    )
    trajectory.messages_and_choices.append(completion.choices[0])
    trajectory.reward = float(len(completion.choices[0].message.content or ""))
    trajectory.metrics["turns"] = 1
    return trajectory


async def step(model: art.TrainableModel, backend: art.Backend) -> dict[str, float]:
    group = await art.TrajectoryGroup(rollout(model, "Why?") for _ in range(4))
    rewards = [trajectory.reward for trajectory in group.trajectories]
    print(max(group_advantages(rewards)))
    result: art.TrainResult = await backend.train(
        model, [group], loss_fn="ppo", loss_fn_config={"clip_low_threshold": 0.8}
    )
    return result.metrics


async def main() -> None:
    config = InternalModelConfig(peft_args=PeftArgs(r=8), rollout_weights_mode="lora")
    model = art.TrainableModel(
        name="short", project="demo", base_model="Qwen/Qwen3-4B", _internal_config=config
    )
    try:
        backend = art.TinkerBackend()
    except MissingAPIKeyError as error:
        print(error)
        return
    async with backend:
        await model.register(backend)
        print(await step(model, backend))


asyncio.run(main())
