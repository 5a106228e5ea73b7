"""Model families of other distributions, found by the entry point group ``art.model_support``.

An entry point has the family's key as its name, and leads to the family's spec. The spec's
``handler_name`` says where the handler is, as ``"module:NAME"``::

    [project.entry-points."art.model_support"]
    qwen2_5_dense = "art_qwen2_5.spec:QWEN2_5_DENSE_SPEC"

A plug-in can only add. One that cannot be loaded, or that claims a key, a model name or a
``model_type`` that is taken, is left out with a warning that names both sources; all others, and
art's own, are unaffected. The registry asks here only for what it does not know itself, since
``importlib.metadata`` costs several times what a question does.
"""

import warnings
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final, get_args

from art.errors import (
    DependencyFloorError,
    ModelSupportPluginError,
    ModelSupportPluginWarning,
)

from .families import DEFAULT_DENSE_SPEC, VALIDATED_MODEL_SUPPORT_SPECS
from .literals import NativeVllmLoraStatus, RolloutWeightsMode
from .protocol import ModelSupportHandler
from .spec import DependencyFloor, HandlerMeta, ModelSupportSpec, Record

GROUP = "art.model_support"


class ModelSupportPlugin(Record):
    """One entry point of the group, loaded or refused.

    Args:
        key: The entry point's name, which is the family's key.
        distribution: The distribution that it comes from, with its version.
        spec: The family; ``None`` if it was refused.
        error: The reason for which it was refused; ``None`` if it was not.
    """

    __slots__ = ("key", "distribution", "spec", "error")

    def __init__(
        self,
        *,
        key: str,
        distribution: str,
        spec: ModelSupportSpec | None = None,
        error: ModelSupportPluginError | None = None,
    ) -> None:
        self.key: Final = key
        self.distribution: Final = distribution
        self.spec: Final = spec
        self.error: Final = error


@cache
def list_model_support_plugins() -> tuple[ModelSupportPlugin, ...]:
    """Load the specs of all plug-ins, once in a process. Their handlers are not loaded.

    Returns:
        All plug-ins in the order of their distributions' names. Of two that claim the same name,
        the first one has it.

    Warns:
        ModelSupportPluginWarning: A plug-in was refused. Its ``error`` gives the reason.
    """
    owners = {claim: "art" for spec in VALIDATED_MODEL_SUPPORT_SPECS for claim in _claims(spec)}
    # The default reads the model types of other families, and claims none.
    owners["key", DEFAULT_DENSE_SPEC.key] = "art"
    plugins = []
    for point in sorted(entry_points(group=GROUP), key=lambda p: (_distribution(p), p.name)):
        distribution = _distribution(point)
        try:
            spec = _load_spec(point, distribution)
            _refuse_conflicts(spec, distribution, owners)
        except ModelSupportPluginError as error:
            warnings.warn(str(error), ModelSupportPluginWarning, stacklevel=2)
            plugins.append(
                ModelSupportPlugin(key=point.name, distribution=distribution, error=error)
            )
            continue
        owners |= dict.fromkeys(_claims(spec), distribution)
        plugins.append(ModelSupportPlugin(key=spec.key, distribution=distribution, spec=spec))
    return tuple(plugins)


def plugin_specs() -> list[ModelSupportSpec]:
    """List the families that plug-ins add."""
    return [plugin.spec for plugin in list_model_support_plugins() if plugin.spec is not None]


def source_of(spec: ModelSupportSpec) -> str:
    """Name the distribution that a family comes from.

    Args:
        spec: The family.

    Returns:
        ``"art"``, or a distribution and its version; for a spec that is not registered, the
        module of its handler.
    """
    if ":" not in spec.handler.handler_name:
        return "art"
    for plugin in list_model_support_plugins():
        if plugin.spec == spec:
            return plugin.distribution
    return spec.handler.handler_name.partition(":")[0]


def load_plugin_handler(spec: ModelSupportSpec) -> ModelSupportHandler:
    """Load the handler of a family whose ``handler_name`` is ``"module:NAME"``.

    Args:
        spec: The family.

    Returns:
        The handler.

    Raises:
        MissingExtraError: torch or megatron is not installed.
        DependencyFloorError: A handler of art's that it derives from needs a newer engine.
        ModelSupportPluginError: The module cannot be imported, or has no such handler.
    """
    from art._lazy import explain_missing

    source = source_of(spec)
    address = spec.handler.handler_name
    module, _, name = address.partition(":")
    try:
        handler: object = getattr(import_module(module), name)
    except DependencyFloorError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError):
            explained = explain_missing(error, f"art.megatron ({address} of {source})")
            if explained is not error:
                raise explained from error
        raise ModelSupportPluginError(
            f"{source}: the handler {address} of the family {spec.key!r} cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(handler, ModelSupportHandler):
        raise ModelSupportPluginError(
            f"{source}: {address} is a {type(handler).__name__}, not a handler. "
            f"`art models check {spec.key}` says what it lacks"
        )
    if handler.meta != spec.handler:
        raise ModelSupportPluginError(
            f"{source}: {address} has the meta of {handler.meta.key!r}, not that of the spec: "
            "set `spec = YOUR_SPEC` in the subclass of FamilyHandler"
        )
    return handler


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed distribution"


def _claims(spec: ModelSupportSpec) -> list[tuple[str, str]]:
    return [
        ("key", spec.key),
        *(("model", name) for name in spec.model_names),
        *(("model_type", name) for name in spec.model_types),
    ]


def _load_spec(point: EntryPoint, distribution: str) -> ModelSupportSpec:
    where = f"{distribution}: the plug-in {point.name} = {point.value!r}"
    try:
        spec: object = point.load()
    except Exception as error:
        # Whatever a stranger's module raises, it must not keep art's own families from loading.
        raise ModelSupportPluginError(
            f"{where} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(spec, ModelSupportSpec):
        raise ModelSupportPluginError(
            f"{where} is a {type(spec).__name__}; it must be a ModelSupportSpec"
        )
    for problem in _problems(spec, point.name):
        raise ModelSupportPluginError(f"{where}: {problem}")
    return spec


def _problems(spec: ModelSupportSpec, key: str) -> list[str]:
    """Check what a type checker would have checked, had the plug-in's author run one."""
    meta: object = spec.handler
    if not isinstance(meta, HandlerMeta):
        return [f"its handler is a {type(meta).__name__}; it must be a HandlerMeta"]
    versions: object = spec.dependency_floor
    address = str(meta.handler_name).partition(":")
    rules = {
        f"its spec has the key {meta.key!r}; name the entry point so": meta.key == key,
        f"its handler_name is {meta.handler_name!r}; it must be 'module:NAME'": all(
            part.isidentifier() for part in (*address[0].split("."), address[2])
        ),
        "its default_target_modules must be a tuple of names": _is_names(
            spec.default_target_modules
        )
        and spec.default_target_modules,
        "its model_types must be a tuple of names": _is_names(spec.model_types),
        "its model_names must be a tuple of names": _is_names(spec.model_names),
        f"its native_vllm_lora_status must be of {get_args(NativeVllmLoraStatus)}": (
            meta.native_vllm_lora_status in get_args(NativeVllmLoraStatus)
        ),
        f"its default_rollout_weights_mode must be of {get_args(RolloutWeightsMode)}": (
            spec.default_rollout_weights_mode in get_args(RolloutWeightsMode)
        ),
        "its dependency_floor must be a DependencyFloor": isinstance(versions, DependencyFloor),
    }
    return [problem for problem, holds in rules.items() if not holds]


def _is_names(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) for name in value)


def _refuse_conflicts(
    spec: ModelSupportSpec, distribution: str, owners: dict[tuple[str, str], str]
) -> None:
    for kind, name in _claims(spec):
        owner = owners.get((kind, name))
        if owner is not None:
            raise ModelSupportPluginError(
                f"{distribution}: the plug-in {spec.key!r} claims the {kind} {name!r}, which "
                f"{owner} has; the plug-in is left out. Uninstall one of the two, or rename"
            )
