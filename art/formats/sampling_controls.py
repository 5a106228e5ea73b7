"""Sampling settings that the Tinker API lacks: endpoint, wire and executors share them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingControls:
    """Settings that change which token is drawn, and never the logprob that is reported of it.

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


NO_CONTROLS = SamplingControls()
