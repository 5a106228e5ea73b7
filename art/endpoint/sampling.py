"""Sampling of a prompt's completions, each cut at its end, under every dialect."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from art.chat.template import ChatTemplate
from art.endpoint.errors import RequestError
from art.endpoint.served_models import ServedModel
from art.endpoint.state import Endpoint
from art.endpoint.types import SampledTokens, SamplingOptions, StopReason, TopLogprobs


@dataclass(frozen=True, slots=True)
class Stops:
    """The stops of a sample, beside the model's own end of turn.

    Attributes:
        texts: Texts, of which the first to occur ends it.
        token_ids: Token ids that end it.
    """

    texts: Sequence[str] = ()
    token_ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample, up to its end.

    Attributes:
        token_ids: ``[T]``; the token that ended the sample is the last one, if one did.
        logprobs: ``[T]``, in nats, of the model itself: no constraint or penalty is in them.
        top_logprobs: ``[T]``.
        text: The text, without what ended it.
        stop_reason: The reason why sampling ended.
        matched: The stop text or the stop token id of the request that ended it; ``None`` where
            the model ended it, or the limit on tokens.
    """

    token_ids: list[int]
    logprobs: list[float]
    top_logprobs: list[TopLogprobs]
    text: str
    stop_reason: StopReason
    matched: str | int | None = None

    def cut(self, num_tokens: int, text: str) -> "Sample":
        """The first tokens of the sample, as one that was stopped there.

        A prefix of a sample is a sample of the same distribution, so this is exact.

        Args:
            num_tokens: Number of tokens to keep.
            text: Their text.
        """
        kept = slice(num_tokens)
        return Sample(
            self.token_ids[kept], self.logprobs[kept], self.top_logprobs[kept], text, "stop"
        )


async def sample(
    model: ServedModel,
    prompt_token_ids: Sequence[int],
    options: SamplingOptions,
    stops: Stops,
    endpoint: Endpoint,
) -> list[Sample]:
    """Sample completions of a prompt.

    Args:
        model: The model.
        prompt_token_ids: The prompt, within the context.
        options: The sampling options, without ``stop``.
        stops: What ends a sample.
        endpoint: The endpoint's state.

    Returns:
        ``options.num_samples`` samples.

    Raises:
        RequestError: The server returns no top logprobs (400).
        art.errors.InvalidRequestError: The server refuses the request.
        art.errors.EngineError: The server failed.
    """
    template = endpoint.chat_template
    completer = await endpoint.models.completer(model)
    wire_options = replace(options, stop=_wire_stop(stops, template))
    samples = await completer.complete(prompt_token_ids, wire_options)
    if options.top_logprobs and any(each.top_logprobs is None for each in samples):
        raise RequestError(
            400, "this Tinker server returns no top_logprobs; leave it out", param="top_logprobs"
        )
    return [_until_end(each, stops, template) for each in samples]


def tokens_of_prefix(token_ids: Sequence[int], prefix: str, template: ChatTemplate) -> int:
    """Count the tokens that a text needs which is a prefix of theirs, by bisection."""
    low, high = 0, len(token_ids)
    while low < high:
        middle = (low + high) // 2
        if template.decode(token_ids[:middle]).startswith(prefix):
            high = middle
        else:
            low = middle + 1
    return low


def _wire_stop(stops: Stops, template: ChatTemplate) -> Sequence[str] | Sequence[int]:
    """Name what ends a sample; it is never left to the server.

    They are token ids, or the texts of the same tokens where stop texts are wanted too, since the
    wire takes one kind at a time.
    """
    ends = list(dict.fromkeys([*template.end_of_turn_ids, *stops.token_ids]))
    if not stops.texts:
        return ends
    return [*stops.texts, *(template.token_text(token_id) for token_id in ends)]


def _until_end(tokens: SampledTokens, stops: Stops, template: ChatTemplate) -> Sample:
    """Cut a sample at its end, whatever the server's own notion of stopping."""
    ends = {*template.end_of_turn_ids, *stops.token_ids}
    end = next((i for i, token_id in enumerate(tokens.token_ids) if token_id in ends), None)
    visible = list(tokens.token_ids[:end])
    text = template.decode(visible)
    found = [(position, stop) for stop in stops.texts if (position := text.find(stop)) >= 0]
    kept, reason = len(visible), tokens.stop_reason
    matched: str | int | None = None
    if found:
        position, matched = min(found)
        kept = _tokens_until_stop(visible, stops.texts, template)
        text, reason = text[:position], "stop"
    elif end is not None:
        kept, reason = end + 1, "stop"
        ended_by = tokens.token_ids[end]
        matched = ended_by if ended_by not in template.end_of_turn_ids else None
    top_logprobs = tokens.top_logprobs
    return Sample(
        list(tokens.token_ids[:kept]),
        list(tokens.logprobs[:kept]),
        [None] * kept if top_logprobs is None else list(top_logprobs[:kept]),
        text,
        reason,
        matched,
    )


def _tokens_until_stop(token_ids: list[int], stops: Sequence[str], template: ChatTemplate) -> int:
    """Find the least number of tokens whose text contains a stop, by bisection."""
    low, high = 1, len(token_ids)
    while low < high:
        middle = (low + high) // 2
        text = template.decode(token_ids[:middle])
        if any(stop in text for stop in stops):
            high = middle
        else:
            low = middle + 1
    return low
