"""The adapters that can be sampled from at the moment. Used on the sampling lane only."""

from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path

from art.executors.protocol import Sampler


class AdapterCache:
    """Adapters in a sampler's memory, the least recently used going first.

    An adapter that went is read from its folder again when it is next used.

    Args:
        sampler: The sampler that holds the weights.
        capacity: Most adapters to hold.
    """

    def __init__(self, sampler: Sampler, capacity: int) -> None:
        self._sampler = sampler
        self.capacity = capacity
        self._loaded: OrderedDict[str, None] = OrderedDict()

    def ensure(self, adapter_id: str, folder: Path, *, in_use: Collection[str]) -> None:
        """Make an adapter available, at the cost of one that is not in use.

        Args:
            adapter_id: The adapter.
            folder: Where it can be read.
            in_use: Adapters that must stay.

        Raises:
            ArtError: The folder cannot be loaded.
        """
        if adapter_id in self._loaded:
            self._loaded.move_to_end(adapter_id)
            return
        idle = [loaded for loaded in self._loaded if loaded not in in_use]
        for victim in idle[: max(0, len(self._loaded) + 1 - self.capacity)]:
            self.drop(victim)
        self._sampler.load_adapter(adapter_id, folder)
        self._loaded[adapter_id] = None

    def drop(self, adapter_id: str) -> None:
        """Forget an adapter, if it is loaded."""
        if adapter_id in self._loaded:
            del self._loaded[adapter_id]
            self._sampler.unload_adapter(adapter_id)
