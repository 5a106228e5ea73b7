"""The JSON body of a request, read and checked within bounds."""

from typing import TypeVar

from fastapi import Request
from pydantic import ValidationError

from art._internal.validation import count_containers, describe, first_field
from art.endpoint.errors import RequestError
from art.endpoint.fields import FieldPolicy, RequestBody

MAX_BODY_BYTES = 16 << 20
"""The largest body. A million tokens of text are a third of it."""

_MAX_CONTAINERS = 100_000

BodyT = TypeVar("BodyT", bound=RequestBody)


async def read_body(request: Request, kind: type[BodyT], *, strict: bool = False) -> BodyT:
    """Read a request's body. The names of ignored fields go to ``request.state.ignored_fields``.

    Args:
        request: The request.
        kind: What its body must be.
        strict: Whether unknown fields are refused.

    Returns:
        The body.

    Raises:
        RequestError: It is larger than :data:`MAX_BODY_BYTES` (413), is no JSON, has half of a
            surrogate pair, is nested too deeply, has too many brackets, or is not of its kind
            (400).
    """
    data = await _read_within(request)
    if (brackets := count_containers(data)) > _MAX_CONTAINERS:
        raise RequestError(
            400,
            f"the body has {brackets} opening brackets and braces, of {_MAX_CONTAINERS} at most; "
            "shorten the messages",
        )
    policy = FieldPolicy(strict)
    try:
        body = kind.model_validate_json(data, context=policy)
    except ValidationError as error:
        # Not chained: it holds the whole input.
        raise RequestError(400, describe(error), param=first_field(error)) from None
    request.state.ignored_fields = policy.ignored
    return body


async def _read_within(request: Request) -> bytes:
    stated = request.headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and int(stated[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(data)


def _too_large() -> RequestError:
    return RequestError(
        413,
        f"the body is over {MAX_BODY_BYTES} bytes; shorten the messages",
        code="request_too_large",
    )
