"""The fields of request bodies: honoured, accepted at neutral values, without effect, unknown.

Each body lists all the fields of its dialect that are known; docs/endpoint.md has them in a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from art.endpoint.errors import RequestError

Neutral = Mapping[str, tuple[object, ...]]
"""Fields, each with the values that ask for what happens anyway."""

_MAX_IGNORED = 20
_MAX_NAME = 60


@dataclass(slots=True)
class FieldPolicy:
    """The treatment of one request's unknown fields.

    Attributes:
        strict: Whether they are refused.
        ignored: The names of those that were ignored, where they are not.
    """

    strict: bool = False
    ignored: list[str] = field(default_factory=list)

    def unknown(self, name: str) -> None:
        """Take note of an unknown field.

        Raises:
            RequestError: Unknown fields are refused (400).
        """
        shown = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "?" for c in name)
        shown = shown[:_MAX_NAME]
        if self.strict:
            raise RequestError(
                400,
                f"this server knows no field {shown}; leave it out",
                code="unknown_parameter",
                param=shown,
            )
        if len(self.ignored) < _MAX_IGNORED:
            self.ignored.append(shown)


class RequestBody(BaseModel):
    """A JSON object of a request. The attributes of a subclass are the fields that are honoured.

    Unknown fields are ignored, and their names kept in the validation's :class:`FieldPolicy`.

    Attributes:
        NEUTRAL: Fields that are accepted at these values alone, which ask for what happens anyway,
            and at ``null``.
        NO_EFFECT: Fields that are accepted at any value: they label a request, or hint at speed.
        PLACE: What precedes the names of its fields, such as ``"stream_options."``.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    NEUTRAL: ClassVar[Neutral] = {}
    NO_EFFECT: ClassVar[frozenset[str]] = frozenset()
    PLACE: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _sort_fields(cls, fields: object, info: ValidationInfo) -> object:
        if not isinstance(fields, dict):
            return fields
        honoured = cls.honoured_fields()
        for name, value in fields.items():
            if name in honoured or name in cls.NO_EFFECT:
                continue
            if name in cls.NEUTRAL:
                _check_neutral(cls.PLACE + name, value, cls.NEUTRAL[name])
            elif isinstance(info.context, FieldPolicy):
                info.context.unknown(cls.PLACE + name)
        return fields

    @classmethod
    def honoured_fields(cls) -> frozenset[str]:
        """The names of the fields that are honoured, as they stand in JSON."""
        return frozenset(each.alias or name for name, each in cls.model_fields.items())


def _check_neutral(name: str, value: object, neutral: tuple[object, ...]) -> None:
    same = (value == each and isinstance(value, bool) is isinstance(each, bool) for each in neutral)
    if value is not None and not any(same):
        accepted = " or ".join(map(repr, neutral)) or "null"
        raise RequestError(
            400,
            f"{name} cannot be honoured here: it may be {accepted}, or left out",
            code="unsupported_value",
            param=name,
        )


def _whole(value: object) -> object:
    """Convert a float without a fraction, as some clients write whole numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_whole)
"""Marks an integer that may be written as ``16.0``."""

Count = Annotated[int, Whole, Field(ge=1, lt=2**31)]
Number = Annotated[float, Field(allow_inf_nan=False)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
JsonObject = dict[str, Any]
