"""Logprobs and numbers of tokens in the OpenAI API's shapes."""

from collections.abc import Sequence

from art.chat.template import ChatTemplate
from art.endpoint.sampling import Sample

_Json = dict[str, object]


def token_logprobs(
    sample: Sample, template: ChatTemplate, *, as_id: bool = False
) -> list[dict[str, object]]:
    """Write the logprob of each token of a sample, with its alternatives.

    Args:
        sample: The sample.
        template: Writes the texts of tokens.
        as_id: Whether a token is written as ``"token_id:7"`` instead of its text.
    """
    return [
        {
            **_token_logprob(token_id, logprob, template, as_id=as_id),
            "top_logprobs": [
                _token_logprob(other, other_logprob, template, as_id=as_id)
                for other, other_logprob in (alternatives or [])
            ],
        }
        for token_id, logprob, alternatives in zip(
            sample.token_ids, sample.logprobs, sample.top_logprobs, strict=True
        )
    ]


def token_name(token_id: int, template: ChatTemplate, *, as_id: bool) -> str:
    """The text of a token, or ``"token_id:7"``."""
    return f"token_id:{token_id}" if as_id else template.token_text(token_id)


def usage(prompt_token_ids: Sequence[int], samples: Sequence[Sample]) -> dict[str, object]:
    """Write the numbers of tokens of a prompt and its samples."""
    sampled = sum(len(sample.token_ids) for sample in samples)
    prompt = len(prompt_token_ids)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": sampled,
        "total_tokens": prompt + sampled,
    }


def _token_logprob(token_id: int, logprob: float, template: ChatTemplate, *, as_id: bool) -> _Json:
    text = template.token_text(token_id)
    # A token that holds part of a character decodes to U+FFFD, whose bytes are not the token's.
    own_bytes = None if "\ufffd" in text else list(text.encode())
    name = token_name(token_id, template, as_id=as_id)
    return {"token": name, "bytes": own_bytes, "logprob": logprob}
