"""A check of a model family: its parts, each present or missing."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final, Literal

from art._lazy import read_stub
from art.errors import (
    ArtError,
    DependencyFloorError,
    MissingExtraError,
    ModelSupportPluginError,
)

from . import handlers
from .families import DEFAULT_DENSE_SPEC, VALIDATED_MODEL_SUPPORT_SPECS
from .minimum_versions import check_versions
from .plugins import list_model_support_plugins, source_of
from .protocol import ModelSupportHandler
from .registry import get_model_support_handler_for_spec, get_model_support_spec
from .spec import ModelSupportSpec, Record

Status = Literal["ok", "missing", "unchecked"]

_HANDLERS = handlers.__name__


class Finding(Record):
    """The outcome of one check.

    Args:
        subject: The part that was checked, such as ``"stub line"``.
        status: ``"unchecked"`` if this machine lacks what the check needs.
        detail: A description of the part, or the remedy.
    """

    __slots__ = ("subject", "status", "detail")

    def __init__(self, *, subject: str, status: Status, detail: str) -> None:
        self.subject: Final = subject
        self.status: Final[Status] = status
        self.detail: Final = detail


def check_family(key: str) -> list[Finding]:
    """Check every part that a family must have.

    Args:
        key: The family's key. It need not exist yet.

    Returns:
        The findings, in the order in which to fix them. The handler is loaded, which imports
        torch and megatron, if its engine is installed.
    """
    for plugin in list_model_support_plugins():
        if plugin.key == key and plugin.error is not None:
            return [_finding("spec", False, "", str(plugin.error))]
    spec = _find_spec(key)
    if spec is None:
        return list(_check_unwritten(key))
    findings = [_finding("spec", True, f"{source_of(spec)} has it", "")]
    findings += _check_data(spec)
    findings += _check_address(spec)
    findings += _check_minimum_versions(spec)
    if all(finding.status != "missing" for finding in findings):
        findings += _check_handler(spec)
    return findings


def _find_spec(key: str) -> ModelSupportSpec | None:
    built_in = (DEFAULT_DENSE_SPEC, *VALIDATED_MODEL_SUPPORT_SPECS)
    added = [plugin.spec for plugin in list_model_support_plugins() if plugin.spec is not None]
    return next((spec for spec in (*built_in, *added) if spec.key == key), None)


def _finding(subject: str, holds: bool, description: str, remedy: str) -> Finding:
    return Finding(
        subject=subject,
        status="ok" if holds else "missing",
        detail=description if holds else remedy,
    )


def _check_unwritten(key: str) -> Iterator[Finding]:
    """Check a family without a spec: the three parts of one inside the project."""
    name = f"{key.upper()}_HANDLER"
    yield _finding(
        "spec",
        False,
        "",
        f"write {key.upper()}_SPEC in model_support/families.py, or in another distribution with "
        'an entry point of the group "art.model_support"',
    )
    yield _finding(
        "handler file",
        key.isidentifier() and find_spec(f"{_HANDLERS}.{key}") is not None,
        f"handlers/{key}.py",
        f"write handlers/{key}.py with a subclass of FamilyHandler, and {name} of it",
    )
    yield _finding(
        "stub line",
        name in read_stub(handlers),
        name,
        f"write `from .{key} import {name} as {name}` in handlers/__init__.pyi",
    )


def _check_data(spec: ModelSupportSpec) -> Iterator[Finding]:
    yield _finding(
        "model types",
        bool(spec.model_types),
        ", ".join(spec.model_types),
        "give the spec model_types, the `model_type`s of config.json that its handler reads",
    )
    names = spec.model_names
    lost = [name for name in names if get_model_support_spec(name) is not spec]
    malformed = [name for name in names if name.count("/") != 1]
    yield _finding(
        "model names",
        (bool(names) or spec is DEFAULT_DENSE_SPEC) and not lost and not malformed,
        f"{len(names)} registered" if names else "for models that no family is registered for",
        f"not of the form owner/name: {malformed}"
        if malformed
        else f"another family has {lost}"
        if lost
        else "give the spec model_names",
    )
    yield _finding(
        "target modules",
        bool(spec.default_target_modules)
        and ("experts" in spec.default_target_modules) is spec.is_moe,
        ", ".join(spec.default_target_modules),
        '"experts" must be in default_target_modules if and only if the handler\'s meta is_moe',
    )


def _check_address(spec: ModelSupportSpec) -> Iterator[Finding]:
    """Check that the handler's address leads to a module, without importing it."""
    address = spec.handler.handler_name
    module, colon, _ = address.partition(":")
    if colon:
        yield _finding(
            "handler module", _exists(module), module, f"there is no module {module!r} to import"
        )
        return
    exported = read_stub(handlers)
    yield _finding(
        "stub line",
        address in exported,
        f"{address} from .{exported.get(address)}",
        f"write `from .{spec.key} import {address} as {address}` in handlers/__init__.pyi",
    )
    home = exported.get(address, spec.key)
    yield _finding(
        "handler file",
        _exists(f"{_HANDLERS}.{home}"),
        f"handlers/{home}.py",
        f"write handlers/{home}.py with a subclass of FamilyHandler, and {address} of it",
    )


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # a parent is absent, or is not a package
        return False


def _check_minimum_versions(spec: ModelSupportSpec) -> Iterator[Finding]:
    subject = "minimum version"
    for check in check_versions(spec.dependency_floor):
        wanted = f"{check.distribution}>={check.minimum}"
        if check.status == "below":
            yield _finding(subject, False, "", f"{wanted}, but {check.installed} is installed")
        elif check.status == "satisfied":
            yield _finding(subject, True, f"{wanted}: {check.installed} is installed", "")
        else:
            reason = "it is not installed" if check.status == "absent" else "a commit has no order"
            detail = f"{wanted} cannot be checked here: {reason}"
            yield Finding(subject=subject, status="unchecked", detail=detail)


def _check_handler(spec: ModelSupportSpec) -> Iterator[Finding]:
    try:
        handler: object = get_model_support_handler_for_spec(spec)
    except MissingExtraError as error:
        yield Finding(subject="handler", status="unchecked", detail=str(error))
        return
    except (ModelSupportPluginError, DependencyFloorError) as error:
        yield _finding("handler", False, "", str(error))
        yield from _check_members(_unchecked_handler(spec))
        return
    except (ArtError, ImportError) as error:
        yield _finding("handler", False, "", f"{type(error).__name__}: {error}")
        return
    yield _finding("handler", True, f"{type(handler).__name__} loads", "")
    yield _finding(
        "handler meta",
        getattr(handler, "meta", None) == spec.handler,
        "is the spec's",
        "set `spec = YOUR_SPEC` in the subclass of FamilyHandler",
    )
    yield from _check_members(handler)


def _unchecked_handler(spec: ModelSupportSpec) -> object:
    """Load a plug-in's handler that was refused, to list what it lacks; ``None`` if absent."""
    from importlib import import_module

    module, _, name = spec.handler.handler_name.partition(":")
    try:
        return getattr(import_module(module), name, None)
    except Exception:  # noqa: BLE001 - the reason is in the finding before this one
        return None


def _check_members(handler: object) -> Iterator[Finding]:
    if handler is None:
        return
    members = [name for name in vars(ModelSupportHandler) if not name.startswith("_")]
    absent = [name for name in members if not hasattr(handler, name)]
    yield _finding(
        "handler members",
        not absent,
        f"all {len(members)} of ModelSupportHandler",
        f"{type(handler).__name__} has no {', '.join(absent)}; FamilyHandler has them",
    )
