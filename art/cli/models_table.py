"""Output of ``art models``: the table of model families, and the same as JSON."""

import json
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence

from art.errors import ModelSupportPluginWarning
from art.megatron.model_support.minimum_versions import check_versions, installed_version
from art.megatron.model_support.plugins import list_model_support_plugins, source_of
from art.megatron.model_support.registry import list_model_support_specs
from art.megatron.model_support.spec import ModelSupportSpec

_ENGINE = "megatron-core"
_HEADER = ("FAMILY", "MOE", "VLLM LORA", "ENGINE", "MODELS")
_GAP = "  "
# A narrower terminal wraps lines by itself; in a wider one the eye loses its place.
_WIDTHS = (80, 100)


def show_table(*, every_model: bool) -> None:
    """Print the families as a table.

    Args:
        every_model: Name all models of a family, not just the first few.
    """
    engine = installed_version(_ENGINE)
    for line in _lay_out(_specs(), engine, width=_width(), every_model=every_model):
        print(line)
    print()
    if engine is None:
        print(f'engine: {_ENGINE} is not installed: pip install "art-rl[megatron]"')
    else:
        print(f"engine: {_ENGINE} {engine}")
    for plugin in list_model_support_plugins():
        if plugin.spec is not None:
            print(f"{plugin.key} comes from {plugin.distribution}")
    for plugin in list_model_support_plugins():
        if plugin.error is not None:
            print(f"left out: {plugin.error}", file=sys.stderr)


def show_json() -> None:
    """Print the families as one JSON object: ``engine``, ``families`` and ``left_out``."""
    engine = installed_version(_ENGINE)
    families = [_as_json(spec) for spec in _specs()]
    document = {
        "engine": {"distribution": _ENGINE, "installed": engine},
        "families": families,
        "left_out": [
            {"key": plugin.key, "source": plugin.distribution, "reason": str(plugin.error)}
            for plugin in list_model_support_plugins()
            if plugin.error is not None
        ],
    }
    print(json.dumps(document, indent=2))


def _specs() -> list[ModelSupportSpec]:
    with warnings.catch_warnings():
        # Plug-ins that were left out are listed below the table.
        warnings.simplefilter("ignore", ModelSupportPluginWarning)
        return list_model_support_specs()


def _as_json(spec: ModelSupportSpec) -> dict[str, object]:
    return {
        "key": spec.key,
        "source": source_of(spec),
        "model_types": spec.model_types,
        "models": spec.model_names,
        "target_modules": spec.default_target_modules,
        "is_moe": spec.is_moe,
        "native_vllm_lora_status": spec.native_vllm_lora_status,
        "minimum_versions": [
            {
                "distribution": check.distribution,
                "minimum": check.minimum,
                "installed": check.installed,
                "status": check.status,
            }
            for check in check_versions(spec.dependency_floor)
        ],
    }


def _row(spec: ModelSupportSpec, engine: str | None) -> tuple[str, ...]:
    checks = check_versions(spec.dependency_floor)
    return (
        spec.key,
        "yes" if spec.is_moe else "no",
        spec.native_vllm_lora_status,
        "yes" if engine and all(check.status != "below" for check in checks) else "no",
        str(len(spec.model_names)),
    )


def _minimum_versions(spec: ModelSupportSpec) -> list[str]:
    checks = check_versions(spec.dependency_floor)
    # A commit is shown as git shortens it.
    return [f"{check.distribution}>={check.minimum[:10]}" for check in checks] or ["none"]


def _width() -> int:
    low, high = _WIDTHS
    return min(max(shutil.get_terminal_size((high, 24)).columns, low), high)


def _lay_out(
    specs: Sequence[ModelSupportSpec], engine: str | None, *, width: int, every_model: bool
) -> Iterator[str]:
    """Lay out a row of short facts for each family, and below it the long ones, indented."""
    rows = [_HEADER, *(_row(spec, engine) for spec in specs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        _GAP.join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    yield lines[0]
    for spec, line in zip(specs, lines[1:], strict=True):
        yield line
        yield from _wrap("model types", spec.model_types or ["none"], width)
        yield from _wrap("models", spec.model_names, width, in_one_line=not every_model)
        yield from _wrap("target modules", spec.default_target_modules, width)
        yield from _wrap("minimum versions", _minimum_versions(spec), width)


def _wrap(
    label: str, names: Sequence[str], width: int, *, in_one_line: bool = False
) -> Iterator[str]:
    head = f"  {label:<16}  "
    room = width - len(head)
    shown = list(names)
    while in_one_line and len(shown) > 1 and len(_listed(shown, names)) > room:
        shown.pop()
    lines = textwrap.wrap(
        _listed(shown, names), room, break_long_words=False, break_on_hyphens=False
    )
    for line in lines:
        yield head + line
        head = " " * len(head)


def _listed(shown: Sequence[str], names: Sequence[str]) -> str:
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
