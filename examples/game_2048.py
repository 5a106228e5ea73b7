"""Teach a small model to play 2048, on this machine, after the idea of ART's example.

    python examples/game_2048.py               # SmolLM2-135M-Instruct, no GPU: minutes a step
    python examples/game_2048.py --short       # one small step, to see it run

Every import of this program is one that OpenPipe's ART has too. The model sees the board and
answers with a direction. A game ends with a move that changes nothing, with an answer that is no
move, or after so many turns. Games that start on the same board are a group: those that get
further than the others are learnt from.
"""

import argparse
import asyncio
import math
import random
import re

import art
from art.local import LocalBackend
from art.utils import iterate_dataset

SIZE = 4
DIRECTIONS = ("left", "right", "up", "down")
SYSTEM = (
    "You play 2048. Equal tiles that are pushed into each other become one of twice the value. "
    "Answer with one word: left, right, up or down."
)
Board = list[list[int]]


def add_tile(board: Board, dice: random.Random) -> None:
    """Put a new 2, or now and then a 4, on an empty square."""
    empty = [
        (row, column) for row in range(SIZE) for column in range(SIZE) if not board[row][column]
    ]
    row, column = dice.choice(empty)
    board[row][column] = 4 if dice.random() < 0.1 else 2


def new_board(dice: random.Random) -> Board:
    """A board with two tiles."""
    board = [[0] * SIZE for _ in range(SIZE)]
    add_tile(board, dice)
    add_tile(board, dice)
    return board


def push_left(line: list[int]) -> list[int]:
    """Push one line to the left, and merge equal neighbours once."""
    tiles = [tile for tile in line if tile]
    merged: list[int] = []
    while tiles:
        tile = tiles.pop(0)
        if tiles and tiles[0] == tile:
            tile += tiles.pop(0)
        merged.append(tile)
    return merged + [0] * (SIZE - len(merged))


def push(board: Board, direction: str) -> Board:
    """The board after a move, before the new tile."""
    if direction in ("up", "down"):
        columns = [list(column) for column in zip(*board, strict=True)]
        pushed = push(columns, "left" if direction == "up" else "right")
        return [list(row) for row in zip(*pushed, strict=True)]
    if direction == "right":
        return [push_left(row[::-1])[::-1] for row in board]
    return [push_left(row) for row in board]


def show(board: Board) -> str:
    """The board as the model sees it."""
    return "\n".join("|".join(str(tile or "_") for tile in row) for row in board)


@art.retry(exceptions=(ConnectionError,))
async def rollout(model: art.TrainableModel, seed: int, turns: int) -> art.Trajectory:
    """Play one game; the reward grows with the highest tile and with the moves that were made."""
    dice = random.Random(seed)
    board = new_board(dice)
    client = model.openai_client()
    trajectory = art.Trajectory(
        messages_and_choices=[{"role": "system", "content": SYSTEM}], metadata={"seed": seed}
    )
    moves, rambling = 0, 0
    for _ in range(turns):
        trajectory.messages_and_choices.append({"role": "user", "content": show(board)})
        completion = await client.chat.completions.create(
            model=model.get_inference_name(), messages=trajectory.messages(), max_tokens=6
        )
        choice = completion.choices[0]
        trajectory.messages_and_choices.append(choice)
        answer = (choice.message.content or "").lower()
        rambling += len(answer)
        word = re.search("|".join(DIRECTIONS), answer)
        pushed = push(board, word[0]) if word else board
        if pushed == board:
            break
        board = pushed
        add_tile(board, dice)
        moves += 1
    highest = max(max(row) for row in board)
    # 2048 itself is 1. Moves count a little, and text beside the moves a very little against it.
    trajectory.reward = math.log2(highest) / 11 + moves / turns - rambling / 1000
    trajectory.metrics |= {"highest": highest, "moves": moves}
    return trajectory


async def main(options: argparse.Namespace) -> None:
    """Train for some steps."""
    model = art.TrainableModel(
        name="2048", project="games", base_model=options.base_model, base_path=options.path
    )
    backend = LocalBackend(path=options.path)
    try:
        await model.register(backend)
        seeds = list(range(options.steps * options.groups))
        start = await model.get_step()
        for batch in iterate_dataset(seeds, options.groups, initial_step=start, use_tqdm=False):
            groups = await art.gather_trajectory_groups(
                (
                    art.TrajectoryGroup(
                        rollout(model, seed, options.turns) for _ in range(options.games)
                    )
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
        description="Train a small model to play 2048.",
        epilog="example: python examples/game_2048.py --steps 20 --turns 12",
    )
    parser.add_argument("--base-model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--path", default=".art", help="where state is kept (default: .art)")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--groups", type=int, default=4, help="boards a step")
    parser.add_argument("--games", type=int, default=8, help="games a board")
    parser.add_argument("--turns", type=int, default=10, help="moves of a game at most")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--short", action="store_true", help="one small step")
    options = parser.parse_args(arguments)
    if options.short:
        options.steps, options.groups, options.games, options.turns = 1, 1, 4, 3
    return options


if __name__ == "__main__":
    asyncio.run(main(parse()))
