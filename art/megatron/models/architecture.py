"""A model as its family's handler reads it from a Hugging Face config."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .rope import Rope


@dataclass(frozen=True)
class Architecture:
    """What a model computes, whatever ranks and dtype it is built for.

    Args:
        transformer: Arguments of megatron's ``TransformerConfig`` that say what its layers are.
        vocab_size: Tokens in the vocabulary, before padding.
        max_sequence_length: The longest context, in tokens.
        rope: The rotation of queries and keys.
        tied_embeddings: Whether the output layer's weight is the embedding's.
        tensor_prefix: What the names of the decoder's tensors start with in a checkpoint.
    """

    transformer: Mapping[str, Any]
    vocab_size: int
    max_sequence_length: int
    rope: Rope
    tied_embeddings: bool
    tensor_prefix: str = "model."
