"""The controls of one sample: what they change in the logits that its next token is drawn from.

Shapes: V vocabulary, L tokens that a setting names.
"""

from collections import Counter

import numpy as np
import torch

from art.executors.torch.grammars import GrammarState
from art.executors.types import IntArray
from art.formats.sampling_controls import SamplingControls


class TokenControls:
    """Applies penalties, biases and a grammar to one sample.

    Args:
        controls: The settings.
        prompt: int64 ``[P]``.
        grammar: The grammar's state before the first token, copied when that is drawn; ``None``
            is any text.
        device: Where the logits are.
    """

    def __init__(
        self,
        controls: SamplingControls,
        prompt: IntArray,
        grammar: GrammarState | None,
        device: torch.device,
    ) -> None:
        self._controls = controls
        self._first_state = grammar
        self._grammar: GrammarState | None = None
        self._device = device
        self._sampled: Counter[int] = Counter()
        # The distinct tokens of prompt and sample, where they matter.
        self._seen_L = torch.empty(0, dtype=torch.int64)
        if controls.repetition_penalty != 1:
            self._seen_L = torch.from_numpy(np.unique(prompt)).to(device)
        self._seen = set(self._seen_L.tolist())
        biases = controls.logit_bias
        self._biased_L = torch.tensor([token for token, _ in biases], dtype=torch.int64).to(device)
        self._bias_L = torch.tensor([bias for _, bias in biases], dtype=torch.float32).to(device)

    @property
    def is_complete(self) -> bool:
        """True where the grammar allows no further token, nor any to end with."""
        return self._grammar is not None and self._grammar.is_complete

    def apply(self, logits_V: torch.Tensor) -> None:
        """Change the logits of the next token in place; float32.

        Raises:
            InvalidRequestError: The grammar cannot be followed.
        """
        controls = self._controls
        # 1. Divide what the model repeats.
        if controls.repetition_penalty != 1:
            penalty, repeated_L = controls.repetition_penalty, logits_V[self._seen_L]
            logits_V[self._seen_L] = torch.where(
                repeated_L > 0, repeated_L / penalty, repeated_L * penalty
            )
        # 2. Subtract from what it has said.
        if (controls.frequency_penalty or controls.presence_penalty) and self._sampled:
            said_L = torch.tensor([*self._sampled], device=self._device)
            counts_L = torch.tensor([*self._sampled.values()], device=self._device)
            logits_V[said_L] -= controls.frequency_penalty * counts_L + controls.presence_penalty
        # 3. Add the biases.
        if controls.logit_bias:
            logits_V[self._biased_L] += self._bias_L
        # 4. Leave only what the grammar allows.
        if self._grammar is None and self._first_state is not None:
            self._grammar = self._first_state.copy()
        if self._grammar is not None:
            forbidden_V = torch.from_numpy(~self._grammar.allowed()).to(self._device)
            logits_V.masked_fill_(forbidden_V, -torch.inf)

    def note(self, token: int) -> None:
        """Take note of the token that was drawn.

        Raises:
            InvalidRequestError: The grammar cannot be followed.
        """
        self._sampled[token] += 1
        if self._controls.repetition_penalty != 1 and token not in self._seen:
            self._seen.add(token)
            self._seen_L = torch.cat([self._seen_L, self._seen_L.new_tensor([token])])
        if self._grammar is not None:
            self._grammar.note(token)
