"""The architecture of a model, as its family's handler reads it from a Hugging Face config."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .rope import Rope


@dataclass(frozen=True)
class Architecture:
    """The computation of a model. It depends on neither ranks nor dtype.

    Args:
        transformer: Arguments of megatron's ``TransformerConfig`` that describe the layers.
        vocab_size: Tokens in the vocabulary, before padding.
        max_sequence_length: The longest context, in tokens.
        rope: The rotary embedding of queries and keys.
        tied_embeddings: True if the output layer shares its weight with the embedding.
        tensor_prefix: The prefix of the names of the decoder's tensors in a checkpoint.
    """

    transformer: Mapping[str, Any]
    vocab_size: int
    max_sequence_length: int
    rope: Rope
    tied_embeddings: bool
    tensor_prefix: str = "model."
