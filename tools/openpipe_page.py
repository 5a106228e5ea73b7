"""The tables of docs/from-openpipe-art.md: ``python -m tools.openpipe_page``.

ART's names are in ``tools/openpipe_names.json``, refusals and their reasons where art itself reads
them (``art/_internal/refused_names.py``), what is better here in ``tools/openpipe_better.toml``.
"""

import argparse
import json
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from art._internal.refused_names import REFUSED_OPTIONS, find_way
from tools.marked_block import add_mode, check_or_write

ROOT = Path(__file__).parents[1]
NAMES = ROOT / "tools" / "openpipe_names.json"
BETTER = ROOT / "tools" / "openpipe_better.toml"
PAGE = ROOT / "docs" / "from-openpipe-art.md"


class Row(NamedTuple):
    """The verdict on a name.

    Attributes:
        name: The full name in ART.
        parameters: The parameters of its call there; ``None`` where it has none.
        verdict: ``"same"``, ``"better"`` or ``"refused"``.
        note: What is better, or the reason and the way.
    """

    name: str
    parameters: list[str] | None
    verdict: str
    note: str


def rows() -> list[Row]:
    """Make a row for each of ART's names."""
    better: dict[str, str] = tomllib.loads(BETTER.read_text(encoding="utf-8"))
    names: dict[str, list[str] | None] = json.loads(NAMES.read_text(encoding="utf-8"))["names"]
    result = []
    for name, parameters in names.items():
        if way := find_way(name):
            result.append(Row(name, parameters, "refused", way))
        else:
            note = better.get(name, "")
            result.append(Row(name, parameters, "better" if note else "same", note))
    return result


def tables() -> str:
    """Make the tables: the counts, each name, and the options that are refused."""
    version = json.loads(NAMES.read_text(encoding="utf-8"))["version"]
    made = rows()
    counts = Counter(row.verdict for row in made)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("same", "better", "refused"))
    lines = [
        f"Of {len(made)} names of openpipe-art {version}: {told}.",
        "",
        "| name in ART | here | |",
        "|---|---|---|",
    ]
    for row in made:
        name = row.name if row.name.startswith("`") else f"`{row.name}`"
        lines.append(f"| {name} | {row.verdict} | {row.note} |")
    lines += [
        "",
        "Options that are refused, unless they have the value that ART gives them:",
        "",
        "| call | option | the way |",
        "|---|---|---|",
    ]
    for call, options in REFUSED_OPTIONS.items():
        lines += [f"| `{call}` | `{name}` | {way} |" for name, (_, way) in sorted(options.items())]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Check or write the tables; 1 if they are stale."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.openpipe_page",
        description="Hold docs/from-openpipe-art.md to ART's names.",
        epilog="example: python -m tools.openpipe_page --write",
    )
    add_mode(parser)
    options = parser.parse_args(arguments)
    return check_or_write(PAGE, "names", tables, write=options.write)


if __name__ == "__main__":
    sys.exit(main())
