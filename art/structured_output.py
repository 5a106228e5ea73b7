"""Answers of a model as data: a JSON object that fits a schema, asked for until one comes.

Whatever a model or its server does wrong ends in one of two errors: :class:`AnswerError` where
another question may fare better, ``ConfigurationError`` where none will.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from openai import APIError, APIStatusError
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ConfigDict, ValidationError

from art.errors import AnswerError, ConfigurationError
from art.model_providers import AskedModel
from art.types import Messages

logger = logging.getLogger(__name__)

# For schemas: strict mode wants every object closed, and answers with further fields are taken.
CLOSED = ConfigDict(json_schema_extra={"additionalProperties": False})

AnswerT = TypeVar("AnswerT", bound=BaseModel)

# Seconds before the second attempt, doubled for each further one, at most so many.
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
# Nothing of the question causes these, so the next one fails as well.
_HOPELESS = {401, 403, 404}
# Statuses after which the same request can succeed.
_PASSING = {408, 409, 425, 429}


class _PassingError(AnswerError):
    """A failure after which the question is asked again."""


async def ask(
    asked: AskedModel,
    messages: Messages,
    answer_type: type[AnswerT],
    *,
    check: Callable[[AnswerT], None] = lambda _: None,
    timeout: float = 120.0,
    max_retries: int = 2,
    options: Mapping[str, Any] | None = None,
    on_response: Callable[[ChatCompletion], None] = lambda _: None,
) -> AnswerT:
    """Ask a model for an answer that fits a schema.

    The schema goes along as ``response_format``. A server that refuses that is asked without, so
    ``messages`` should say what the answer looks like. Text around the JSON object is ignored.

    Args:
        asked: The model.
        messages: The question.
        answer_type: The schema, as a pydantic model.
        check: Called with an answer that fits; raises ``ValueError`` where it cannot be used.
        timeout: Seconds for one attempt, from the request to the last byte of the answer.
        max_retries: How often to ask again after a timeout, a lost connection, status codes 408,
            409, 425, 429 and 5xx, or an answer that cannot be used.
        options: Further arguments of ``chat.completions.create``.
        on_response: Called with each response, usable or not; it has been paid for.

    Returns:
        The answer.

    Raises:
        art.errors.AnswerError: The last attempt failed too, or the server refused the request.
        art.errors.ConfigurationError: The server refused the key or does not know the model, or
            ``timeout`` or ``max_retries`` is out of range.
    """
    if not timeout > 0 or max_retries < 0:
        raise ConfigurationError(
            f"timeout must be above 0 and max_retries not negative; they are {timeout} and "
            f"{max_retries}"
        )
    from tenacity import (
        AsyncRetrying,
        retry_if_exception_type,
        stop_after_attempt,
        wait_exponential,
        wait_random,
    )

    question = _Question(asked, messages, answer_type, dict(options or {}), timeout)

    async def attempt() -> AnswerT:
        response = await question.send()
        on_response(response)
        return _read(response, answer_type, check)

    retrying = AsyncRetrying(
        stop=stop_after_attempt(max_retries + 1),
        wait=wait_exponential(_FIRST_DELAY, max=_LONGEST_DELAY) + wait_random(0, _FIRST_DELAY),
        retry=retry_if_exception_type(_PassingError),
        before_sleep=lambda state: logger.warning(
            "asking %s again: %s", asked.model, state.outcome and state.outcome.exception()
        ),
        reraise=True,
    )
    return await retrying(attempt)


class _Question:
    """One request, which may be sent several times; without a schema once that is refused."""

    def __init__(
        self,
        asked: AskedModel,
        messages: Messages,
        answer_type: type[BaseModel],
        options: dict[str, Any],
        timeout: float,
    ) -> None:
        self._asked = asked
        self._timeout = timeout
        self._create = asked.client.with_options(
            max_retries=0, timeout=timeout
        ).chat.completions.create
        self._options: dict[str, Any] = {
            "model": asked.model,
            "messages": messages,
            "response_format": _response_format(answer_type),
            **options,
        }

    async def send(self) -> ChatCompletion:
        try:
            # The client's own timeout is one between bytes: a trickle would never end.
            async with asyncio.timeout(self._timeout):
                response: ChatCompletion = await self._create(**self._options)
        except TimeoutError as error:
            raise _PassingError(
                f"{self._asked.model} did not answer within {self._timeout} seconds"
            ) from error
        except APIStatusError as error:
            if self._schema_was_refused(error):
                logger.info("%s takes no response_format: %s", self._asked.model, error)
                del self._options["response_format"]
                return await self.send()
            raise _explain(self._asked.model, error) from error
        except (APIError, ValueError) as error:  # a lost connection; a body that is no JSON
            raise _PassingError(f"asking {self._asked.model} failed: {error!r:.300}") from error
        return response

    def _schema_was_refused(self, error: APIStatusError) -> bool:
        return (
            error.status_code in (400, 422)
            and "response_format" in self._options
            and any(word in error.message for word in ("response_format", "json_schema", "schema"))
        )


def _explain(model: str, error: APIStatusError) -> Exception:
    text = f"{error.request.url} answered {error.status_code} for {model}: {error.message:.300}"
    if error.status_code in _HOPELESS:
        return ConfigurationError(f"{text}. Check the model's name, base_url and the key")
    if error.status_code in _PASSING or error.status_code >= 500:
        return _PassingError(text)
    return AnswerError(text)


def _response_format(answer_type: type[BaseModel]) -> dict[str, Any]:
    schema = answer_type.model_json_schema()
    return {
        "type": "json_schema",
        "json_schema": {"name": answer_type.__name__, "schema": schema, "strict": True},
    }


def _read(
    response: ChatCompletion, answer_type: type[AnswerT], check: Callable[[AnswerT], None]
) -> AnswerT:
    # Not every server sends what the client's types promise.
    choices: Sequence[Any] | None = getattr(response, "choices", None)
    message = getattr(choices[0], "message", None) if choices else None
    content = getattr(message, "content", None)
    if not isinstance(content, str):
        raise _PassingError(f"the answer has no text: {response!r:.300}")
    try:
        answer = answer_type.model_validate(json_object(content))
        check(answer)
    except (ValidationError, ValueError, RecursionError) as error:
        raise _PassingError(
            f"the answer cannot be used: {error!s:.300}. It begins: {content!r:.200}"
        ) from error
    return answer


def json_object(text: str) -> object:
    """Find the JSON object of an answer, whatever stands around it.

    Args:
        text: Such as a fenced block, or an object after a model's reasoning.

    Returns:
        The object that ends last of those that no other contains.

    Raises:
        ValueError: There is none.
    """
    decoder = json.JSONDecoder()
    found: object = None
    position = text.find("{")
    while position >= 0:
        try:
            found, end = decoder.raw_decode(text, position)
        except ValueError:
            end = position + 1
        position = text.find("{", end)
    if found is None:
        raise ValueError("it holds no JSON object")
    return found
