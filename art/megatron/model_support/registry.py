"""The registry of model families: questions that the data in :mod:`.families` answers.

A model is known by its name on the Hugging Face hub, which needs no file, or else by the
``model_type`` in its ``config.json``: in a folder, or in the hub's cache on this machine. Families
of other distributions (:mod:`.plugins`) are looked for when a model is not of art's own, and when
all are listed.

No question here loads torch or megatron; only :func:`get_model_support_handler` and
:func:`get_model_support_handler_for_spec` load a handler, since a handler is what they return.
"""

from art.errors import UnsupportedModelArchitectureError as UnsupportedModelArchitectureError

from .families import DEFAULT_DENSE_SPEC as DEFAULT_DENSE_SPEC
from .families import GPT_OSS_SPEC as GPT_OSS_SPEC
from .families import LLAMA3_DENSE_SPEC as LLAMA3_DENSE_SPEC
from .families import PROBE_ONLY_MODEL_SUPPORT_SPECS as PROBE_ONLY_MODEL_SUPPORT_SPECS
from .families import QWEN3_5_DENSE_SPEC as QWEN3_5_DENSE_SPEC
from .families import QWEN3_5_MOE_SPEC as QWEN3_5_MOE_SPEC
from .families import QWEN3_DENSE_SPEC as QWEN3_DENSE_SPEC
from .families import QWEN3_MOE_SPEC as QWEN3_MOE_SPEC
from .families import VALIDATED_MODEL_SUPPORT_SPECS as VALIDATED_MODEL_SUPPORT_SPECS
from .spec import ModelSupportSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .protocol import ModelSupportHandler
    from .spec import NativeVllmLoraStatus

# ART's names for the models of the families that it has. A new family needs none.
LLAMA3_DENSE_MODELS = frozenset(LLAMA3_DENSE_SPEC.model_names)
QWEN3_DENSE_MODELS = frozenset(QWEN3_DENSE_SPEC.model_names)
QWEN3_MOE_MODELS = frozenset(QWEN3_MOE_SPEC.model_names)
QWEN3_5_DENSE_MODELS = frozenset(QWEN3_5_DENSE_SPEC.model_names)
QWEN3_5_MOE_MODELS = frozenset(QWEN3_5_MOE_SPEC.model_names)
QWEN3_5_MODELS = QWEN3_5_DENSE_MODELS | QWEN3_5_MOE_MODELS
GPT_OSS_MODELS = frozenset(GPT_OSS_SPEC.model_names)


_SPEC_OF_NAME = {name: spec for spec in VALIDATED_MODEL_SUPPORT_SPECS for name in spec.model_names}
_SPEC_OF_MODEL_TYPE = {
    model_type: spec for spec in VALIDATED_MODEL_SUPPORT_SPECS for model_type in spec.model_types
}
_PROBE_SPEC_OF_NAME = {
    name: spec for spec in PROBE_ONLY_MODEL_SUPPORT_SPECS for name in spec.model_names
}


def get_model_support_spec(
    base_model: str, *, allow_unvalidated_arch: bool = False
) -> ModelSupportSpec:
    """Find a model's family.

    Args:
        base_model: The model's Hugging Face name, such as ``"Qwen/Qwen3-8B"``, or a folder with
            its ``config.json``. A name that no family lists is looked up in the Hugging Face
            hub's cache on this machine.
        allow_unvalidated_arch: Treat a model that no family is registered for as a plain dense
            one.

    Returns:
        The family's spec.

    Raises:
        UnsupportedModelArchitectureError: No family is registered for the model, and
            ``allow_unvalidated_arch`` is not set. The message names the nearest models or
            families.
        CheckpointError: The model's ``config.json`` is missing or damaged.
    """
    spec = _SPEC_OF_NAME.get(base_model) or _spec_of_other(base_model)
    if spec is not None:
        return spec
    if allow_unvalidated_arch:
        return _PROBE_SPEC_OF_NAME.get(base_model, DEFAULT_DENSE_SPEC)
    raise _unsupported(base_model)


def get_model_support_handler(
    base_model: str, *, allow_unvalidated_arch: bool = False
) -> "ModelSupportHandler":
    """Load the handler of a model's family. This imports torch and megatron.

    Args:
        base_model: As for :func:`get_model_support_spec`.
        allow_unvalidated_arch: As for :func:`get_model_support_spec`.

    Returns:
        The handler.

    Raises:
        UnsupportedModelArchitectureError: As :func:`get_model_support_spec`.
        CheckpointError: As :func:`get_model_support_spec`.
        MissingExtraError: The extra ``megatron`` is not installed.
        DependencyFloorError: An engine's installed version is below the family's minimum.
        ModelSupportPluginError: The plug-in's handler cannot be loaded, or is not a handler.
    """
    spec = get_model_support_spec(base_model, allow_unvalidated_arch=allow_unvalidated_arch)
    return get_model_support_handler_for_spec(spec)


def get_model_support_handler_for_spec(spec: ModelSupportSpec) -> "ModelSupportHandler":
    """Load the handler that a spec names. This imports torch and megatron.

    Args:
        spec: A spec of this registry, or of a plug-in.

    Returns:
        The handler; the same object at every call.

    Raises:
        MissingExtraError: The extra ``megatron`` is not installed.
        DependencyFloorError: An engine's installed version is below the family's minimum.
        ModelSupportPluginError: The plug-in's handler cannot be loaded, or is not a handler.
    """
    from . import handlers
    from .minimum_versions import require_versions
    from .plugins import load_plugin_handler, source_of

    require_versions(spec, source=source_of(spec))
    if ":" in spec.handler.handler_name:
        return load_plugin_handler(spec)
    handler: ModelSupportHandler = getattr(handlers, spec.handler.handler_name)
    return handler


def default_target_modules_for_model(
    base_model: str, *, allow_unvalidated_arch: bool = False
) -> list[str]:
    """List the modules of a model that get a LoRA adapter by default.

    Args:
        base_model: As for :func:`get_model_support_spec`.
        allow_unvalidated_arch: As for :func:`get_model_support_spec`.

    Returns:
        Hugging Face module names, such as ``"q_proj"``; ``"experts"`` is all routed experts.

    Raises:
        UnsupportedModelArchitectureError: As :func:`get_model_support_spec`.
        CheckpointError: As :func:`get_model_support_spec`.
    """
    spec = get_model_support_spec(base_model, allow_unvalidated_arch=allow_unvalidated_arch)
    return list(spec.default_target_modules)


def native_vllm_lora_status_for_model(
    base_model: str, *, allow_unvalidated_arch: bool = False
) -> "NativeVllmLoraStatus":
    """Look up the state of vLLM's support for a model's LoRA tensors.

    Args:
        base_model: As for :func:`get_model_support_spec`.
        allow_unvalidated_arch: As for :func:`get_model_support_spec`.

    Returns:
        ``"disabled"``, ``"wip"`` or ``"validated"``.

    Raises:
        UnsupportedModelArchitectureError: As :func:`get_model_support_spec`.
        CheckpointError: As :func:`get_model_support_spec`.
    """
    spec = get_model_support_spec(base_model, allow_unvalidated_arch=allow_unvalidated_arch)
    return spec.native_vllm_lora_status


def model_uses_expert_parallel(base_model: str, *, allow_unvalidated_arch: bool = False) -> bool:
    """Test whether a model has routed experts, which can be sharded by expert parallelism.

    Args:
        base_model: As for :func:`get_model_support_spec`.
        allow_unvalidated_arch: As for :func:`get_model_support_spec`.

    Returns:
        True for a mixture of experts.

    Raises:
        UnsupportedModelArchitectureError: As :func:`get_model_support_spec`.
        CheckpointError: As :func:`get_model_support_spec`.
    """
    spec = get_model_support_spec(base_model, allow_unvalidated_arch=allow_unvalidated_arch)
    return spec.is_moe


def model_requires_merged_rollout(base_model: str, *, allow_unvalidated_arch: bool = False) -> bool:
    """Test whether rollouts need the adapter merged into the model's weights.

    Args:
        base_model: As for :func:`get_model_support_spec`.
        allow_unvalidated_arch: As for :func:`get_model_support_spec`.

    Returns:
        True when an inference server cannot be given the adapter by itself.

    Raises:
        UnsupportedModelArchitectureError: As :func:`get_model_support_spec`.
        CheckpointError: As :func:`get_model_support_spec`.
    """
    spec = get_model_support_spec(base_model, allow_unvalidated_arch=allow_unvalidated_arch)
    return spec.default_rollout_weights_mode == "merged"


def is_model_support_registered(base_model: str) -> bool:
    """Test whether a family is registered for a model.

    Args:
        base_model: As for :func:`get_model_support_spec`.

    Returns:
        True if :func:`get_model_support_spec` finds its family.

    Raises:
        CheckpointError: As :func:`get_model_support_spec`.
    """
    return base_model in _SPEC_OF_NAME or _spec_of_other(base_model) is not None


def list_model_support_specs() -> list[ModelSupportSpec]:
    """List the registered families: art's own, then those of plug-ins.

    The default for models that no family is registered for is not among them.
    """
    return [*VALIDATED_MODEL_SUPPORT_SPECS, *_plugin_specs()]


def _spec_of_other(base_model: str) -> ModelSupportSpec | None:
    """Find the family of a model whose name is not one of art's own."""
    from .config_json import find_config, is_folder, read_model_type

    if not is_folder(base_model):
        for spec in _plugin_specs():
            if base_model in spec.model_names:
                return spec
    path = find_config(base_model)
    return None if path is None else _spec_of_model_type(read_model_type(path))


def _spec_of_model_type(model_type: str) -> ModelSupportSpec | None:
    spec = _SPEC_OF_MODEL_TYPE.get(model_type)
    if spec is not None:
        return spec
    return next((spec for spec in _plugin_specs() if model_type in spec.model_types), None)


def _plugin_specs() -> list[ModelSupportSpec]:
    # Imported here: finding entry points costs more than every question about art's own models.
    from .plugins import plugin_specs

    return plugin_specs()


def _unsupported(base_model: str) -> UnsupportedModelArchitectureError:
    from .config_json import find_config, read_model_type
    from .plugins import list_model_support_plugins

    path = find_config(base_model)
    if path is None:
        reason = _unknown_name(base_model)
    else:
        reason = _unknown_model_type(base_model, read_model_type(path), path)
    left_out = "".join(
        f" A plug-in was left out, which may have it: {plugin.error}."
        for plugin in list_model_support_plugins()
        if plugin.error is not None
    )
    return UnsupportedModelArchitectureError(reason + left_out)


def _unknown_name(base_model: str) -> str:
    names = [name for spec in list_model_support_specs() for name in spec.model_names]
    near = _nearest(base_model, names)
    hint = (
        f"Did you mean {' or '.join(map(repr, near))}?"
        if near
        else "list_model_support_specs() lists the models that are."
    )
    return (
        f"{base_model!r} is not a model that art's megatron engine is validated for, and neither a "
        "folder of that name nor the Hugging Face cache has a config.json that says its "
        f"architecture. {hint} For a fine-tune, give the folder that holds it. To try it as a "
        "plain dense model, pass allow_unvalidated_arch=True."
    )


def _unknown_model_type(base_model: str, model_type: str, path: str) -> str:
    family_of = {
        known: spec.key for spec in list_model_support_specs() for known in spec.model_types
    }
    near = _nearest(model_type, family_of)
    listed = ", ".join(f"{known!r} ({family_of[known]})" for known in near or family_of)
    as_dense = (
        "To try it as a plain dense model, pass allow_unvalidated_arch=True."
        if model_type in DEFAULT_DENSE_SPEC.model_types
        else "docs/add-a-model-family.md says how to add one."
    )
    return (
        f"{base_model!r} has the model_type {model_type!r} ({path}), which no model family of "
        f"art's megatron engine reads. {'The nearest are' if near else 'Those that are read:'} "
        f"{listed}. {as_dense}"
    )


def _nearest(name: str, known: "Iterable[str]") -> list[str]:
    from difflib import get_close_matches

    # Names differ in case more often than in anything else.
    by_lower_case = {each.lower(): each for each in known}
    return [by_lower_case[match] for match in get_close_matches(name.lower(), by_lower_case, n=3)]
