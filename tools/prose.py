"""Words of docstrings, held to those of the field: ``python -m tools.prose``.

A summary is a noun phrase or an imperative, and :data:`WORDS` lists words of our own with the
field's. CONTRIBUTING.md shows that list.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tools.marked_block import add_mode, check_or_write

ROOT = Path(__file__).parents[1]
FOLDERS = ("art", "tools")


class Word(NamedTuple):
    """A word that is not used here.

    Attributes:
        pattern: A regular expression for its forms, matched as whole words in any case.
        shown: The word in CONTRIBUTING.md's table.
        instead: The field's word.
        allowed_in: Folders where the word has its own meaning.
    """

    pattern: str
    shown: str
    instead: str
    allowed_in: tuple[str, ...] = ()


WORDS = (
    Word("archives?", "archive", "training runs", ("tools",)),
    Word("cho(ose|oses|osing|sen) of", "choose of", "choose one of"),
    Word("is dear|are dear", "is dear", "takes long; costs much"),
    Word("floors?", "floor", "minimum version"),
    # The gate of a gated MLP or of attention is the field's word.
    Word("gates?", "gate", "middleware", ("art/executors", "art/megatron")),
    Word("go(es)? before", "goes before", "takes precedence over; precedes"),
    Word("grids?", "grid", "mesh"),
    Word("no more(?! than)", "no more", "no longer"),
    Word("shar(e|es|ed|ing) out", "shared out", "sharded"),
    Word("statuses", "statuses", "status codes"),
)
_QUESTION = re.compile(
    r"(how|if|that|what|when|where|whether|which|who|whom|whose|why)\b", re.IGNORECASE
)
# Code is not prose: spans of it, also with a role in front.
_CODE = re.compile(r"(:\w+:)?`+[^`]+`+")


class Fault(NamedTuple):
    """A fault in a docstring, with its place."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def check_source(path: Path, text: str) -> Iterator[Fault]:
    """Yield the faults in the docstrings of one module.

    Args:
        path: Its file, relative to the repository.
        text: Its source.
    """
    for node in ast.walk(ast.parse(text)):
        match node:
            # Also the string below an attribute, which editors show as its docstring.
            case ast.Expr(value=ast.Constant(value=str(docstring))):
                for offset, message in _faults(path, docstring):
                    yield Fault(path, node.lineno + docstring.count("\n", 0, offset), message)


def _faults(path: Path, docstring: str) -> Iterator[tuple[int, str]]:
    if match := _QUESTION.match(docstring.lstrip()):
        yield 0, f"a summary is a noun phrase or an imperative: it cannot begin with `{match[0]}`"
    prose = _CODE.sub(lambda code: re.sub(r"[^\n]", "`", code[0]), docstring)
    for word in WORDS:
        if any(path.is_relative_to(folder) for folder in word.allowed_in):
            continue
        pattern = word.pattern.replace(" ", r"\s+")
        for match in re.finditer(rf"\b(?:{pattern})(?!\w)", prose, re.IGNORECASE):
            said = " ".join(match[0].split())
            yield match.start(), f"`{said}`: the field's word is `{word.instead}`"


def table() -> str:
    """Make CONTRIBUTING.md's table of words."""
    rows = [f"| {word.shown} | {word.instead} |" for word in WORDS]
    return "\n".join(["| not | but |", "|---|---|", *rows])


def main(arguments: list[str] | None = None) -> int:
    """Check the docstrings and the table, or write the table; 1 if there is a fault."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.prose",
        description="Hold docstrings to the field's words, and CONTRIBUTING.md to their list.",
        epilog="example: python -m tools.prose --check",
    )
    add_mode(parser)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: this)")
    options = parser.parse_args(arguments)
    root: Path = options.root
    status = check_or_write(root / "CONTRIBUTING.md", "words", table, write=options.write)
    if options.write:
        return status
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for fault in sorted(check_source(path.relative_to(root), source)):
            sys.stderr.write(f"{fault}\n")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
