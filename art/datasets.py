"""Batches of a dataset over several epochs, in an order that a resumed run repeats."""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar

from art.errors import ConfigurationError
from art.runs.progress import terminal_progress

T = TypeVar("T")


@dataclass
class DatasetBatch(Generic[T]):
    """One batch of a dataset.

    Attributes:
        items: Its items; the last batch of an epoch may have fewer.
        step: Batches before it, over all epochs.
        epoch: Epochs before this one.
        epoch_step: Batches before it in its epoch.
    """

    items: list[T]
    step: int
    epoch: int
    epoch_step: int


def iterate_dataset(
    dataset: Sequence[T],
    groups_per_step: int = 1,
    num_epochs: int = 1,
    initial_step: int = 0,
    use_tqdm: bool = True,
) -> Iterator[DatasetBatch[T]]:
    """Go through a dataset in batches, shuffled anew in each epoch.

    The order depends on the epoch and on the length of the dataset alone: it is that of ART, and
    the same after a restart. ::

        for batch in iterate_dataset(scenarios, groups_per_step=8,
                                     initial_step=await model.get_step()):
            ...

    Args:
        dataset: The items.
        groups_per_step: Items of a batch.
        num_epochs: How often to go through all of it.
        initial_step: The batch to begin with, counted over all epochs.
        use_tqdm: Show a progress bar.

    Yields:
        The batches.

    Raises:
        art.errors.ConfigurationError: A number is out of its range.
    """
    if groups_per_step < 1 or num_epochs < 0 or initial_step < 0:
        raise ConfigurationError(
            "groups_per_step must be at least 1, num_epochs and initial_step not negative; they "
            f"are {groups_per_step}, {num_epochs} and {initial_step}"
        )
    steps_per_epoch = -(-len(dataset) // groups_per_step)
    total = steps_per_epoch * num_epochs
    with ExitStack() as stack:
        progress = stack.enter_context(terminal_progress("dataset", total)) if use_tqdm else None
        if progress is not None:
            progress.advance(min(initial_step, total))
        order: list[int] = []
        for step in range(initial_step, total):
            epoch, epoch_step = divmod(step, steps_per_epoch)
            if not order or not epoch_step:
                order = list(range(len(dataset)))
                random.Random(epoch).shuffle(order)
            chosen = order[epoch_step * groups_per_step : (epoch_step + 1) * groups_per_step]
            yield DatasetBatch([dataset[index] for index in chosen], step, epoch, epoch_step)
            if progress is not None:
                progress.advance(1)
