"""Examples for supervised fine-tuning: chunks of a dataset, and JSON lines as OpenAI takes them."""

import json
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from art.errors import ConfigurationError, TrainingDataError
from art.runs.progress import terminal_progress
from art.sft.schedule import ScheduleType, create_lr_schedule
from art.trajectories import Trajectory
from art.types import TrainSFTConfig


@dataclass(frozen=True, slots=True)
class SFTChunk:
    """The trajectories of one call of ``model.train_sft``. It can be unpacked like a tuple.

    Attributes:
        trajectories: Its trajectories.
        config: Its batch size, and a learning rate for each of its batches.
        step: Batches before it, over all epochs.
        epoch: Epochs before this one.
        epoch_step: Batches before it in its epoch.
    """

    trajectories: list[Trajectory]
    config: TrainSFTConfig
    step: int
    epoch: int
    epoch_step: int

    def __iter__(self) -> Iterator[Any]:
        return iter(getattr(self, field.name) for field in fields(self))


def create_sft_dataset_iterator(
    trajectories: Sequence[Trajectory],
    chunk_size: int = 10,
    epochs: int = 1,
    batch_size: int = 2,
    peak_lr: float = 2e-4,
    schedule_type: ScheduleType = "linear",
    warmup_ratio: float = 0.1,
    shuffle: bool = True,
    seed: int = 42,
    initial_step: int = 0,
    show_progress: bool = True,
) -> Iterator[SFTChunk]:
    """Go through examples in chunks, each for one call of ``model.train_sft``.

    Each call saves a checkpoint and logs a row; the learning rates are those of the run as a
    whole. ::

        for chunk in create_sft_dataset_iterator(examples, epochs=3, batch_size=8):
            await model.train_sft(chunk.trajectories, chunk.config)

    Args:
        trajectories: The examples.
        chunk_size: Batches of a chunk; the last of an epoch may have fewer.
        epochs: How often to go through all examples.
        batch_size: Trajectories of a batch, which is one optimizer step.
        peak_lr: The highest learning rate.
        schedule_type: As ``method`` of :func:`art.sft.create_lr_schedule`.
        warmup_ratio: The part of all batches during which the learning rate rises.
        shuffle: Change the order in each epoch, by ``seed`` plus the epoch.
        seed: Makes the order.
        initial_step: Begin with the chunk that holds this batch, counted over all epochs.
        show_progress: Show a progress bar, in batches.

    Yields:
        The chunks.

    Raises:
        art.errors.ConfigurationError: A number is out of its range.
    """
    if min(chunk_size, batch_size) < 1 or min(epochs, initial_step) < 0:
        raise ConfigurationError(
            "chunk_size and batch_size must be at least 1, epochs and initial_step not negative; "
            f"they are {chunk_size}, {batch_size}, {epochs} and {initial_step}"
        )
    per_epoch = -(-len(trajectories) // batch_size)
    total = per_epoch * epochs
    rates = create_lr_schedule(total, peak_lr, schedule_type, int(total * warmup_ratio))
    with ExitStack() as stack:
        progress = stack.enter_context(terminal_progress("SFT", total)) if show_progress else None
        for epoch in range(epochs):
            order = list(trajectories)
            if shuffle:
                random.Random(seed + epoch).shuffle(order)
            for start in range(0, per_epoch, chunk_size):
                size = min(chunk_size, per_epoch - start)
                step = epoch * per_epoch + start
                if step + size > initial_step:
                    yield SFTChunk(
                        order[start * batch_size : (start + size) * batch_size],
                        TrainSFTConfig(
                            learning_rate=rates[step : step + size], batch_size=batch_size
                        ),
                        step,
                        epoch,
                        start,
                    )
                if progress is not None:
                    progress.advance(size)


def get_file_row_count(file_path: str | os.PathLike[str]) -> int:
    """Count the examples of a file of JSON lines; empty lines are none.

    Raises:
        art.errors.ConfigurationError: The file's name does not end in ``.jsonl``.
        OSError: The file cannot be read.
    """
    with _jsonl(file_path).open(encoding="utf-8") as file:
        return sum(1 for line in file if line.strip())


def iterate_file(
    file_path: str | os.PathLike[str],
    epochs: int = 1,
    shuffle_buffer_size: int = 10000,
    seed: int = 42,
    initial_skip: int = 0,
) -> Iterator[Trajectory]:
    """Read examples from a file of JSON lines, shuffled within a buffer.

    A line is an object with ``messages`` and, where the assistant had any, ``tools``, both as the
    OpenAI API takes them.

    Args:
        file_path: The file.
        epochs: How often to go through it.
        shuffle_buffer_size: How many examples are held at once, of which a random one is next.
        seed: Makes the order, plus the epoch.
        initial_skip: How many examples to leave out at the beginning, where a run is resumed.

    Yields:
        The examples, as trajectories.

    Raises:
        art.errors.ConfigurationError: The file's name does not end in ``.jsonl``.
        art.errors.TrainingDataError: A line is no example; names it.
        OSError: The file cannot be read.
    """
    path = _jsonl(file_path)
    skipped = 0
    for epoch in range(epochs):
        generator = random.Random(seed + epoch)
        buffer: list[Trajectory] = []
        for trajectory in _shuffled(_examples(path), buffer, shuffle_buffer_size, generator):
            if skipped < initial_skip:
                skipped += 1
            else:
                yield trajectory


def _shuffled(
    examples: Iterator[Trajectory], buffer: list[Trajectory], size: int, generator: random.Random
) -> Iterator[Trajectory]:
    for example in examples:
        buffer.append(example)
        if len(buffer) >= size:
            place = generator.randrange(len(buffer))
            buffer[place], buffer[-1] = buffer[-1], buffer[place]
            yield buffer.pop()
    generator.shuffle(buffer)
    yield from buffer


def _examples(path: Path) -> Iterator[Trajectory]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _example(line, f"line {number} of {path}")


def _example(line: str, where: str) -> Trajectory:
    try:
        row: Any = json.loads(line)
        if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
            raise TrainingDataError(f"{where} must be an object with a list of messages")
        return Trajectory(messages_and_choices=row["messages"], tools=row.get("tools"))
    except (ValidationError, json.JSONDecodeError, RecursionError) as error:
        raise TrainingDataError(f"{where} is no example: {error}") from error


def _jsonl(file_path: str | os.PathLike[str]) -> Path:
    path = Path(file_path)
    if path.suffix != ".jsonl":
        raise ConfigurationError(f"{path} must be a file of JSON lines whose name ends in .jsonl")
    return path
