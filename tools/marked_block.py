"""The text between two comments of a Markdown page, made by a program and checked to be fresh.

A block is everything between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


class BlockError(ValueError):
    """A page that has no such block, or a source from which it cannot be made."""


def replace_block(page: str, name: str, content: str) -> str:
    """Replace the content of one block.

    Args:
        page: The text of the page.
        name: The block's name.
        content: The lines to put between its two comments.

    Returns:
        The page with the new block.

    Raises:
        BlockError: The page has not exactly one such block.
    """
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    if (page.count(begin), page.count(end)) != (1, 1) or page.index(begin) > page.index(end):
        raise BlockError(f"the page needs one line `{begin.strip()}` and below it one `{end}`")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{content.strip()}\n\n{end}{after}"


def check_or_write(page: Path, name: str, content: Callable[[], str], *, write: bool) -> int:
    """Compare a block with what it should be, or make it so.

    Args:
        page: The file of the page.
        name: The block's name.
        content: Makes the content.
        write: Whether to write the page where it differs.

    Returns:
        The exit status: 1 if the block cannot be made, or is stale and was not written.
    """
    try:
        old = page.read_text(encoding="utf-8")
        new = replace_block(old, name, content())
    except (BlockError, OSError) as error:
        sys.stderr.write(f"{page}: {error}\n")
        return 1
    if new == old:
        return 0
    if write:
        page.write_text(new, encoding="utf-8")
        sys.stderr.write(f"{page}: {name} written\n")
        return 0
    line = old[: old.index(f"<!-- {name}:begin -->")].count("\n") + 1
    sys.stderr.write(f"{page}:{line}: the block {name} is stale: run `make tables`\n")
    return 1


def add_mode(parser: argparse.ArgumentParser) -> None:
    """Add ``--check`` and ``--write``, of which one must be given."""
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="fail where the page is stale")
    mode.add_argument("--write", action="store_true", help="bring the page up to date")
