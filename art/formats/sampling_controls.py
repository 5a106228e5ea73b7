"""Sampling settings that the Tinker API lacks: endpoint, wire and executors share them."""

import math
from dataclasses import dataclass, fields

from art.errors import InvalidRequestError

MAX_LOGIT_BIASES = 4096
MAX_GRAMMAR_CHARACTERS = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingControls:
    """Settings that change which token is drawn, and never the logprob that is reported of it.

    They apply to the logits in this order: ``repetition_penalty``, ``frequency_penalty`` and
    ``presence_penalty``, ``logit_bias``, ``grammar``; then temperature, ``top_k``, ``top_p``, and
    ``min_p`` last.

    Attributes:
        min_p: Least probability of a token, as a share of the likeliest one's; 0 is none.
        logit_bias: Token ids, each with what is added to its logit.
        frequency_penalty: Taken from a token's logit for each time that it was sampled.
        presence_penalty: Taken from a token's logit once it was sampled.
        repetition_penalty: Divides a positive logit, and multiplies a negative one, of a token
            of the prompt or the sample (Keskar et al. 2019, arXiv:1909.05858); 1 is none.
        grammar: A grammar in the Lark dialect of llguidance that the text of a sample follows;
            ``None`` is any text.
    """

    min_p: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    grammar: str | None = None

    def changed(self) -> list[str]:
        """List the fields that are not neutral: those that a sampler must be able to honour."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]


NO_CONTROLS = SamplingControls()


def check_controls(controls: SamplingControls) -> None:
    """Refuse controls that are out of their ranges, or too large.

    Token ids are only checked for their sign, since the vocabulary is not known here.

    Raises:
        InvalidRequestError: Names the field, its range and the value.
    """
    _check_range("min_p", controls.min_p, 0, 1)
    _check_range("frequency_penalty", controls.frequency_penalty, -2, 2)
    _check_range("presence_penalty", controls.presence_penalty, -2, 2)
    _check_range("repetition_penalty", controls.repetition_penalty, 0.01, 100)
    biases = controls.logit_bias
    if len(biases) > MAX_LOGIT_BIASES:
        raise InvalidRequestError(
            f"logit_bias has {len(biases)} entries, of {MAX_LOGIT_BIASES} at most"
        )
    for token, bias in biases:
        if token < 0:
            raise InvalidRequestError(f"logit_bias has token id {token}, which is negative")
        _check_range(f"logit_bias of token {token}", bias, -100, 100)
    if len({token for token, _ in biases}) < len(biases):
        raise InvalidRequestError("logit_bias names a token twice")
    grammar = controls.grammar
    if grammar is not None and len(grammar) > MAX_GRAMMAR_CHARACTERS:
        raise InvalidRequestError(
            f"the grammar has {len(grammar)} characters, of {MAX_GRAMMAR_CHARACTERS} at most"
        )
    if grammar is not None and any("\ud800" <= character <= "\udfff" for character in grammar):
        raise InvalidRequestError("the grammar holds a lone surrogate, which is no text")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidRequestError(f"{name} must be from {low:g} to {high:g}, not {value}")
