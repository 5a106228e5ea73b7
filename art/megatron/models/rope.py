"""Rotary position embeddings as Hugging Face configs describe them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .hf_config import ConfigFields


@dataclass(frozen=True)
class Llama3Scaling:
    """How Llama 3.1 stretches the slow rotations to a longer context.

    Args:
        factor: Wavelengths longer than ``original_length / low_freq_factor`` are stretched by it.
        low_freq_factor: See ``factor``.
        high_freq_factor: Wavelengths shorter than ``original_length / high_freq_factor`` stay.
        original_length: The context that the model was first trained with, in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int


@dataclass(frozen=True)
class Rope:
    """The rotation of queries and keys.

    Args:
        rotated: How many of a head's dimensions are rotated; the first ones, an even number.
        theta: The base of the wavelengths.
        position_scale: Positions are divided by it.
        llama3: The scaling of Llama 3.1, where the model has it.
    """

    rotated: int
    theta: float
    position_scale: float = 1.0
    llama3: Llama3Scaling | None = None

    def inverse_frequencies(self) -> Tensor:
        """Compute the angle by which each pair of dimensions turns from token to token.

        Returns:
            float32 ``[rotated / 2]``, in radians: ``theta ** (-2i / rotated)`` (RoFormer, arXiv
            2104.09864, section 3.2.2), scaled where the model asks for it.
        """
        exponents = torch.arange(0, self.rotated, 2, dtype=torch.float32) / self.rotated
        frequencies = 1.0 / (self.theta**exponents) / self.position_scale
        return frequencies if self.llama3 is None else _stretch(frequencies, self.llama3)


def _stretch(frequencies: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Scale as Llama 3.1 does: llama-models, ``models/llama3/model.py``, ``apply_scaling``."""
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = scaling.original_length * frequencies / (2 * math.pi)
    # 0 for the slow rotations, which are stretched in full; 1 for the fast ones.
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def read_rope(fields: ConfigFields, head_dim: int, *, partial: bool = False) -> Rope:
    """Read ``rope_parameters``.

    Args:
        fields: The fields of a Hugging Face config.
        head_dim: The size of a head.
        partial: Whether the family rotates only ``partial_rotary_factor`` of a head.

    Returns:
        The rotation.

    Raises:
        ConfigurationError: The config asks for a rotation that is not known here.
    """
    rope = fields.section("rope_parameters")
    kind = rope.choice("rope_type", ("default", "linear", "llama3"))
    factor = rope.number("partial_rotary_factor", default=1.0)
    if not partial and factor != 1.0:
        raise rope.unsupported("partial_rotary_factor", "the family rotates whole heads")
    rotated = int(head_dim * factor)
    if rotated < 2 or rotated % 2:
        raise rope.unsupported("partial_rotary_factor", f"{rotated} of {head_dim} dimensions turn")
    theta = rope.number("rope_theta")
    scale = rope.number("factor") if kind == "linear" else 1.0
    scaling = None
    if kind == "llama3":
        scaling = Llama3Scaling(
            factor=rope.number("factor"),
            low_freq_factor=rope.number("low_freq_factor"),
            high_freq_factor=rope.number("high_freq_factor"),
            original_length=rope.integer("original_max_position_embeddings"),
        )
    if partial:
        # Positions in images; a text's three coordinates are equal, which makes it plain RoPE.
        rope.without_effect("mrope_section", "mrope_interleaved")
    rope.finish()
    return Rope(rotated, theta, scale, scaling)
