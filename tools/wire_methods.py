"""The SDK's public methods and their state at ``art serve``: ``python -m tools.wire_methods``.

tools/wire_methods.toml has the states. docs/wire-methods.md shows them for each public method of
the SDK's clients, as the installed SDK has them: one that is missing, or no longer there, is an
error.
"""

import argparse
import inspect
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from tools.marked_block import BlockError, add_mode, check_or_write

ROOT = Path(__file__).parents[1]
STATES = Path(__file__).with_suffix(".toml")
CLIENTS = ("ServiceClient", "TrainingClient", "SamplingClient", "RestClient", "AdminClient")

State = Literal["served", "local", "refused"]
_STATES: tuple[State, ...] = ("served", "local", "refused")
_TWIN = "_async"


@dataclass(frozen=True, slots=True)
class Method:
    """A public method of one of the SDK's clients.

    Attributes:
        name: Such as ``"RestClient.get_session"``.
        has_twin: Whether there is one of the same name with ``_async`` behind it.
        state: What becomes of a call.
        detail: The test of a served one, the reason of a local one, the message of a refusal.
        note: What differs from the hosted service.
    """

    name: str
    has_twin: bool
    state: State
    detail: str
    note: str = ""

    @property
    def count(self) -> int:
        """One, or two with the twin."""
        return 1 + self.has_twin


def public_methods(client: str) -> set[str]:
    """The names of the public methods of a client, in the installed SDK; no properties."""
    import tinker

    kind = getattr(tinker, client)
    return {
        name
        for name in dir(kind)
        if not name.startswith("_")
        and callable(getattr(kind, name))
        and not isinstance(inspect.getattr_static(kind, name), property)
    }


@cache
def read_methods(states: Path = STATES) -> tuple[Method, ...]:
    """Every public method of the SDK's clients, with its state.

    Raises:
        BlockError: A method has no state, a state has no method, or is of another form.
    """
    table = tomllib.loads(states.read_text(encoding="utf-8"))
    methods = []
    for client in CLIENTS:
        public = public_methods(client)
        names = {name for name in public if name.removesuffix(_TWIN) not in public - {name}}
        stated = table.get(client, {})
        if names != stated.keys():
            raise BlockError(
                f"{states.name} and the SDK differ in {client}: "
                f"{', '.join(sorted(names ^ stated.keys()))}"
            )
        methods += [
            _method(f"{client}.{name}", f"{name}{_TWIN}" in public, stated[name])
            for name in sorted(names)
        ]
    return tuple(methods)


def _method(name: str, has_twin: bool, fields: dict[str, str]) -> Method:
    found = [state for state in _STATES if state in fields]
    if len(found) != 1 or fields.keys() - {found[0], "note"}:
        raise BlockError(f"{name} must have one of {', '.join(_STATES)}, and at most a note")
    return Method(name, has_twin, found[0], fields[found[0]], fields.get("note", ""))


def table(methods: tuple[Method, ...]) -> str:
    """The page's block: a count, and a table for each client."""
    counts = {
        state: sum(method.count for method in methods if method.state == state) for state in _STATES
    }
    total = sum(counts.values())
    lines = [
        f"Of {total} methods, {counts['served']} are served, {counts['local']} are answered by the "
        f"SDK itself, and {counts['refused']} are refused.",
    ]
    for client in CLIENTS:
        lines += ["", f"### {client}", "", "| method | state | shown by, or the message |"]
        lines += ["|---|---|---|"]
        lines += [_row(method) for method in methods if method.name.startswith(f"{client}.")]
    return "\n".join(lines)


def _row(method: Method) -> str:
    name = method.name.partition(".")[2]
    names = f"`{name}`, `{name}{_TWIN}`" if method.has_twin else f"`{name}`"
    state = f"{method.state}: {method.note}" if method.note else method.state
    detail = method.detail if method.state == "local" else f"`{method.detail}`"
    return f"| {names} | {state} | {detail} |"


def main(arguments: list[str] | None = None) -> int:
    """Check or write the page; 1 if it is stale."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.wire_methods",
        description="Hold docs/wire-methods.md to the SDK's public methods.",
        epilog="example: python -m tools.wire_methods --write",
    )
    add_mode(parser)
    options = parser.parse_args(arguments)
    return check_or_write(
        ROOT / "docs" / "wire-methods.md",
        "wire-methods",
        lambda: table(read_methods()),
        write=options.write,
    )


if __name__ == "__main__":
    sys.exit(main())
