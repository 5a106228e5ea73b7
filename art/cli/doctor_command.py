"""``art doctor``."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_DESCRIPTION = """\
Say what this machine has for art and what it lacks: Python, the extras and the command that adds
each, installed versions against those that art needs, GPUs, and whether the Tinker server that
TINKER_BASE_URL and TINKER_API_KEY name can be reached. No engine is imported. Exits with 1 if
something is broken; what is merely not installed is not.
"""

_EXAMPLES = """\
examples:
  art doctor
  TINKER_BASE_URL=http://127.0.0.1:8000 TINKER_API_KEY=tml-… art doctor
"""


def add(commands: "Commands") -> None:
    """Add the command to the parser of ``art``."""
    parser = commands.add_parser(
        "doctor",
        help="say what this machine has for art, and what it lacks",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from art.cli.doctor import show_diagnosis

    return show_diagnosis()
