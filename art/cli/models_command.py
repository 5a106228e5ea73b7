"""``art models`` and ``art models check``."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_DESCRIPTION = """\
List the model families that art's megatron engine knows, its own and those of plug-ins: the model
types of config.json that they read, their published models, the modules that get a LoRA adapter,
whether they have experts (MoE), the state of vLLM's support for their adapters, the minimum
versions that they need, and whether their engine is installed here. No engine is imported.
`art models check KEY` says what a family lacks.
"""

_EXAMPLES = """\
examples:
  art models
  art models --all
  art models --json
  art models check qwen3_dense
"""

_CHECK_DESCRIPTION = """\
Check the spec and the handler of a model family. If the engine is installed, the handler is loaded
and checked too. Exits with 1 if something is missing. For a family that does not exist yet, it says
what to write.
"""

_CHECK_EXAMPLES = """\
examples:
  art models check qwen3_dense
  art models check phi4_dense      not written yet: says what to write
"""


def add(commands: "Commands") -> None:
    """Add the command to the parser of ``art``."""
    parser = commands.add_parser(
        "models",
        help="list the model families of the megatron engine, or check one",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--all", action="store_true", help="name every model of every family")
    form.add_argument("--json", action="store_true", help="write one JSON object, with all models")
    parser.set_defaults(run=_list)
    check = parser.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "check",
        help="check that a family is complete",
        description=_CHECK_DESCRIPTION,
        epilog=_CHECK_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("key", metavar="KEY", help="the family's key, such as qwen3_dense")
    check.set_defaults(run=_check)


def _list(options: argparse.Namespace) -> int:
    from art.cli.models_table import show_json, show_table

    if options.json:
        show_json()
    else:
        show_table(every_model=options.all)
    return 0


def _check(options: argparse.Namespace) -> int:
    from art.cli.models_check import show_check

    return show_check(options.key)
