"""JSON bodies, read and checked within bounds.

A body is refused by its size before it is read to the end, and parsed in one pass, which takes
less than 100 ms at the largest size. What is wrong with it is reported in a few lines however much
is wrong: pydantic alone makes an error record for each bad element, at hundreds of times its size.
"""

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

from fastapi import Depends, Request
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from art._internal.validation import ShortList as ShortList
from art._internal.validation import count_containers, describe, refuse_unknown_fields
from art.errors import InvalidBodyError, RequestTooLargeError

BodyT = TypeVar("BodyT", bound="Body")

_MAX_CONTAINERS = 20_000

NUMBERS = 10**9
"""The numbers of a session's models and sampling sessions are below it: nine digits, as in the id
of a training run."""

NUMBER = Field(ge=0, lt=NUMBERS)
"""A number of a session's model or sampling session."""


def _check_finite(value: object) -> object:
    """Refuse NaN and infinity anywhere: Python's parsers take them, but JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("NaN and infinity are not JSON")
    if isinstance(value, dict):
        for each in value.values():
            _check_finite(each)
    elif isinstance(value, list):
        for each in value:
            _check_finite(each)
    return value


JsonObject = Annotated[dict[str, object], AfterValidator(_check_finite)]
"""An object of any JSON values."""


class Body(BaseModel):
    """A JSON request body.

    Unknown fields are refused by name, the first few of them. One with a neutral value (``null``,
    ``false``, 0, or empty) asks for nothing and is passed over: the SDK sends the defaults of all
    its fields, and a newer one has more.

    Attributes:
        max_bytes: The largest body.
    """

    model_config = ConfigDict(
        extra="ignore", protected_namespaces=(), frozen=True, allow_inf_nan=False
    )

    max_bytes: ClassVar[int] = 1 << 20

    type: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, fields: object) -> object:
        if isinstance(fields, dict):
            asked = {name: value for name, value in fields.items() if value}
            refuse_unknown_fields(asked, [*cls.model_fields])
        return fields


if TYPE_CHECKING:
    JsonBody = Annotated[BodyT, "read by FastAPI"]
else:

    class JsonBody:
        """The parameter of a route that is its body: ``body: JsonBody[HeartbeatBody]``.

        The route is not called where the body is over its limit
        (:class:`art.errors.RequestTooLargeError`) or is not of its kind
        (:class:`art.errors.InvalidBodyError`).
        """

        def __class_getitem__(cls, kind: type[Body]) -> object:
            return Annotated[kind, Depends(_reader(kind))]


def _reader(kind: type[BodyT]) -> Callable[[Request], Awaitable[BodyT]]:
    async def read(request: Request) -> BodyT:
        data = await _read_within(request, kind.max_bytes)
        if (brackets := count_containers(data)) > _MAX_CONTAINERS:
            raise InvalidBodyError(
                f"the body of {request.method} {request.url.path} has {brackets} opening brackets "
                f"and braces, of {_MAX_CONTAINERS} at most"
            )
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            # Not chained: it holds the whole input.
            raise InvalidBodyError(
                f"{request.method} {request.url.path}: the request is not valid: {describe(error)}"
            ) from None

    return read


async def _read_within(request: Request, max_bytes: int) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > max_bytes:
            raise RequestTooLargeError(
                f"the body of {request.method} {request.url.path} is over {max_bytes} bytes"
            )
    return bytes(data)
