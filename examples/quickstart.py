"""Train a real language model with RL on this machine: to answer yes/no questions in one word.

    python examples/quickstart.py                     # the embedded engine: no GPU, no key
    python examples/quickstart.py --backend tinker    # the hosted service: needs TINKER_API_KEY

SmolLM2-135M-Instruct likes to explain itself. Its reward is 1 for an answer of exactly one word
and 0 for any other. Nobody shows it such an answer: it finds out by trying.
"""

import argparse
import asyncio
import re
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import art

BASE_MODELS = {
    "local": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "tinker": "meta-llama/Llama-3.2-1B",
}
QUESTIONS = [
    "Is the sky blue?",
    "Do fish live in water?",
    "Is fire cold?",
    "Can a dog fly?",
    "Is Paris in France?",
    "Is ice hot?",
    "Does the sun rise in the east?",
    "Is a tomato a planet?",
]
UNSEEN_QUESTIONS = ["Is snow white?", "Can a stone swim?", "Is Tokyo in Japan?"]


@dataclass(frozen=True)
class Step:
    """What one step of training did: rewards before it, and where the time went, in seconds."""

    number: int
    reward: float
    sampling: float
    training: float


async def rollout(model: art.TrainableModel[None], question: str) -> art.Trajectory:
    """Ask one question; the reward is 1 for an answer of exactly one word."""
    messages: art.Messages = [{"role": "user", "content": question}]
    completion = await model.openai_client().chat.completions.create(
        model=model.get_inference_name(), messages=messages, max_tokens=6
    )
    choice = completion.choices[0]
    answer = (choice.message.content or "").strip()
    one_word = choice.finish_reason == "stop" and re.fullmatch(r"\w+[.!]?", answer) is not None
    return art.Trajectory(messages_and_choices=[*messages, choice], reward=float(one_word))


async def train_step(
    model: art.TrainableModel[None],
    backend: art.TinkerBackend,
    options: argparse.Namespace,
    number: int,
) -> Step:
    """Sample a group of answers to every question, then train on them."""
    started = time.monotonic()
    groups = await art.gather_trajectory_groups(
        (
            art.TrajectoryGroup(rollout(model, question) for _ in range(options.samples))
            for question in QUESTIONS
        ),
        pbar_desc=f"step {number} rollouts",
    )
    sampled = time.monotonic()
    result = await backend.train(model, groups, learning_rate=options.learning_rate)
    await model.log(groups, split="train", metrics=result.metrics, step=number)
    rewards = [trajectory.reward for group in groups for trajectory in group]
    return Step(
        number,
        reward=sum(rewards) / len(rewards),
        sampling=sampled - started,
        training=time.monotonic() - sampled,
    )


async def answers(model: art.TrainableModel[None]) -> list[str]:
    """The model's most likely answers to questions that it is not trained on."""
    client = model.openai_client()
    completions = [
        await client.chat.completions.create(
            model=model.get_inference_name(),
            messages=[{"role": "user", "content": question}],
            max_tokens=24,
            temperature=0,
        )
        for question in UNSEEN_QUESTIONS
    ]
    return [(completion.choices[0].message.content or "").strip() for completion in completions]


def show(steps: list[Step], before: list[str], after: list[str]) -> None:
    """Print the reward of every step, and answers before and after."""
    print("\n step   mean reward   sampling   training")
    for step in steps:
        bar = "#" * round(step.reward * 20)
        print(
            f"{step.number:5d}   {step.reward:11.2f}   {step.sampling:6.1f} s   "
            f"{step.training:6.1f} s   {bar}"
        )
    print("\nQuestions that it was not trained on:")
    for question, old, new in zip(UNSEEN_QUESTIONS, before, after, strict=True):
        print(f"  {question}\n    before: {old}\n    after:  {new}")


def plot(steps: list[Step], base_model: str, path: Path) -> None:
    """Draw the mean reward of every step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot([s.number for s in steps], [s.reward for s in steps], marker="o", color="tab:blue")
    axes.set(
        title=f"{base_model.split('/')[-1]}: answer in one word",
        xlabel="step",
        ylabel="mean reward",
        ylim=(0, 1.05),
        xticks=[s.number for s in steps],
    )
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


async def main(options: argparse.Namespace) -> list[Step]:
    """Train until the reward is above the goal, and show what was learnt."""
    base_model = options.base_model or BASE_MODELS[options.backend]
    model = art.TrainableModel(
        name=options.name, project="quickstart", base_model=base_model, base_path=options.path
    )
    steps: list[Step] = []
    backends = {"local": art.LocalBackend, "tinker": art.TinkerBackend}
    async with backends[options.backend](path=options.path) as backend:
        await model.register(backend)
        before = await answers(model)
        while len(steps) < options.steps and (not steps or steps[-1].reward < options.goal):
            steps.append(await train_step(model, backend, options, len(steps) + 1))
        after = await answers(model)
    show(steps, before, after)
    picture = Path("reward.png")
    plot(steps, base_model, picture)
    checkpoint = sorted((Path(model.get_output_dir()) / "checkpoints").iterdir())[-1]
    print(f"\nreward per step: {picture.resolve()}\ncheckpoint:      {checkpoint.resolve()}")
    return steps


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Train a model with RL to answer yes/no questions in one word.",
        epilog="example: python examples/quickstart.py --backend local --steps 6",
    )
    parser.add_argument("--backend", choices=["local", "tinker"], default="local")
    parser.add_argument("--base-model", help=f"default: {BASE_MODELS}")
    parser.add_argument("--steps", type=int, default=6, help="most steps to take (default: 6)")
    parser.add_argument("--samples", type=int, default=8, help="answers per question (default: 8)")
    parser.add_argument("--goal", type=float, default=0.95, help="reward to stop at")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--path", default=".art", help="where checkpoints and logs go")
    parser.add_argument(
        "--name",
        default=f"one-word-{datetime.now():%Y%m%d-%H%M%S}",
        help="the model's name; with the name of an earlier run, training goes on from there",
    )
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(parse_arguments()))
