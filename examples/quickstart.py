"""Train a real language model with RL on this machine: to answer yes/no questions in one word.

    python examples/quickstart.py                     # the embedded engine: no GPU, no key
    python examples/quickstart.py --backend tinker    # the hosted service: needs TINKER_API_KEY

Asked for one word, SmolLM2-135M-Instruct rambles three times out of four. The reward is 1 for an
answer that is one word, yes or no, and 0 for any other. Nobody shows it such an answer: it finds
out by trying. The reward asks for the form alone, so do not look for truth in the answers.
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
    """One step: the mean reward that it began with, and where the time went, in seconds."""

    number: int
    reward: float
    sampling: float
    training: float


def prompt(question: str) -> art.Messages:
    """The conversation that the model is to answer."""
    return [{"role": "user", "content": f"{question} Answer with one word: yes or no."}]


async def rollout(model: art.TrainableModel[None], question: str) -> art.Trajectory:
    """Ask one question; the reward is 1 for an answer of exactly one word, yes or no."""
    messages = prompt(question)
    completion = await model.openai_client().chat.completions.create(
        model=model.get_inference_name(), messages=messages, max_tokens=6
    )
    choice = completion.choices[0]
    answer = (choice.message.content or "").strip().lower()
    one_word = choice.finish_reason == "stop" and re.fullmatch(r"(yes|no)[.!]?", answer)
    return art.Trajectory(messages_and_choices=[*messages, choice], reward=1.0 if one_word else 0.0)


async def sample(
    model: art.TrainableModel[None], samples: int, number: int
) -> list[art.TrajectoryGroup]:
    """Answer every question several times; each question is a group."""
    return await art.gather_trajectory_groups(
        (
            art.TrajectoryGroup(rollout(model, question) for _ in range(samples))
            for question in QUESTIONS
        ),
        pbar_desc=f"step {number} rollouts",
    )


async def train(
    model: art.TrainableModel[None], backend: art.TinkerBackend, options: argparse.Namespace
) -> list[Step]:
    """Take steps until the model reaches the goal."""
    steps: list[Step] = []
    for number in range(1, options.steps + 1):
        started = time.monotonic()
        groups = await sample(model, options.samples, number)
        sampled = time.monotonic()
        rewards = [trajectory.reward for group in groups for trajectory in group]
        reward = sum(rewards) / len(rewards)
        metrics: dict[str, float] = {}
        if reward < options.goal:
            result = await backend.train(model, groups, learning_rate=options.learning_rate)
            metrics = result.metrics
        await model.log(groups, split="train", metrics=metrics, step=number)
        steps.append(Step(number, reward, sampled - started, time.monotonic() - sampled))
        if reward >= options.goal:
            break
    return steps


async def answers(model: art.TrainableModel[None]) -> list[str]:
    """The model's most likely answers to questions that it is not trained on."""
    client = model.openai_client()
    completions = [
        await client.chat.completions.create(
            model=model.get_inference_name(),
            messages=prompt(question),
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
    backend_class = art.LocalBackend if options.backend == "local" else art.TinkerBackend
    async with backend_class(path=options.path) as backend:
        await model.register(backend)
        before = await answers(model)
        steps = await train(model, backend, options)
        after = await answers(model)
    show(steps, before, after)
    picture = Path("reward.png")
    plot(steps, base_model, picture)
    checkpoints = Path(options.path) / model.project / "models" / model.name / "checkpoints"
    print(f"\nreward per step: {picture.resolve()}")
    print(f"checkpoint:      {max(checkpoints.iterdir()).resolve()}")
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
    parser.add_argument("--goal", type=float, default=0.95, help="stop at this mean reward")
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
