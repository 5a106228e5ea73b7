"""Teach a small model tic-tac-toe against a player who moves at random, after ART's example.

    python examples/tic_tac_toe.py             # SmolLM2-135M-Instruct, no GPU: minutes a step
    python examples/tic_tac_toe.py --short     # one small step, to see it run

Every import of this program is one that OpenPipe's ART has too. The model plays x and answers with
a square, such as b2. A win is worth 1, a draw 0.5, a loss 0; a square that is taken, or no square
at all, ends the game below that.
"""

import argparse
import asyncio
import random
import re

import art
from art.local import LocalBackend
from art.utils import iterate_dataset

SQUARES = [column + row for row in "123" for column in "abc"]
LINES = [
    *(SQUARES[start : start + 3] for start in (0, 3, 6)),
    *(SQUARES[start::3] for start in (0, 1, 2)),
    SQUARES[0::4],
    SQUARES[2:7:2],
]
SYSTEM = "You play tic-tac-toe as x. Answer with one free square, such as b2, and nothing else."
Board = dict[str, str]


def show(board: Board) -> str:
    """The board as the model sees it: rows 1 to 3, columns a to c."""
    rows = [" ".join(board.get(column + row, "_") for column in "abc") for row in "123"]
    return "\n".join(["  a b c", *(f"{number} {row}" for number, row in enumerate(rows, start=1))])


def winner(board: Board) -> str | None:
    """The player with three in a line."""
    for line in LINES:
        marks = {board.get(square) for square in line}
        if len(marks) == 1 and marks != {None}:
            return marks.pop()
    return None


def free(board: Board) -> list[str]:
    """The squares that nobody has."""
    return [square for square in SQUARES if square not in board]


@art.retry(exceptions=(ConnectionError,))
async def rollout(model: art.TrainableModel, seed: int) -> art.Trajectory:
    """Play one game; the opponent's moves depend on the seed and on the board."""
    dice = random.Random(seed)
    board: Board = {}
    if dice.random() < 0.5:
        board[dice.choice(SQUARES)] = "o"
    trajectory = art.Trajectory(
        messages_and_choices=[{"role": "system", "content": SYSTEM}], metadata={"seed": seed}
    )
    client = model.openai_client()
    moves, rambling = 0, 0
    while True:
        trajectory.messages_and_choices.append({"role": "user", "content": show(board)})
        completion = await client.chat.completions.create(
            model=model.get_inference_name(), messages=trajectory.messages(), max_tokens=6
        )
        choice = completion.choices[0]
        trajectory.messages_and_choices.append(choice)
        answer = (choice.message.content or "").lower()
        rambling += len(answer)
        square = re.search("[abc][123]", answer)
        if square is None or square[0] in board:
            # The further it got the better, but a game to its end is better still.
            score = -1 + moves / 10
            break
        board[square[0]] = "x"
        moves += 1
        if winner(board) or not free(board):
            score = 1.0 if winner(board) else 0.5
            break
        board[dice.choice(free(board))] = "o"
        if winner(board) or not free(board):
            score = 0.0 if winner(board) else 0.5
            break
    trajectory.reward = score - rambling / 1000
    trajectory.metrics |= {"moves": moves, "won": float(score == 1)}
    return trajectory


async def main(options: argparse.Namespace) -> None:
    """Train for some steps."""
    model = art.TrainableModel(
        name="tic-tac-toe", project="games", base_model=options.base_model, base_path=options.path
    )
    backend = LocalBackend(path=options.path)
    try:
        await model.register(backend)
        seeds = list(range(options.steps * options.groups))
        start = await model.get_step()
        for batch in iterate_dataset(seeds, options.groups, initial_step=start, use_tqdm=False):
            groups = await art.gather_trajectory_groups(
                (
                    art.TrajectoryGroup(rollout(model, seed) for _ in range(options.games))
                    for seed in batch.items
                ),
                pbar_desc=f"step {batch.step} games",
                max_exceptions=options.games,
            )
            result = await backend.train(model, groups, learning_rate=options.learning_rate)
            await model.log(groups, split="train", metrics=result.metrics, step=result.step)
            rewards = [trajectory.reward for group in groups for trajectory in group]
            print(f"step {batch.step}: mean reward {sum(rewards) / len(rewards):.3f}")
    finally:
        await backend.close()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Train a small model to play tic-tac-toe.",
        epilog="example: python examples/tic_tac_toe.py --steps 20 --games 16",
    )
    parser.add_argument("--base-model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--path", default=".art", help="where state is kept (default: .art)")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--groups", type=int, default=4, help="openings a step")
    parser.add_argument("--games", type=int, default=12, help="games an opening")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--short", action="store_true", help="one small step")
    options = parser.parse_args(arguments)
    if options.short:
        options.steps, options.groups, options.games = 1, 1, 4
    return options


if __name__ == "__main__":
    asyncio.run(main(parse()))
