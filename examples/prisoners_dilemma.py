"""Train a small model against itself in the prisoner's dilemma, after the idea of ART's example.

    python examples/prisoners_dilemma.py            # SmolLM2-135M-Instruct, no GPU
    python examples/prisoners_dilemma.py --short    # one small step, to see it run

Every import of this program is one that OpenPipe's ART has too. Both players are the model that is
trained. In each round they choose at once; who stays silent while the other confesses gets
nothing, and the other the most. A player's reward is its mean score, so that a group of many games
between equals shows what pays: watch the metric `silent`.
"""

import argparse
import asyncio
import re

import art
from art.local import LocalBackend

# The score of the first player for both answers.
SCORES = {
    ("silent", "silent"): 3,
    ("silent", "confess"): 0,
    ("confess", "silent"): 5,
    ("confess", "confess"): 1,
}
NO_ANSWER = -1.0
SYSTEM = (
    "You and another prisoner are questioned apart. Both silent: 3 points each. Both confess: 1 "
    "each. One confesses, one is silent: 5 for the one who confesses, 0 for the other. Answer with "
    "one word: silent or confess."
)


class Player:
    """One side of a game, with its own view of it."""

    def __init__(self, model: art.TrainableModel) -> None:
        self.model = model
        self.trajectory = art.Trajectory(
            messages_and_choices=[{"role": "system", "content": SYSTEM}]
        )
        self.score = 0.0
        self.silent = 0
        self.rambling = 0

    async def answer(self, question: str) -> str | None:
        """Ask for the next choice; ``None`` is an answer that is none."""
        items = self.trajectory.messages_and_choices
        items.append({"role": "user", "content": question})
        completion = await self.model.openai_client().chat.completions.create(
            model=self.model.get_inference_name(),
            messages=self.trajectory.messages(),
            max_tokens=6,
        )
        choice = completion.choices[0]
        items.append(choice)
        text = (choice.message.content or "").lower()
        self.rambling += len(text)
        word = re.search("silent|confess", text)
        return word[0] if word else None

    def finish(self, rounds: int) -> art.Trajectory:
        """Score the player's side of the game."""
        # Text beside the answer counts a very little against it.
        self.trajectory.reward = self.score / rounds - self.rambling / 1000
        self.trajectory.metrics |= {"score": self.score, "silent": self.silent / rounds}
        return self.trajectory


async def play(model: art.TrainableModel, rounds: int) -> list[art.Trajectory]:
    """Play one game; each side of it is a trajectory."""
    players = Player(model), Player(model)
    questions = ["Round 1."] * 2
    for number in range(2, rounds + 2):
        answers = await asyncio.gather(
            *(player.answer(text) for player, text in zip(players, questions, strict=True))
        )
        for player, mine, other in zip(players, answers, reversed(answers), strict=True):
            if mine is None:
                player.score += NO_ANSWER
            else:
                player.score += SCORES[mine, other or "silent"]
                player.silent += mine == "silent"
        if None in answers:
            break
        questions = [f"The other said: {other}. Round {number}." for other in reversed(answers)]
    return [player.finish(rounds) for player in players]


async def main(options: argparse.Namespace) -> None:
    """Train for some steps."""
    model = art.TrainableModel(
        name="prisoner", project="games", base_model=options.base_model, base_path=options.path
    )
    backend = LocalBackend(path=options.path)
    try:
        await model.register(backend)
        for step in range(await model.get_step(), options.steps):
            games = await art.gather_trajectories(
                (play(model, options.rounds) for _ in range(options.games)),
                pbar_desc=f"step {step} games",
            )
            # All sides of all games answer the same question: one group.
            group = art.TrajectoryGroup(side for game in games for side in game)
            result = await backend.train(model, [group], learning_rate=options.learning_rate)
            await model.log([group], split="train", metrics=result.metrics, step=result.step)
            silent = [float(trajectory.metrics["silent"]) for trajectory in group]
            print(f"step {step}: silent in {sum(silent) / len(silent):.0%} of the rounds")
    finally:
        await backend.close()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Train a small model against itself in the prisoner's dilemma.",
        epilog="example: python examples/prisoners_dilemma.py --rounds 5 --games 24",
    )
    parser.add_argument("--base-model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--path", default=".art", help="where state is kept (default: .art)")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--games", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--short", action="store_true", help="one small step")
    options = parser.parse_args(arguments)
    if options.short:
        options.steps, options.games, options.rounds = 1, 3, 2
    return options


if __name__ == "__main__":
    asyncio.run(main(parse()))
