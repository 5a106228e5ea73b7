"""Chat turns: messages to a prompt, and sampled tokens to text and tool calls, in no dialect."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from art.chat.template import ChatTemplate, Message
from art.chat.tool_calls.protocol import ParsedText, Tool, ToolCall
from art.endpoint.captured import record_turns
from art.endpoint.constraints import NO_CONSTRAINT, Constraint, turn_grammar
from art.endpoint.sampling import Sample, Stops, sample, tokens_of_prefix
from art.endpoint.served_models import ServedModel
from art.endpoint.state import Endpoint
from art.endpoint.types import SamplingOptions, TopLogprobs

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """A request for the assistant's next turn.

    Attributes:
        model: Name of a served model.
        messages: The conversation, in the OpenAI API's form.
        messages_field: The field of the request's body that the conversation was made of.
        tools: The tools on offer.
        constraint: What the turn must be.
        parallel_tool_calls: Whether a turn may have more than one call. Where not, the turn ends
            with its first call.
        template_kwargs: Variables for the chat template.
        stops: What ends the turn, beside the model's own end of turn.
        options: The sampling options, without ``stop`` and grammar.
    """

    model: str
    messages: Sequence[Message]
    messages_field: str = "messages"
    tools: Sequence[Tool] = ()
    constraint: Constraint = NO_CONSTRAINT
    parallel_tool_calls: bool = True
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    stops: Stops = Stops()  # noqa: RUF009 - frozen
    options: SamplingOptions = SamplingOptions()  # noqa: RUF009 - frozen


@dataclass(frozen=True, slots=True)
class RenderedTurn:
    """A request whose model is known and whose prompt fits the context.

    Attributes:
        request: The request.
        model: The model.
        prompt_token_ids: The prompt.
        options: The sampling options, with the grammar of the turn.
    """

    request: TurnRequest
    model: ServedModel
    prompt_token_ids: list[int]
    options: SamplingOptions


@dataclass(frozen=True, slots=True)
class Turn:
    """One sampled turn of the assistant.

    Attributes:
        sample: The exact tokens, and the text that they are.
        content: The text, without the stop, the thinking and the tool calls.
        tool_calls: The tool calls in order.
        finish_reason: The reason why the turn ended.
        reasoning_content: The text of the model's thinking; ``None`` where there is none.
    """

    sample: Sample
    content: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    reasoning_content: str | None = None

    @property
    def token_ids(self) -> list[int]:
        """``[T]``; the token that ended the turn is the last one, if one did."""
        return self.sample.token_ids

    @property
    def logprobs(self) -> list[float]:
        """``[T]``, in nats."""
        return self.sample.logprobs

    @property
    def top_logprobs(self) -> list[TopLogprobs]:
        """``[T]``."""
        return self.sample.top_logprobs


async def render_turn(request: TurnRequest, endpoint: Endpoint) -> RenderedTurn:
    """Render a request's prompt, before anything is sampled.

    Raises:
        RequestError: There is no such model (404); the prompt is too long, or the turn cannot be
            constrained (400).
        art.errors.ChatTemplateError: The template cannot render the messages.
    """
    model = endpoint.find_model(request.model)
    prompt_token_ids = await prompt_of(request, endpoint)
    endpoint.check_length(prompt_token_ids, request.options.max_tokens, request.messages_field)
    grammar = turn_grammar(
        request.constraint,
        request.tools,
        prompt_token_ids,
        parallel=request.parallel_tool_calls,
        template=endpoint.chat_template,
    )
    controls = replace(request.options.controls, grammar=grammar)
    options = replace(request.options, controls=controls)
    return RenderedTurn(request, model, prompt_token_ids, options)


async def prompt_of(request: TurnRequest, endpoint: Endpoint) -> list[int]:
    """Render a request's prompt, however long it is.

    Raises:
        art.errors.ChatTemplateError: The template cannot render the messages.
    """
    # Megabytes of text take seconds, and others wait on this event loop.
    return await asyncio.to_thread(
        endpoint.chat_template.prompt_token_ids,
        request.messages,
        request.tools,
        request.template_kwargs,
    )


def exact_tokens(rendered: RenderedTurn, turn: Turn) -> dict[str, object]:
    """Write a turn's exact tokens, for dialects that have no field of their own for them."""
    return {
        "prompt_token_ids": rendered.prompt_token_ids,
        "token_ids": turn.token_ids,
        "token_logprobs": turn.logprobs,
    }


async def sample_turns(rendered: RenderedTurn, endpoint: Endpoint) -> list[Turn]:
    """Sample a request's turns.

    Returns:
        ``num_samples`` turns.

    Raises:
        RequestError: The server returns no top logprobs (400).
        art.errors.InvalidRequestError: The server refuses the request.
        art.errors.EngineError: The server failed.
    """
    samples = await sample(
        rendered.model,
        rendered.prompt_token_ids,
        rendered.options,
        rendered.request.stops,
        endpoint,
    )
    request, template = rendered.request, endpoint.chat_template
    turns = [_read_turn(each, rendered, template) for each in samples]
    record_turns(request.messages, request.tools, rendered.prompt_token_ids, turns, template)
    return turns


def _read_turn(sampled: Sample, rendered: RenderedTurn, template: ChatTemplate) -> Turn:
    parsed = _parse(sampled.text, rendered, template)
    if len(parsed.tool_calls) > 1 and not rendered.request.parallel_tool_calls:
        sampled = _until_first_call(sampled, rendered, template)
        parsed = _parse(sampled.text, rendered, template)
    finish_reason: FinishReason = sampled.stop_reason
    if parsed.tool_calls and finish_reason == "stop":
        finish_reason = "tool_calls"
    return Turn(
        sampled,
        parsed.content,
        parsed.tool_calls,
        finish_reason,
        reasoning_content=parsed.reasoning,
    )


def _parse(text: str, rendered: RenderedTurn, template: ChatTemplate) -> ParsedText:
    return template.parse(text, rendered.request.tools, rendered.prompt_token_ids)


def _until_first_call(sampled: Sample, rendered: RenderedTurn, template: ChatTemplate) -> Sample:
    """Cut a turn at the end of its first call, closing tags included.

    Every format ends a call with one of few characters, so these alone are tried. A parser may
    take a call whose closing tag is still to come, so the last end of the same turn counts.
    """
    text = sampled.text
    first: ParsedText | None = None
    cut = len(text)
    for end in (i + 1 for i, character in enumerate(text) if character in "}>])"):
        parsed = _parse(text[:end], rendered, template)
        if first is None and len(parsed.tool_calls) == 1:
            first = parsed
        if first is not None:
            if parsed != first:
                break
            cut = end
    if first is None:
        return sampled
    kept = tokens_of_prefix(sampled.token_ids, text[:cut], template)
    return sampled.cut(kept, text[:cut])
