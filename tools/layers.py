"""The README's table of layers, made from the import contracts: ``python -m tools.layers``."""

import argparse
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import NamedTuple

from tools.marked_block import BlockError, add_mode, check_or_write

ROOT = Path(__file__).parents[1]
_CONTRACT = "importlinter:contract:"


class Contracts(NamedTuple):
    """The contents of ``.importlinter``.

    Attributes:
        layers: The packages and modules of each layer below ``art``, the top layer first.
        meanings: A line about each of them.
        rules: The names of the contracts other than that of the layers.
    """

    layers: tuple[tuple[str, ...], ...]
    meanings: dict[str, str]
    rules: tuple[str, ...]


def read_contracts(path: Path) -> Contracts:
    """Read the contracts of import-linter.

    Args:
        path: The file, ``.importlinter``.

    Raises:
        BlockError: There is not exactly one contract with the container ``art``, or it is not
            exhaustive.
    """
    parser = ConfigParser()
    parser.read_string(path.read_text(encoding="utf-8"), str(path))
    contracts = [parser[name] for name in parser.sections() if name.startswith(_CONTRACT)]
    of_layers = [each for each in contracts if each.get("containers") == "art"]
    if len(of_layers) != 1 or not of_layers[0].getboolean("exhaustive"):
        raise BlockError(f"{path} needs one contract of the layers of art, and that exhaustive")
    lines = of_layers[0]["layers"].split("\n")
    return Contracts(
        layers=tuple(
            tuple(name.strip(" ()") for name in line.replace(":", "|").split("|"))
            for line in lines
            if line.strip()
        ),
        meanings=dict(parser["packages"]),
        rules=tuple(each["name"] for each in contracts if each is not of_layers[0]),
    )


def table(contracts: Contracts, package: Path) -> str:
    """Make the table: one row for each package that exists, then the other contracts.

    Args:
        contracts: What ``.importlinter`` says.
        package: The folder of ``art``.

    Raises:
        BlockError: A package has no meaning, or a meaning no package.
    """
    existing = [
        [name for name in layer if _exists(package, name)] for layer in reversed(contracts.layers)
    ]
    _compare({name for layer in existing for name in layer}, contracts)
    rows = [
        f"| {number if name == layer[0] else ''} | `art.{name}` | {contracts.meanings[name]} |"
        for number, layer in reversed([*enumerate(existing, start=1)])
        for name in layer
    ]
    rules = [f"- {rule}" for rule in contracts.rules]
    head = ["| layer | package | what it is |", "|---|---|---|"]
    return "\n".join([*head, *rows, "", "Beyond the layers:", "", *rules])


def _compare(existing: set[str], contracts: Contracts) -> None:
    known = {name for layer in contracts.layers for name in layer}
    if missing := sorted(existing - contracts.meanings.keys()):
        raise BlockError(f"[packages] in .importlinter says nothing about {', '.join(missing)}")
    if unknown := sorted(contracts.meanings.keys() - known):
        raise BlockError(f"no layer in .importlinter has {', '.join(unknown)} of its [packages]")


def _exists(package: Path, name: str) -> bool:
    return (package / f"{name}.py").is_file() or (package / name / "__init__.py").is_file()


def main(arguments: list[str] | None = None) -> int:
    """Check or write the table; 1 if it is stale."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.layers",
        description="Hold the README's table of layers to the import contracts.",
        epilog="example: python -m tools.layers --write",
    )
    add_mode(parser)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: this)")
    options = parser.parse_args(arguments)
    root: Path = options.root
    return check_or_write(
        root / "README.md",
        "layers",
        lambda: table(read_contracts(root / ".importlinter"), root / "art"),
        write=options.write,
    )


if __name__ == "__main__":
    sys.exit(main())
