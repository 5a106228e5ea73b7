"""Rows of tokens that grow by one a step, on a cache of keys and values.

Shapes: B rows, P tokens of a prompt, C columns of the cache, H heads, D hidden size.
"""

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from art.executors.torch.language_model import LanguageModel
from art.executors.types import IntArray

# A cache that is full grows by at least so many columns, and by half.
_LEAST_GROWTH = 64


class Decoder(Protocol):
    """What samples step by step.

    Attributes:
        last_hidden: ``[B, D]``, the hidden state that predicts each row's next token.
        prompt_hidden: ``[P, D]`` of the prompts that were asked for, by index.
    """

    last_hidden: torch.Tensor
    prompt_hidden: dict[int, torch.Tensor]

    def step(self, tokens: torch.Tensor) -> None:
        """Append one token to every row, int64 ``[B]``, and compute ``last_hidden`` anew."""
        ...

    def keep(self, rows: torch.Tensor) -> None:
        """Drop every row but these, int64 indices."""
        ...


class SharedPrefixDecoder:
    """Computes each distinct prompt once, and what prompts share once; then repeats the cache.

    Prompts of different lengths share one cache, padded on the right: a mask hides the padding,
    and keys carry their own positions, so columns may be in any order.

    Args:
        language_model: A model that takes tree masks.
        prompts: Distinct prompts, int64 ``[P]`` each.
        prompt_of_row: For each row, the index of its prompt.
        keep_hidden: Prompts whose hidden states are wanted.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        prompts: Sequence[IntArray],
        prompt_of_row: Sequence[int],
        keep_hidden: Collection[int],
    ) -> None:
        self._language_model = language_model
        device = language_model.device
        row_prompts = torch.tensor(prompt_of_row, device=device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self._positions = lengths[row_prompts]
        width = max(len(prompt) for prompt in prompts)
        columns = torch.arange(width, device=device)
        self._seen = columns[None] < self._positions[:, None]
        self.prompt_hidden: dict[int, torch.Tensor] = {}
        self._cache, last = self._prefill(prompts, row_prompts, width, keep_hidden)
        self.last_hidden = last[row_prompts]

    def step(self, tokens: torch.Tensor) -> None:
        """Append one token to every row and compute ``last_hidden`` anew."""
        self._seen = torch.cat([self._seen, torch.ones_like(self._seen[:, :1])], dim=1)
        hidden = self._language_model.decode(
            tokens[:, None], self._positions[:, None], self._seen[:, None, None], self._cache
        )
        self._positions = self._positions + 1
        self.last_hidden = hidden[:, -1]

    def keep(self, rows: torch.Tensor) -> None:
        """Drop every row but these."""
        self._seen, self._positions = self._seen[rows], self._positions[rows]
        self.last_hidden = self.last_hidden[rows]
        self._cache.batch_select_indices(rows)

    def _prefill(
        self,
        prompts: Sequence[IntArray],
        row_prompts: torch.Tensor,
        width: int,
        keep_hidden: Collection[int],
    ) -> tuple[Any, torch.Tensor]:
        last: list[torch.Tensor] = [torch.empty(0)] * len(prompts)
        layers: list[_GrowingLayer] = []
        for step in self._language_model.passes(list(prompts)):
            computed = DynamicCache()
            hidden = self._language_model.hidden_states(step, computed)
            row_length = step.input_ids.shape[1]
            if not layers:
                layers = [
                    _GrowingLayer(layer, len(row_prompts), width) for layer in computed.layers
                ]
            for index, path in step.paths:
                nodes = torch.from_numpy(path).to(hidden.device)
                last[index] = hidden[nodes[-1]]
                if index in keep_hidden:
                    self.prompt_hidden[index] = hidden[nodes]
                rows = (row_prompts == index).nonzero().squeeze(1)
                packed_row = int(path[0]) // row_length
                for grown, layer in zip(layers, computed.layers, strict=True):
                    grown.fill(rows, layer, packed_row, nodes % row_length)
        cache: Any = DynamicCache()
        cache.layers = layers
        return cache, torch.stack(last)


class EqualLengthDecoder:
    """Computes every row in full, for models whose cache cannot be padded or shared.

    Args:
        language_model: Any model.
        prompts: Distinct prompts of one length, int64 ``[P]`` each.
        prompt_of_row: For each row, the index of its prompt.
        keep_hidden: Prompts whose hidden states are wanted.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        prompts: Sequence[IntArray],
        prompt_of_row: Sequence[int],
        keep_hidden: Collection[int],
    ) -> None:
        self._language_model = language_model
        device = language_model.device
        ids = torch.stack([torch.from_numpy(prompts[i]) for i in prompt_of_row]).to(device)
        self._length = ids.shape[1]
        self._rows = torch.arange(len(ids), device=device)
        self._tokens = ids[:, -1]
        self._cache: Any = DynamicCache(config=language_model.config)
        hidden = language_model.decode(ids, None, None, self._cache)
        self.last_hidden = hidden[:, -1]
        self.prompt_hidden = {i: hidden[list(prompt_of_row).index(i)] for i in keep_hidden}

    def step(self, tokens: torch.Tensor) -> None:
        """Append one token to every row and compute ``last_hidden`` anew."""
        # Rows that were dropped repeat their last token: not every cache can lose rows.
        self._tokens = self._tokens.index_put((self._rows,), tokens)
        positions = torch.full_like(self._tokens, self._length)[:, None]
        hidden = self._language_model.decode(self._tokens[:, None], positions, None, self._cache)
        self._length += 1
        self.last_hidden = hidden[self._rows, -1]

    def keep(self, rows: torch.Tensor) -> None:
        """Drop every row but these."""
        self._rows, self.last_hidden = self._rows[rows], self.last_hidden[rows]


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer with room to spare, so that a step does not copy the whole of it.

    Args:
        like: A filled layer ``[.., H, .., head]``, for shapes and types.
        rows: How many rows.
        columns: How many columns count as filled.
    """

    def __init__(self, like: Any, rows: int, columns: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = like.keys.dtype, like.keys.device, True
        self._columns = columns

        def empty(tensor: torch.Tensor) -> torch.Tensor:
            shape = (rows, tensor.shape[1], columns + _LEAST_GROWTH, tensor.shape[3])
            return tensor.new_zeros(shape)

        self._key_buffer, self._value_buffer = empty(like.keys), empty(like.values)
        self._expose()

    def fill(self, rows: torch.Tensor, source: Any, source_row: int, nodes: torch.Tensor) -> None:
        """Copy the columns ``nodes`` of one row of ``source`` to the start of ``rows``."""
        self._key_buffer[rows, :, : len(nodes)] = source.keys[source_row][:, nodes]
        self._value_buffer[rows, :, : len(nodes)] = source.values[source_row][:, nodes]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start, self._columns = self._columns, self._columns + key_states.shape[2]
        missing = self._columns - self._key_buffer.shape[2]
        if missing > 0:
            more = max(missing, _LEAST_GROWTH, self._key_buffer.shape[2] // 2)
            pad = (0, 0, 0, more)
            self._key_buffer = torch.nn.functional.pad(self._key_buffer, pad)
            self._value_buffer = torch.nn.functional.pad(self._value_buffer, pad)
        self._key_buffer[:, :, start : self._columns] = key_states
        self._value_buffer[:, :, start : self._columns] = value_states
        return self._expose()

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._key_buffer = self._key_buffer[indices]
        self._value_buffer = self._value_buffer[indices]
        self._expose()

    def _expose(self) -> tuple[torch.Tensor, torch.Tensor]:
        keys = self._key_buffer[:, :, : self._columns]
        values = self._value_buffer[:, :, : self._columns]
        self.keys, self.values = keys, values
        return keys, values
