"""Rotary position embeddings (RoPE), as Hugging Face configs describe them.

Axes: P pairs of rotated dimensions of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .hf_config import ConfigFields
from .rope_scaling import Llama3Scaling, YarnScaling, read_llama3, read_yarn


@dataclass(frozen=True)
class Rope:
    """The rotary embedding of queries and keys.

    Args:
        rotated: Number of dimensions of a head that are rotated, ``2 * P``; the first ones.
        theta: The base of the wavelengths.
        position_scale: Positions are divided by it.
        scaling: The extension to a longer context; ``None`` if there is none.
    """

    rotated: int
    theta: float
    position_scale: float = 1.0
    scaling: Llama3Scaling | YarnScaling | None = None

    def inverse_frequencies(self) -> Tensor:
        """Compute the angle by which each pair of dimensions turns from token to token.

        Returns:
            float32 ``[P]``, in radians: ``theta ** (-2i / rotated)`` for pair i (RoFormer, arXiv
            2104.09864, section 3.2.2), with the model's scaling.
        """
        exponents_P = torch.arange(0, self.rotated, 2, dtype=torch.float32) / self.rotated
        frequencies_P = 1.0 / (self.theta**exponents_P) / self.position_scale
        if self.scaling is None:
            return frequencies_P
        return self.scaling.scale(frequencies_P, self.theta)

    @property
    def score_scale(self) -> float:
        """The factor on attention's scores besides ``1 / sqrt(head_dim)``."""
        if isinstance(self.scaling, YarnScaling):
            # It multiplies the query as well as the key.
            return self.scaling.attention_factor**2
        return 1.0


def read_rope(fields: ConfigFields, head_dim: int, *, partial: bool = False) -> Rope:
    """Read ``rope_parameters``.

    Args:
        fields: The fields of a Hugging Face config.
        head_dim: The size of a head.
        partial: True if the family rotates only ``partial_rotary_factor`` of a head.

    Returns:
        The rotary embedding.

    Raises:
        ConfigurationError: The config asks for a kind that is not supported.
    """
    rope = fields.section("rope_parameters")
    kind = rope.choice("rope_type", ("default", "linear", "llama3", "yarn"))
    # The older name of rope_type.
    rope.require("type", kind, optional=True)
    factor = rope.number("partial_rotary_factor", default=1.0)
    if not partial and factor != 1.0:
        raise rope.unsupported("partial_rotary_factor", "the family rotates whole heads")
    rotated = int(head_dim * factor)
    if rotated < 2 or rotated % 2:
        raise rope.unsupported(
            "partial_rotary_factor", f"it would rotate {rotated} of {head_dim} dimensions"
        )
    if kind == "yarn" and rotated != head_dim:
        # Its factor on attention would apply to the rotated dimensions alone.
        raise rope.unsupported("rope_type", "it is supported for whole heads only", kind)
    theta = rope.number("rope_theta")
    scale = rope.number("factor") if kind == "linear" else 1.0
    scaling: Llama3Scaling | YarnScaling | None = None
    if kind == "llama3":
        scaling = read_llama3(rope)
    elif kind == "yarn":
        scaling = read_yarn(rope)
    if partial:
        # For positions in images: the three coordinates of text are equal, which is plain RoPE.
        rope.without_effect("mrope_section", "mrope_interleaved")
    rope.finish()
    return Rope(rotated, theta, scale, scaling)
