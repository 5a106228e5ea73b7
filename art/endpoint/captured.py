"""Capture of rollouts by URL or header: requests that name a capture are recorded in it.

A request names its capture by the header ``x-art-rollout``, or by being sent under
``/v1/rollouts/{token}/v1`` instead of ``/v1``. Under such a URL the token is accepted as the API
key too, and so opens nothing else of the endpoint. All dialects of conversations are captured,
since turns are recorded where they are sampled; completions of plain text or tokens are no turns.
"""

import uuid
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from art._internal.http_origin import check_origin
from art.capture.captures import CAPTURES, HEADER, Capture
from art.chat.template import ChatTemplate, Message
from art.chat.tool_calls.protocol import Tool, ToolCall
from art.endpoint.errors import ErrorShapes, RequestError
from art.errors import ForeignOriginError
from art.types import Choice

ROLLOUTS = "/v1/rollouts"
"""The path of the captures that are lent to agents elsewhere."""

_SERVED = ("v1/", "inference/v1/")

_capture: ContextVar[Capture | None] = ContextVar("art_endpoint_capture", default=None)


class SampledTurn(Protocol):
    """A turn of the assistant, as it was sampled. :class:`art.endpoint.turns.Turn` is one."""

    @property
    def token_ids(self) -> Sequence[int]:
        """``[T]``."""
        ...

    @property
    def logprobs(self) -> Sequence[float]:
        """``[T]``, in nats."""
        ...

    @property
    def content(self) -> str:
        """The text, without the stop and without tool calls."""
        ...

    @property
    def reasoning_content(self) -> str | None:
        """The thinking; ``None`` where the model did not think."""
        ...

    @property
    def tool_calls(self) -> Sequence[ToolCall]:
        """The tool calls in order."""
        ...

    @property
    def finish_reason(self) -> str:
        """The reason why the turn ended, in the OpenAI API's words."""
        ...


def record_turns(
    messages: Sequence[Message],
    tools: Sequence[Tool],
    prompt_token_ids: list[int],
    turns: Sequence[SampledTurn],
    template: ChatTemplate,
) -> None:
    """Record the turns of the current request, where it names a capture.

    Args:
        messages: The conversation, in the OpenAI API's form.
        tools: The tools on offer.
        prompt_token_ids: ``[P]``.
        turns: The turns, at least one.
        template: Writes the texts of tokens.
    """
    capture = _capture.get()
    if capture is not None:
        sent: list[Any] = [dict(message) for message in messages]
        offered: list[Any] = [dict(tool) for tool in tools]
        choices = [_choice(turn, prompt_token_ids, template) for turn in turns]
        capture.record(sent, offered or None, choices)


class SampledCompletion(Protocol):
    """A completion of a prompt, as it was sampled. :class:`art.endpoint.sampling.Sample` is one."""

    @property
    def token_ids(self) -> Sequence[int]:
        """``[T]``."""
        ...

    @property
    def logprobs(self) -> Sequence[float]:
        """``[T]``, in nats."""
        ...

    @property
    def text(self) -> str:
        """The text, without the stop."""
        ...

    @property
    def stop_reason(self) -> str:
        """The reason why the completion ended, in the OpenAI API's words."""
        ...


@dataclass(frozen=True, slots=True)
class _PlainTurn:
    """A completion as a turn: its text is content, whatever it says."""

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    content: str
    finish_reason: str
    reasoning_content: str | None = None
    tool_calls: Sequence[ToolCall] = ()


def record_completions(
    prompt_token_ids: Sequence[int],
    completions: Sequence[SampledCompletion],
    template: ChatTemplate,
) -> None:
    """Record the completions of one prompt of the current request, where it names a capture.

    Args:
        prompt_token_ids: ``[P]``.
        completions: The completions, at least one.
        template: Writes the texts of tokens.
    """
    capture = _capture.get()
    if capture is not None:
        prompt = list(prompt_token_ids)
        turns = [
            _PlainTurn(each.token_ids, each.logprobs, each.text, each.stop_reason)
            for each in completions
        ]
        choices = [_choice(turn, prompt, template) for turn in turns]
        capture.record_completion(prompt, choices, template.decode)


def _choice(turn: SampledTurn, prompt_token_ids: list[int], template: ChatTemplate) -> Choice:
    message: dict[str, object] = {"role": "assistant", "content": turn.content}
    if turn.reasoning_content is not None:
        message["reasoning_content"] = turn.reasoning_content
    if turn.tool_calls:
        message["content"] = turn.content or None
        message["tool_calls"] = [
            {
                "id": f"call_{uuid.uuid4().hex[:24]}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in turn.tool_calls
        ]
    logprobs = [
        {"token": template.token_text(token_id), "logprob": logprob, "top_logprobs": []}
        for token_id, logprob in zip(turn.token_ids, turn.logprobs, strict=True)
    ]
    return Choice.model_validate(
        {
            "index": 0,
            "finish_reason": turn.finish_reason,
            "message": message,
            "logprobs": {"content": logprobs},
            "prompt_token_ids": prompt_token_ids,
            "token_ids": list(turn.token_ids),
        }
    )


class CaptureRollouts:
    """ASGI middleware that finds the capture that a request names.

    It comes before the check of the key, and puts the endpoint's own key into requests that bring
    the token of the capture under whose URL they were sent.

    Args:
        app: The application behind it.
        api_key: The endpoint's key.
        loopback: Whether the server listens on loopback alone.
        error_shapes: The shapes of errors.
    """

    def __init__(
        self, app: ASGIApp, *, api_key: str, loopback: bool, error_shapes: ErrorShapes
    ) -> None:
        self._app = app
        self._api_key = api_key
        self._loopback = loopback
        self._error_shapes = error_shapes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token, path = _split(scope["path"])
        token = token or Headers(scope=scope).get(HEADER)
        try:
            capture = None if token is None else self._find(token, scope)
        except (ForeignOriginError, RequestError) as error:
            response = self._error_shapes.response(error, path or scope["path"])
            await response(scope, receive, send)
            return
        if path is not None:
            assert token is not None  # it is a part of the path
            scope = {**scope, "path": path, "raw_path": path.encode()}
            self._exchange_key(scope, token)
        outer = _capture.set(capture)
        try:
            await self._app(scope, receive, send)
        finally:
            _capture.reset(outer)

    def _find(self, token: str, scope: Scope) -> Capture:
        # Nothing is told to another site's page, not even that there is no such rollout.
        check_origin(scope["headers"], loopback=self._loopback)
        capture = CAPTURES.find(token)
        if capture is None:
            raise RequestError(
                404,
                "this rollout is not captured: its trajectory was fetched or deleted, or the "
                "endpoint was started again",
                code="rollout_not_found",
            )
        return capture

    def _exchange_key(self, scope: Scope, token: str) -> None:
        headers = MutableHeaders(raw=list(scope["headers"]))
        _, _, bearer = headers.get("authorization", "").partition(" ")
        if token in (bearer.strip(), headers.get("x-api-key")):
            headers["authorization"] = f"Bearer {self._api_key}"
        scope["headers"] = headers.raw


def _split(path: str) -> tuple[str | None, str | None]:
    """Take the token out of a path under a capture's URL, and the path in the endpoint."""
    if not path.startswith(f"{ROLLOUTS}/"):
        return None, None
    token, _, rest = path.removeprefix(f"{ROLLOUTS}/").partition("/")
    # The paths of rollouts are not there a second time: its token must not open others.
    if not rest.startswith(_SERVED) or f"/{rest}/".startswith(f"{ROLLOUTS}/"):
        return None, None
    return token, f"/{rest}"
