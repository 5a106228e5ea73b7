"""The adapters that can be sampled from at the moment. Used on the executor's thread only."""

from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path

from art.executors.protocol import Executor


class AdapterCache:
    """Adapters in the executor's memory, the least recently used going first.

    An adapter that went is read from its folder again when it is next used.

    Args:
        executor: What holds the weights.
        capacity: Most adapters to hold.
    """

    def __init__(self, executor: Executor, capacity: int) -> None:
        self._executor = executor
        self.capacity = capacity
        self._loaded: OrderedDict[str, None] = OrderedDict()

    def ensure(self, sampler_id: str, folder: Path, *, in_use: Collection[str]) -> None:
        """Make an adapter available, at the cost of one that is not in use.

        Args:
            sampler_id: The adapter.
            folder: Where it can be read.
            in_use: Adapters that must stay.

        Raises:
            ArtError: The folder cannot be loaded.
        """
        if sampler_id in self._loaded:
            self._loaded.move_to_end(sampler_id)
            return
        idle = [loaded for loaded in self._loaded if loaded not in in_use]
        for victim in idle[: max(0, len(self._loaded) + 1 - self.capacity)]:
            self.drop(victim)
        self._executor.load_sampler(sampler_id, folder)
        self._loaded[sampler_id] = None

    def drop(self, sampler_id: str) -> None:
        """Forget an adapter, if it is loaded."""
        if sampler_id in self._loaded:
            del self._loaded[sampler_id]
            self._executor.unload_sampler(sampler_id)
