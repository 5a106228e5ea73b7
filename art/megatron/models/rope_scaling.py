"""How rotary position embeddings are stretched to a longer context than they were trained with."""

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

    def stretch(self, frequencies: Tensor, theta: float) -> Tensor:
        """Scale as Llama 3.1 does: llama-models, ``models/llama3/model.py``, ``apply_scaling``.

        Args:
            frequencies: float32 ``[rotated / 2]``, in radians a token.
            theta: The base of their wavelengths.

        Returns:
            The same shape.
        """
        low, high = self.low_freq_factor, self.high_freq_factor
        turns = self.original_length * frequencies / (2 * math.pi)
        # 0 for the slow rotations, which are stretched in full; 1 for the fast ones.
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return (1 - kept) * frequencies / self.factor + kept * frequencies


@dataclass(frozen=True)
class YarnScaling:
    """How YaRN (arXiv 2309.00071) stretches the slow rotations to a longer context.

    Args:
        factor: By how much.
        fast: Rotations that turn more often than this in the original context stay.
        slow: Those that turn less often than this are stretched in full.
        original_length: The context that the model was first trained with, in tokens.
        truncate: Whether the two limits are moved outwards to whole pairs of dimensions.
        attention_factor: Queries and keys are multiplied by it, each.
    """

    factor: float
    fast: float
    slow: float
    original_length: int
    truncate: bool
    attention_factor: float

    def stretch(self, frequencies: Tensor, theta: float) -> Tensor:
        """Scale as YaRN does: section 3.2, "NTK-by-parts".

        Args:
            frequencies: float32 ``[rotated / 2]``, in radians a token.
            theta: The base of their wavelengths.

        Returns:
            The same shape.
        """
        rotated = 2 * len(frequencies)
        first, last = (self._pair(turns, rotated, theta) for turns in (self.fast, self.slow))
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, rotated - 1)
        pairs = torch.arange(len(frequencies), dtype=torch.float32)
        # transformers' guard against a ramp of no width.
        width = last - first or 0.001
        stretched = ((pairs - first) / width).clamp(0, 1)
        return stretched * frequencies / self.factor + (1 - stretched) * frequencies

    def _pair(self, turns: float, rotated: int, theta: float) -> float:
        """Which pair of dimensions turns so often in the original context: a fraction."""
        wavelength = self.original_length / (2 * math.pi * turns)
        return rotated * math.log(wavelength) / (2 * math.log(theta))


def read_llama3(rope: ConfigFields) -> Llama3Scaling:
    """Read the fields of ``rope_parameters`` whose type is ``"llama3"``.

    Args:
        rope: Those fields.

    Returns:
        The scaling.

    Raises:
        ConfigurationError: A field is missing or has a value that is not supported.
    """
    return Llama3Scaling(
        factor=rope.number("factor"),
        low_freq_factor=rope.number("low_freq_factor"),
        high_freq_factor=rope.number("high_freq_factor"),
        original_length=rope.integer("original_max_position_embeddings"),
    )


def read_yarn(rope: ConfigFields) -> YarnScaling:
    """Read the fields of ``rope_parameters`` whose type is ``"yarn"``, with transformers' defaults.

    Args:
        rope: Those fields.

    Returns:
        The scaling.

    Raises:
        ConfigurationError: A field is missing or has a value that is not supported.
    """
    factor = rope.number("factor")
    if factor < 1:
        raise rope.unsupported("factor", "it must be at least 1", factor)
    given = rope.optional_number("attention_factor")
    scale, scale_all = rope.optional_number("mscale"), rope.optional_number("mscale_all_dim")
    if scale and scale_all:
        computed = _magnitude(factor, scale) / _magnitude(factor, scale_all)
    else:
        computed = _magnitude(factor, 1.0)
    return YarnScaling(
        factor=factor,
        fast=rope.optional_number("beta_fast") or 32.0,
        slow=rope.optional_number("beta_slow") or 1.0,
        original_length=rope.integer("original_max_position_embeddings"),
        truncate=rope.flag("truncate") if "truncate" in rope else True,
        attention_factor=computed if given is None else given,
    )


def _magnitude(factor: float, scale: float) -> float:
    """YaRN's factor on queries and keys: section 3.4, equation 22, with a scale of the log."""
    return 0.1 * scale * math.log(factor) + 1.0
