"""Supervised fine-tuning on a file of examples, as one call."""

import os
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Protocol

from art.errors import ConfigurationError
from art.sft.examples import get_file_row_count, iterate_file
from art.sft.schedule import ScheduleType, create_lr_schedule
from art.trajectories import Trajectory
from art.types import TrainResult, TrainSFTConfig


class SupervisedModel(Protocol):
    """A model that can be fine-tuned. :class:`art.model.TrainableModel` is one."""

    async def train_sft(
        self,
        trajectories: Iterable[Trajectory],
        config: TrainSFTConfig | None = None,
        _config: Mapping[str, object] | None = None,
        verbose: bool = False,
    ) -> TrainResult:
        """Imitate the assistant turns of trajectories."""
        ...


async def train_sft_from_file(
    model: SupervisedModel,
    file_path: str | os.PathLike[str],
    epochs: int = 1,
    batch_size: int = 2,
    peak_lr: float = 2e-4,
    schedule_type: ScheduleType = "linear",
    warmup_ratio: float = 0.1,
    initial_step: int = 0,
    final_step: int | None = None,
    _config: Mapping[str, object] | None = None,
    verbose: bool = False,
    shuffle_buffer_size: int = 10000,
) -> TrainResult | None:
    """Fine-tune a model on a file of JSON lines, as one step of the model.

    ::

        await train_sft_from_file(model, "examples.jsonl", epochs=3, batch_size=8)

    Args:
        model: A registered model.
        file_path: The file; see :func:`art.sft.iterate_file` for its lines.
        epochs: How often to go through it.
        batch_size: Examples of a batch, which is one optimizer step.
        peak_lr: The highest learning rate.
        schedule_type: As ``method`` of :func:`art.sft.create_lr_schedule`.
        warmup_ratio: The part of all batches during which the learning rate rises.
        initial_step: The batch to begin with, counted over all epochs.
        final_step: The batch to end before; ``None`` is the end.
        _config: As for ``model.train_sft``.
        verbose: As for ``model.train_sft``.
        shuffle_buffer_size: How many examples are held at once to be shuffled.

    Returns:
        The result of ``model.train_sft``; ``None`` where no batch lies in the range.

    Raises:
        art.errors.ConfigurationError: ``batch_size`` is less than 1, or the file's name does not
            end in ``.jsonl``.
        art.errors.TrainingDataError: A line is no example.
        OSError: The file cannot be read.
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size must be at least 1, not {batch_size}")
    total = -(-get_file_row_count(file_path) * epochs // batch_size)
    rates = create_lr_schedule(total, peak_lr, schedule_type, int(total * warmup_ratio))
    rates = rates[initial_step:final_step]
    if not rates:
        return None
    examples = iterate_file(
        file_path,
        epochs,
        shuffle_buffer_size=shuffle_buffer_size,
        initial_skip=initial_step * batch_size,
    )
    return await model.train_sft(
        islice(examples, len(rates) * batch_size),
        TrainSFTConfig(learning_rate=rates, batch_size=batch_size),
        _config=_config,
        verbose=verbose,
    )
