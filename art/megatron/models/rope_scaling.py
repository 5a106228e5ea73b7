"""Scaling of rotary position embeddings to a longer context than that of pre-training.

Axes: P pairs of rotated dimensions of a head.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .hf_config import ConfigFields


@dataclass(frozen=True)
class Llama3Scaling:
    """The scaling of Llama 3.1, which slows down the low frequencies.

    Args:
        factor: Frequencies with a wavelength above ``original_length / low_freq_factor`` are
            divided by it.
        low_freq_factor: See ``factor``.
        high_freq_factor: Frequencies with a wavelength below ``original_length /
            high_freq_factor`` are kept.
        original_length: The context that the model was first trained with, in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int

    def scale(self, frequencies_P: Tensor, theta: float) -> Tensor:
        """Scale as Llama 3.1 does: llama-models, ``models/llama3/model.py``, ``apply_scaling``.

        Args:
            frequencies_P: float32 ``[P]``, in radians per token.
            theta: The base of their wavelengths; not used.

        Returns:
            float32 ``[P]``, in radians per token.
        """
        low, high = self.low_freq_factor, self.high_freq_factor
        turns_P = self.original_length * frequencies_P / (2 * math.pi)
        # 0 for the low frequencies, which are divided; 1 for the high ones, which are kept.
        kept_P = ((turns_P - low) / (high - low)).clamp(0, 1)
        return (1 - kept_P) * frequencies_P / self.factor + kept_P * frequencies_P


@dataclass(frozen=True)
class YarnScaling:
    """The scaling of YaRN (arXiv 2309.00071), which slows down the low frequencies.

    Args:
        factor: Low frequencies are divided by it.
        fast: Frequencies with more turns than this in the original context are kept.
        slow: Frequencies with fewer turns than this are divided by the whole factor.
        original_length: The context that the model was first trained with, in tokens.
        truncate: True to move the two limits outwards to whole pairs of dimensions.
        attention_factor: The factor on queries and on keys.
    """

    factor: float
    fast: float
    slow: float
    original_length: int
    truncate: bool
    attention_factor: float

    def scale(self, frequencies_P: Tensor, theta: float) -> Tensor:
        """Scale as YaRN does: section 3.2, "NTK-by-parts".

        Args:
            frequencies_P: float32 ``[P]``, in radians per token.
            theta: The base of their wavelengths.

        Returns:
            float32 ``[P]``, in radians per token.
        """
        rotated = 2 * len(frequencies_P)
        first, last = (self._pair(turns, rotated, theta) for turns in (self.fast, self.slow))
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, rotated - 1)
        pairs_P = torch.arange(len(frequencies_P), dtype=torch.float32)
        # transformers' guard against a ramp of no width.
        width = last - first or 0.001
        # 0 for the high frequencies, which are kept; 1 for the low ones, which are divided.
        scaled_P = ((pairs_P - first) / width).clamp(0, 1)
        return scaled_P * frequencies_P / self.factor + (1 - scaled_P) * frequencies_P

    def _pair(self, turns: float, rotated: int, theta: float) -> float:
        """Find the pair that makes so many turns in the original context, as a fraction."""
        wavelength = self.original_length / (2 * math.pi * turns)
        return rotated * math.log(wavelength) / (2 * math.log(theta))


def read_llama3(rope: ConfigFields) -> Llama3Scaling:
    """Read ``rope_parameters`` of type ``"llama3"``.

    Args:
        rope: Their fields.

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
    """Read ``rope_parameters`` of type ``"yarn"``, with transformers' defaults.

    Args:
        rope: Their fields.

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
    # In configs of DeepSeek; neither transformers nor vLLM reads it.
    rope.without_effect("attn_factor")
    return YarnScaling(
        factor=factor,
        fast=rope.optional_number("beta_fast") or 32.0,
        slow=rope.optional_number("beta_slow") or 1.0,
        original_length=rope.integer("original_max_position_embeddings"),
        truncate=rope.flag("truncate") if "truncate" in rope else True,
        attention_factor=computed if given is None else given,
    )


def _magnitude(factor: float, scale: float) -> float:
    """Compute YaRN's factor on queries and keys: section 3.4, equation 22, with the log scaled."""
    return 0.1 * scale * math.log(factor) + 1.0
