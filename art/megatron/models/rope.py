"""Rotary position embeddings as Hugging Face configs describe them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .hf_config import ConfigFields
from .rope_scaling import Llama3Scaling, YarnScaling, read_llama3, read_yarn


@dataclass(frozen=True)
class Rope:
    """The rotation of queries and keys.

    Args:
        rotated: How many of a head's dimensions are rotated; the first ones, an even number.
        theta: The base of the wavelengths.
        position_scale: Positions are divided by it.
        scaling: How the model was stretched to a longer context, where it was.
    """

    rotated: int
    theta: float
    position_scale: float = 1.0
    scaling: Llama3Scaling | YarnScaling | None = None

    def inverse_frequencies(self) -> Tensor:
        """Compute the angle by which each pair of dimensions turns from token to token.

        Returns:
            float32 ``[rotated / 2]``, in radians: ``theta ** (-2i / rotated)`` (RoFormer, arXiv
            2104.09864, section 3.2.2), scaled where the model asks for it.
        """
        exponents = torch.arange(0, self.rotated, 2, dtype=torch.float32) / self.rotated
        frequencies = 1.0 / (self.theta**exponents) / self.position_scale
        if self.scaling is None:
            return frequencies
        return self.scaling.stretch(frequencies, self.theta)

    @property
    def score_scale(self) -> float:
        """What attention's scores are multiplied by, besides ``1 / sqrt(head_dim)``."""
        if isinstance(self.scaling, YarnScaling):
            # It lengthens the query as well as the key.
            return self.scaling.attention_factor**2
        return 1.0


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
    kind = rope.choice("rope_type", ("default", "linear", "llama3", "yarn"))
    factor = rope.number("partial_rotary_factor", default=1.0)
    if not partial and factor != 1.0:
        raise rope.unsupported("partial_rotary_factor", "the family rotates whole heads")
    rotated = int(head_dim * factor)
    if rotated < 2 or rotated % 2:
        raise rope.unsupported("partial_rotary_factor", f"{rotated} of {head_dim} dimensions turn")
    if kind == "yarn" and rotated != head_dim:
        # The factor on attention would be one on what is rotated alone.
        raise rope.unsupported("rope_type", "only whole heads can be rotated so", kind)
    theta = rope.number("rope_theta")
    scale = rope.number("factor") if kind == "linear" else 1.0
    scaling: Llama3Scaling | YarnScaling | None = None
    if kind == "llama3":
        scaling = read_llama3(rope)
    elif kind == "yarn":
        scaling = read_yarn(rope)
    if partial:
        # Positions in images; a text's three coordinates are equal, which makes it plain RoPE.
        rope.without_effect("mrope_section", "mrope_interleaved")
    rope.finish()
    return Rope(rotated, theta, scale, scaling)
