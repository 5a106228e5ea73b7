"""Chat turns: messages to a prompt, and sampled tokens to text and tool calls, in no dialect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from art.chat.template import ChatTemplate, Message
from art.chat.tool_calls.protocol import Tool, ToolCall
from art.endpoint.errors import RequestError
from art.endpoint.served_models import ServedModel
from art.endpoint.state import Endpoint
from art.endpoint.types import SampledTokens, SamplingOptions, TopLogprobs

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """A request for the assistant's next turn.

    Attributes:
        model: Name of a served model.
        messages: The conversation, in the OpenAI API's form.
        tools: The tools on offer.
        template_kwargs: Variables for the chat template.
        stop: Texts whose first occurrence ends the turn, beside the model's own end of turn.
        options: The sampling options, without ``stop``.
    """

    model: str
    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    template_kwargs: Mapping[str, Any] | None = None
    stop: Sequence[str] = ()
    options: SamplingOptions = SamplingOptions()  # noqa: RUF009 - frozen


@dataclass(frozen=True, slots=True)
class RenderedTurn:
    """A request whose model is known and whose prompt fits the context."""

    request: TurnRequest
    model: ServedModel
    prompt_token_ids: list[int]


@dataclass(frozen=True, slots=True)
class Turn:
    """One sampled turn of the assistant.

    Attributes:
        token_ids: ``[T]``; the token that ended the turn is the last one, if one did.
        logprobs: ``[T]``, in nats.
        top_logprobs: ``[T]``.
        content: The text, without the stop, the thinking and the tool calls.
        reasoning: The thinking; ``None`` where the model did not think.
        tool_calls: The tool calls in order.
        finish_reason: The reason why the turn ended.
    """

    token_ids: list[int]
    logprobs: list[float]
    top_logprobs: list[TopLogprobs]
    content: str
    reasoning: str | None
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason


def render_turn(request: TurnRequest, endpoint: Endpoint) -> RenderedTurn:
    """Render a request's prompt, before anything is sampled.

    Raises:
        RequestError: There is no such model (404), or the prompt is too long (400).
        art.errors.ChatTemplateError: The template cannot render the messages.
    """
    model = endpoint.find_model(request.model)
    prompt_token_ids = endpoint.chat_template.prompt_token_ids(
        request.messages, request.tools, request.template_kwargs
    )
    endpoint.check_length(prompt_token_ids, request.options.max_tokens)
    return RenderedTurn(request, model, prompt_token_ids)


async def sample_turns(rendered: RenderedTurn, endpoint: Endpoint) -> list[Turn]:
    """Sample a request's turns.

    Returns:
        ``num_samples`` turns.

    Raises:
        RequestError: The server returns no top logprobs (400).
        art.errors.EngineError: The server failed.
    """
    request, template = rendered.request, endpoint.chat_template
    options = replace(request.options, stop=_stop(request.stop, template))
    completer = await endpoint.models.completer(rendered.model)
    samples = await completer.complete(rendered.prompt_token_ids, options)
    if options.top_logprobs and any(sample.top_logprobs is None for sample in samples):
        raise RequestError(
            400, "this Tinker server returns no top_logprobs; leave it out", param="top_logprobs"
        )
    return [_read_turn(sample, rendered, template) for sample in samples]


def _stop(texts: Sequence[str], template: ChatTemplate) -> Sequence[str] | Sequence[int]:
    """Name the stops of a turn; they are never left to the server.

    They are token ids, or the texts of the same tokens where stop texts are wanted too, since the
    wire takes one kind at a time.
    """
    ends = template.end_of_turn_ids
    if not texts:
        return ends
    return [*texts, *(template.token_text(token_id) for token_id in ends)]


def _read_turn(sample: SampledTokens, rendered: RenderedTurn, template: ChatTemplate) -> Turn:
    request = rendered.request
    kept, text, finish_reason = _end_of_turn(sample, request.stop, template)
    parsed = template.parse(text, request.tools, rendered.prompt_token_ids)
    if parsed.tool_calls and finish_reason == "stop":
        finish_reason = "tool_calls"
    return Turn(
        list(sample.token_ids[:kept]),
        list(sample.logprobs[:kept]),
        [None] * kept if sample.top_logprobs is None else list(sample.top_logprobs[:kept]),
        parsed.content,
        parsed.reasoning,
        parsed.tool_calls,
        finish_reason,
    )


def _end_of_turn(
    sample: SampledTokens, stops: Sequence[str], template: ChatTemplate
) -> tuple[int, str, FinishReason]:
    """Find the end of a turn: its number of tokens, its text and the reason.

    A prefix of a sample is a sample of the same distribution, so cutting here what a server
    sampled past the first stop is exact, whatever the server's own notion of stopping.
    """
    ends = template.end_of_turn_ids
    end = next((i for i, token_id in enumerate(sample.token_ids) if token_id in ends), None)
    visible = list(sample.token_ids[:end])
    text = template.decode(visible)
    found = [position for stop in stops if (position := text.find(stop)) >= 0]
    if found:
        return _tokens_until_stop(visible, stops, template), text[: min(found)], "stop"
    if end is not None:
        return end + 1, text, "stop"
    return len(visible), text, sample.stop_reason


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
