"""``art imports``."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_DESCRIPTION = """\
Show the lazy packages of art as a tree: which modules are loaded after a line of code, and what
touching a name of each of the others would load, in milliseconds, modules and packages. Every
time is that of a fresh process.
"""

_EXAMPLES = """\
examples:
  art imports
  art imports art.tinker art.rl
  art imports --after "from art.tinker import TinkerBackend; TinkerBackend()"
"""


def add(commands: "Commands") -> None:
    """Add the command to the parser of ``art``."""
    parser = commands.add_parser(
        "imports",
        help="show what is loaded, and what each name would load",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "packages", nargs="*", metavar="PACKAGE", help="lazy packages to show (default: all)"
    )
    parser.add_argument(
        "--after",
        default="import art",
        metavar="CODE",
        help="run this line, then say what is loaded (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="write a JSON line for each module")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from art.cli.import_tree import show

    show(options.packages, after=options.after, as_json=options.json)
