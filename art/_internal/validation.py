"""Pydantic's findings, bounded: alone it makes a record of each wrong element, at hundreds of times
its size.
"""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError
from pydantic_core import PydanticCustomError

T = TypeVar("T")

ShortList = Annotated[list[T], Field(fail_fast=True)]
"""A list that is refused at its first wrong element."""

_MAX_PROBLEMS = 5
_MAX_PROBLEM_CHARACTERS = 200


def count_containers(json: bytes) -> int:
    """Count the arrays and objects of JSON text, and brackets within its strings.

    Each becomes a Python object that the garbage collector goes through, while the event loop
    waits: a mebibyte of ``[[],[],…`` takes as long as a hundred of numbers.
    """
    return json.count(b"[") + json.count(b"{")


def refuse_unknown_fields(fields: object, known: Sequence[str]) -> None:
    """Refuse the fields of an object that are not known, naming the first few.

    For a validator of mode ``before``; ``extra="forbid"`` would make a record of each.

    Raises:
        PydanticCustomError: There are such fields.
    """
    if isinstance(fields, dict) and (unknown := fields.keys() - set(known)):
        names = ", ".join(f"{name:.60}" for name in sorted(map(str, unknown))[:3])
        raise PydanticCustomError(
            "unknown_field", "this server knows no field {names}", {"names": names}
        )


def describe(error: ValidationError) -> str:
    """Pydantic's findings in one line: the first few, shortened."""
    problems = _problems(error)
    shown = [
        f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}"[
            :_MAX_PROBLEM_CHARACTERS
        ]
        for problem in problems[:_MAX_PROBLEMS]
    ]
    more = len(problems) - len(shown)
    return "; ".join([*shown, f"and {more} more"] if more else shown)


def first_field(error: ValidationError) -> str | None:
    """The place of the first finding, such as ``"tools.0.type"``; ``None`` is the whole."""
    return ".".join(map(str, _problems(error)[0]["loc"]))[:_MAX_PROBLEM_CHARACTERS] or None


def _problems(error: ValidationError) -> Sequence[Any]:
    return error.errors(include_url=False, include_context=False, include_input=False)
