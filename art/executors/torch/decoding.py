"""Rows of tokens that grow by one a step, on a cache of keys and values.

Shapes: B rows, U distinct prompts, P tokens of a prompt, N tokens of a packed row, C columns of
the cache, H heads of keys, E size of a head, D hidden size.
"""

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from art.executors.torch.language_model import LanguageModel
from art.executors.torch.turns import Turn
from art.executors.types import IntArray

# A cache that is full grows by at least so many columns, and by half.
_LEAST_GROWTH = 64


class Decoder(Protocol):
    """The cache of a batch, and the step that extends it.

    To make one computes the prompts, and takes a turn for each pass. :meth:`step` is one pass, for
    which the caller holds the turn.

    Attributes:
        last_hidden_BD: The hidden state that predicts each row's next token.
        prompt_hidden: ``[P, D]`` of the prompts that were asked for, by index.
    """

    last_hidden_BD: torch.Tensor
    prompt_hidden: dict[int, torch.Tensor]

    def step(self, tokens_B: torch.Tensor) -> None:
        """Append one token, int64, to every row, and compute ``last_hidden_BD`` anew."""
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
        turn: Holds the model with the adapter active.
        prompts: Distinct prompts, int64 ``[P]`` each.
        prompt_of_row: For each row, the index of its prompt.
        keep_hidden: Prompts whose hidden states are wanted.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        turn: Turn,
        prompts: Sequence[IntArray],
        prompt_of_row: Sequence[int],
        keep_hidden: Collection[int],
    ) -> None:
        self._language_model = language_model
        device = language_model.device
        prompt_of_row_B = torch.tensor(prompt_of_row, device=device)
        lengths_U = torch.tensor([len(prompt) for prompt in prompts], device=device)
        # The position of the next token of each row.
        self._positions_B = lengths_U[prompt_of_row_B]
        width = max(len(prompt) for prompt in prompts)
        columns_C = torch.arange(width, device=device)
        self._seen_BC = columns_C[None] < self._positions_B[:, None]
        self.prompt_hidden: dict[int, torch.Tensor] = {}
        self._cache, last_hidden_UD = self._prefill(
            turn, prompts, prompt_of_row_B, width, keep_hidden
        )
        self.last_hidden_BD = last_hidden_UD[prompt_of_row_B]

    def step(self, tokens_B: torch.Tensor) -> None:
        """Append one token to every row and compute ``last_hidden_BD`` anew."""
        # The new token's column is the last for every row, wherever its prompt ended.
        self._seen_BC = torch.cat([self._seen_BC, torch.ones_like(self._seen_BC[:, :1])], dim=1)
        hidden_B1D = self._language_model.decode(
            tokens_B[:, None],
            self._positions_B[:, None],
            self._seen_BC[:, None, None],
            self._cache,
        )
        self._positions_B = self._positions_B + 1
        self.last_hidden_BD = hidden_B1D[:, -1]

    def keep(self, rows: torch.Tensor) -> None:
        """Drop every row but these."""
        self._seen_BC, self._positions_B = self._seen_BC[rows], self._positions_B[rows]
        self.last_hidden_BD = self.last_hidden_BD[rows]
        self._cache.batch_select_indices(rows)

    def absorb(self, other: "SharedPrefixDecoder") -> None:
        """Take another's rows in after its own. Both are of one model with one adapter."""
        # Columns may be in any order, so the narrower cache is padded on the right, and hidden.
        width = max(self._seen_BC.shape[1], other._seen_BC.shape[1])
        self._seen_BC = torch.cat(
            [
                torch.nn.functional.pad(seen, (0, width - seen.shape[1]))
                for seen in (self._seen_BC, other._seen_BC)
            ]
        )
        self._positions_B = torch.cat([self._positions_B, other._positions_B])
        self.last_hidden_BD = torch.cat([self.last_hidden_BD, other.last_hidden_BD])
        for layer, layer_of_other in zip(self._cache.layers, other._cache.layers, strict=True):
            layer.absorb(layer_of_other)

    def _prefill(
        self,
        turn: Turn,
        prompts: Sequence[IntArray],
        prompt_of_row_B: torch.Tensor,
        width: int,
        keep_hidden: Collection[int],
    ) -> tuple[Any, torch.Tensor]:
        """Compute the prompts, and copy each one's keys and values to every row that has it.

        Returns:
            A cache of all rows, ``[B, H, C, E]`` a layer with ``C`` the longest prompt, and the
            last hidden state of each prompt, ``[U, D]``.
        """
        last_hidden: list[torch.Tensor] = [torch.empty(0)] * len(prompts)
        layers: list[_GrowingLayer] = []
        for step in self._language_model.passes(list(prompts)):
            # 1. One pass over packed rows, each a tree of prompts; it fills a cache of its own.
            computed = DynamicCache()
            with turn():
                hidden_BN_D = self._language_model.hidden_states(step, computed)
            row_length = step.input_ids.shape[1]
            if not layers:
                # 2. Room for all rows, once the layers' shapes are known.
                rows = len(prompt_of_row_B)
                layers = [_GrowingLayer(layer, rows, width) for layer in computed.layers]
            for index, path in step.paths:
                # 3. A prompt is a path in its tree: its nodes, in order, are the columns of every
                # row that continues it.
                nodes_P = torch.from_numpy(path).to(hidden_BN_D.device)
                last_hidden[index] = hidden_BN_D[nodes_P[-1]]
                if index in keep_hidden:
                    self.prompt_hidden[index] = hidden_BN_D[nodes_P]
                rows_of_prompt = (prompt_of_row_B == index).nonzero().squeeze(1)
                packed_row = int(path[0]) // row_length
                for grown, layer in zip(layers, computed.layers, strict=True):
                    grown.fill(rows_of_prompt, layer, packed_row, nodes_P % row_length)
        cache: Any = DynamicCache()
        cache.layers = layers
        return cache, torch.stack(last_hidden)


class EqualLengthDecoder:
    """Computes every row in full, for models whose cache cannot be padded or shared.

    Args:
        language_model: Any model.
        turn: Holds the model with the adapter active.
        prompts: Distinct prompts of one length, int64 ``[P]`` each.
        prompt_of_row: For each row, the index of its prompt.
        keep_hidden: Prompts whose hidden states are wanted.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        turn: Turn,
        prompts: Sequence[IntArray],
        prompt_of_row: Sequence[int],
        keep_hidden: Collection[int],
    ) -> None:
        self._language_model = language_model
        device = language_model.device
        ids_BP = torch.stack([torch.tensor(prompts[i]) for i in prompt_of_row]).to(device)
        self._length = ids_BP.shape[1]
        # Which rows of the cache are left. Not every cache can lose rows, so all are computed.
        self._rows = torch.arange(len(ids_BP), device=device)
        self._tokens = ids_BP[:, -1]
        self._cache: Any = DynamicCache(config=language_model.config)
        with turn():
            hidden_BPD = language_model.decode(ids_BP, None, None, self._cache)
        self.last_hidden_BD = hidden_BPD[:, -1]
        self.prompt_hidden = {i: hidden_BPD[list(prompt_of_row).index(i)] for i in keep_hidden}

    def step(self, tokens_B: torch.Tensor) -> None:
        """Append one token to every row and compute ``last_hidden_BD`` anew."""
        # Rows that were dropped repeat their last token.
        self._tokens = self._tokens.index_put((self._rows,), tokens_B)
        positions = torch.full_like(self._tokens, self._length)[:, None]
        hidden = self._language_model.decode(self._tokens[:, None], positions, None, self._cache)
        self._length += 1
        self.last_hidden_BD = hidden[self._rows, -1]

    def keep(self, rows: torch.Tensor) -> None:
        """Drop every row but these."""
        self._rows, self.last_hidden_BD = self._rows[rows], self.last_hidden_BD[rows]


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """A cache layer with room to spare, so that a step does not copy the whole of it.

    Args:
        like: A filled layer, ``[.., H, .., E]``, for shapes and types.
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

        self._keys_BHCE, self._values_BHCE = empty(like.keys), empty(like.values)
        self._expose()

    def fill(self, rows: torch.Tensor, source: Any, source_row: int, nodes_P: torch.Tensor) -> None:
        """Copy the columns ``nodes_P`` of one row of ``source`` to the start of ``rows``."""
        self._keys_BHCE[rows, :, : len(nodes_P)] = source.keys[source_row][:, nodes_P]
        self._values_BHCE[rows, :, : len(nodes_P)] = source.values[source_row][:, nodes_P]

    def absorb(self, other: "_GrowingLayer") -> None:
        """Take another's rows in after its own, padded on the right to one width."""
        room = max(self._keys_BHCE.shape[2], other._keys_BHCE.shape[2])

        def joined(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
            pad = torch.nn.functional.pad
            return torch.cat([pad(t, (0, 0, 0, room - t.shape[2])) for t in (ours, theirs)])

        self._keys_BHCE = joined(self._keys_BHCE, other._keys_BHCE)
        self._values_BHCE = joined(self._values_BHCE, other._values_BHCE)
        self._columns = max(self._columns, other._columns)
        self._expose()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start, self._columns = self._columns, self._columns + key_states.shape[2]
        missing = self._columns - self._keys_BHCE.shape[2]
        if missing > 0:
            more = max(missing, _LEAST_GROWTH, self._keys_BHCE.shape[2] // 2)
            pad = (0, 0, 0, more)
            self._keys_BHCE = torch.nn.functional.pad(self._keys_BHCE, pad)
            self._values_BHCE = torch.nn.functional.pad(self._values_BHCE, pad)
        self._keys_BHCE[:, :, start : self._columns] = key_states
        self._values_BHCE[:, :, start : self._columns] = value_states
        return self._expose()

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._keys_BHCE = self._keys_BHCE[indices]
        self._values_BHCE = self._values_BHCE[indices]
        self._expose()

    def _expose(self) -> tuple[torch.Tensor, torch.Tensor]:
        # What transformers reads: the filled columns, without a copy.
        keys = self._keys_BHCE[:, :, : self._columns]
        values = self._values_BHCE[:, :, : self._columns]
        self.keys, self.values = keys, values
        return keys, values
