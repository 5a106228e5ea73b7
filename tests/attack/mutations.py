"""Valid JSON made invalid: values of wrong types, sizes and forms, and broken texts.

All choices come from the generator that is handed in, so that a seed makes the same again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | Raw | None"


class Raw(str):
    """Text that stands in JSON as it is, valid or not."""

    __slots__ = ()


class Pairs(dict[str, Json]):
    """An object whose first key stands in it twice."""


# Over the largest body, and no more: what is repeated may be repeated again.
_LARGEST = 3 << 20
_NUMBERS = (
    *("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e-400", "-0", "-0.0", "0.1", "-1", "0"),
    *("1.0", "1e3", "2147483648", "-2147483649", "9007199254740993", "9223372036854775807"),
    *("9223372036854775808", "-9223372036854775809", "18446744073709551616", "1" + "0" * 400),
    *("9" * 5000, "01", "+1", "0x10", "1_000", ".5", "5.", "1e", "--1"),
)
_TEXTS = (
    *("", " ", "\x00", "\ud800", "\udfff\ud800", "a\ud83d", "é", "\U0001f600", "\u202e", "\ufffe"),
    *("../../etc/passwd", "/", "..", "a" * 129, "a:train:0", "tinker://", "tinker://a/b/c"),
    *("tinker://a:train:0/weights/..", "{{7*7}}", "%s%n", "nan", "null", "1", "\r\nX-Y: z", "~"),
)


def mutated(value: Json, rng: Random, *, most: int = 3) -> Json:
    """A value with one or a few changes, somewhere in it."""
    for _ in range(rng.randint(1, most)):
        value = _changed(value, rng)
    return value


def junk(rng: Random) -> Json:
    """A value that fits nowhere, of any type."""
    choices: tuple[Callable[[], Json], ...] = (
        lambda: Raw(rng.choice(_NUMBERS)),
        lambda: rng.choice(_TEXTS),
        lambda: rng.choice((None, True, False)),
        lambda: rng.choice(([], {}, [[]], [None], {"": None}, [{}])),
        lambda: rng.choice("aé\ud800\x00") * rng.choice((200, 5_000, 60_000)),
        lambda: nested(rng),
        lambda: [rng.choice((1, None, "x", [], {}))] * rng.choice((50, 3_000, 30_000)),
        lambda: {f"k{index}": index for index in range(rng.choice((3, 300, 5_000)))},
        lambda: rng.randint(-(2**70), 2**70),
        lambda: rng.uniform(-1e9, 1e9),
    )
    weights = (8, 8, 4, 4, 2, 2, 1, 1, 4, 4)
    return rng.choices(choices, weights)[0]()


def nested(rng: Random) -> Raw:
    """Deep nesting, closed or not."""
    depth = rng.choice((10, 100, 190, 260, 2_000, 50_000))
    opened, closed = rng.choice((("[", "]"), ('{"a":', "}")))
    inner = "1" if opened != "[" else ""
    return Raw(opened * depth + inner + closed * (depth if rng.random() < 0.8 else depth - 1))


def text_of(value: Json) -> str:
    """Write JSON; lone surrogates are escaped."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Mapping):
        items = list(value.items())
        if isinstance(value, Pairs):
            items += items[:1]
        return "{" + ",".join(f"{json.dumps(key)}:{text_of(each)}" for key, each in items) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(text_of, value)) + "]"
    return json.dumps(value)


def broken(data: bytes, rng: Random) -> bytes:
    """Break the bytes of a text: invalid UTF-8, a part missing, doubled or changed."""
    if not data:
        return bytes(rng.randbytes(rng.randint(1, 40)))
    at, length = rng.randrange(len(data)), rng.choice((1, 1, 4, 100))
    choices: tuple[Callable[[], bytes], ...] = (
        lambda: data[:at],
        lambda: data[:at] + data[at + length :],
        lambda: data[: at + length] + data[at:],
        lambda: data[:at] + rng.randbytes(length) + data[at + length :],
        lambda: (
            data[:at] + rng.choice((b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\x00")) + data[at:]
        ),
        lambda: data + rng.choice((b"x", b"{}", b"\x00", b" " * 5000, b"\n")),
        lambda: rng.choice((b"\xef\xbb\xbf", b" " * 1000, b"//x\n", b"\xff\xfe")) + data,
        lambda: data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-32"))),
        lambda: rng.randbytes(rng.choice((1, 10, 1000))),
        lambda: b"",
    )
    return rng.choice(choices)()


def _changed(value: Json, rng: Random) -> Json:
    if isinstance(value, Mapping) and value and rng.random() < 0.9:
        return _changed_object(dict(value), rng)
    if isinstance(value, list) and value and rng.random() < 0.8:
        return _changed_list(list(value), rng)
    return junk(rng)


def _changed_object(value: dict[str, Json], rng: Random) -> Json:
    key = rng.choice(list(value))
    match rng.randrange(10):
        case 0:
            del value[key]
        case 1:
            value[rng.choice((*_TEXTS, "extra", key + "x"))] = junk(rng)
        case 2:
            return Pairs({key: value[key], **value})
        case 3:
            value[key.upper() + "_"] = value.pop(key)
        case _:
            value[key] = _changed(value[key], rng)
    return value


def _changed_list(value: list[Json], rng: Random) -> Json:
    index = rng.randrange(len(value))
    match rng.randrange(5):
        case 0:
            del value[index]
        case 1:
            value.insert(index, junk(rng))
        case 2:
            times = rng.choice((2, 50, 2_000))
            value *= max(1, min(times, _LARGEST // len(text_of(value))))
        case _:
            value[index] = _changed(value[index], rng)
    return value
