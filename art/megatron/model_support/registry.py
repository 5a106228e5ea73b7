"""The families that art's megatron engine knows, and questions that this data answers.

Families of other distributions (:mod:`.plugins`) are looked for when a model is not of art's own,
and when all are listed.

No question here loads torch or megatron; only :func:`get_model_support_handler` and
:func:`get_model_support_handler_for_spec` load a handler, since a handler is what they return.
"""

from art.errors import UnsupportedModelArchitectureError as UnsupportedModelArchitectureError

from .spec import DependencyFloor, HandlerMeta, ModelSupportSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .protocol import ModelSupportHandler, NativeVllmLoraStatus

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")
_DENSE = (*_ATTENTION, *_MLP)
_GATED_DELTA_NET = ("in_proj_qkv", "in_proj_z", "out_proj")

# Each floor is the first release that has what the family takes from it:
#   megatron-core 0.16.0  gated delta nets and output gates, which every handler imports or checks
#   transformers 5.0.0    `rope_parameters`, which every config is read by
#   transformers 5.6.0    Qwen3.5, with the tensor names that checkpoints have had since: 5.2 to 5.5
#                         write others
#   vLLM 0.8.4            Qwen3
#   vLLM 0.11.1           adapters of routed experts
#   vLLM 0.19.0           adapters of Qwen3.5, with which 0.17 and 0.18 fail as they start
_MEGATRON_CORE = "0.16.0"
_COMMON_FLOOR = DependencyFloor(transformers="5.0.0", megatron_core=_MEGATRON_CORE)
_QWEN3_5_FLOOR = DependencyFloor(transformers="5.6.0", vllm="0.19.0", megatron_core=_MEGATRON_CORE)

DEFAULT_DENSE_SPEC = ModelSupportSpec(
    handler=HandlerMeta(key="default_dense", handler_name="DEFAULT_DENSE_HANDLER"),
    default_target_modules=_DENSE,
    dependency_floor=_COMMON_FLOOR,
)

LLAMA3_DENSE_SPEC = ModelSupportSpec(
    handler=HandlerMeta(
        key="llama3_dense",
        handler_name="LLAMA3_DENSE_HANDLER",
        native_vllm_lora_status="validated",
    ),
    model_names=(
        "meta-llama/Meta-Llama-3-8B",
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "meta-llama/Meta-Llama-3-70B",
        "meta-llama/Meta-Llama-3-70B-Instruct",
        "meta-llama/Llama-3.1-8B",
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.1-70B",
        "meta-llama/Llama-3.1-70B-Instruct",
        "meta-llama/Llama-3.1-405B",
        "meta-llama/Llama-3.1-405B-Instruct",
        "meta-llama/Llama-3.2-1B",
        "meta-llama/Llama-3.2-1B-Instruct",
        "meta-llama/Llama-3.2-3B",
        "meta-llama/Llama-3.2-3B-Instruct",
        "meta-llama/Llama-3.3-70B-Instruct",
        "HuggingFaceTB/SmolLM2-135M",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "HuggingFaceTB/SmolLM2-360M",
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        "HuggingFaceTB/SmolLM2-1.7B",
        "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    ),
    default_target_modules=_DENSE,
    dependency_floor=_COMMON_FLOOR,
)

QWEN3_DENSE_SPEC = ModelSupportSpec(
    handler=HandlerMeta(
        key="qwen3_dense",
        handler_name="QWEN3_DENSE_HANDLER",
        native_vllm_lora_status="validated",
    ),
    model_names=(
        "Qwen/Qwen3-0.6B",
        "Qwen/Qwen3-0.6B-Base",
        "Qwen/Qwen3-1.7B",
        "Qwen/Qwen3-1.7B-Base",
        "Qwen/Qwen3-4B",
        "Qwen/Qwen3-4B-Base",
        "Qwen/Qwen3-4B-Instruct-2507",
        "Qwen/Qwen3-4B-Thinking-2507",
        "Qwen/Qwen3-8B",
        "Qwen/Qwen3-8B-Base",
        "Qwen/Qwen3-14B",
        "Qwen/Qwen3-14B-Base",
        "OpenPipe/Qwen3-14B-Instruct",
        "Qwen/Qwen3-32B",
        "Qwen/Qwen3-32B-Base",
    ),
    default_target_modules=_DENSE,
    dependency_floor=DependencyFloor(
        transformers="5.0.0", vllm="0.8.4", megatron_core=_MEGATRON_CORE
    ),
)

QWEN3_MOE_SPEC = ModelSupportSpec(
    handler=HandlerMeta(
        key="qwen3_moe",
        handler_name="QWEN3_MOE_HANDLER",
        is_moe=True,
        native_vllm_lora_status="validated",
    ),
    model_names=(
        "Qwen/Qwen3-30B-A3B",
        "Qwen/Qwen3-30B-A3B-Base",
        "Qwen/Qwen3-30B-A3B-Instruct-2507",
        "Qwen/Qwen3-30B-A3B-Thinking-2507",
        "Qwen/Qwen3-235B-A22B",
        "Qwen/Qwen3-235B-A22B-Instruct-2507",
        "Qwen/Qwen3-235B-A22B-Thinking-2507",
        "Qwen/Qwen3-Coder-30B-A3B-Instruct",
        "Qwen/Qwen3-Coder-480B-A35B-Instruct",
    ),
    default_target_modules=(*_DENSE, "experts"),
    dependency_floor=DependencyFloor(
        transformers="5.0.0", vllm="0.11.1", megatron_core=_MEGATRON_CORE
    ),
)

QWEN3_5_DENSE_SPEC = ModelSupportSpec(
    handler=HandlerMeta(
        key="qwen3_5_dense",
        handler_name="QWEN3_5_DENSE_HANDLER",
        native_vllm_lora_status="validated",
    ),
    model_names=(
        "Qwen/Qwen3.5-4B",
        "Qwen/Qwen3.5-9B",
        "Qwen/Qwen3.5-9B-Base",
        "Qwen/Qwen3.5-27B",
        "Qwen/Qwen3.6-27B",
        "Qwen/Qwen3.8-27B",
    ),
    default_target_modules=(*_ATTENTION, *_GATED_DELTA_NET, *_MLP),
    dependency_floor=_QWEN3_5_FLOOR,
)

QWEN3_5_MOE_SPEC = ModelSupportSpec(
    handler=HandlerMeta(
        key="qwen3_5_moe",
        handler_name="QWEN3_5_MOE_HANDLER",
        is_moe=True,
        native_vllm_lora_status="validated",
    ),
    model_names=(
        "Qwen/Qwen3.5-35B-A3B",
        "Qwen/Qwen3.5-35B-A3B-Base",
        "Qwen/Qwen3.5-397B-A17B",
        "Qwen/Qwen3.6-35B-A3B",
    ),
    # The last three are the shared experts, which are ordinary linear modules.
    default_target_modules=(*_ATTENTION, *_GATED_DELTA_NET, "experts", *_MLP),
    dependency_floor=_QWEN3_5_FLOOR,
)

GPT_OSS_SPEC = ModelSupportSpec(
    handler=HandlerMeta(
        key="gpt_oss",
        handler_name="GPT_OSS_HANDLER",
        is_moe=True,
        native_vllm_lora_status="validated",
    ),
    model_names=(
        "openai/gpt-oss-20b",
        "openai/gpt-oss-120b",
        # The same in bfloat16: OpenAI's files are quantised, which the handler refuses.
        "unsloth/gpt-oss-20b-BF16",
        "unsloth/gpt-oss-120b-BF16",
    ),
    default_target_modules=(*_ATTENTION, "experts"),
    dependency_floor=_COMMON_FLOOR,
)

VALIDATED_MODEL_SUPPORT_SPECS = (
    LLAMA3_DENSE_SPEC,
    QWEN3_MOE_SPEC,
    QWEN3_DENSE_SPEC,
    QWEN3_5_MOE_SPEC,
    QWEN3_5_DENSE_SPEC,
    GPT_OSS_SPEC,
)
PROBE_ONLY_MODEL_SUPPORT_SPECS: tuple[ModelSupportSpec, ...] = ()

LLAMA3_DENSE_MODELS = frozenset(LLAMA3_DENSE_SPEC.model_names)
QWEN3_DENSE_MODELS = frozenset(QWEN3_DENSE_SPEC.model_names)
QWEN3_MOE_MODELS = frozenset(QWEN3_MOE_SPEC.model_names)
QWEN3_5_DENSE_MODELS = frozenset(QWEN3_5_DENSE_SPEC.model_names)
QWEN3_5_MOE_MODELS = frozenset(QWEN3_5_MOE_SPEC.model_names)
QWEN3_5_MODELS = QWEN3_5_DENSE_MODELS | QWEN3_5_MOE_MODELS
GPT_OSS_MODELS = frozenset(GPT_OSS_SPEC.model_names)

_SPEC_OF_MODEL = {
    model_name: spec for spec in VALIDATED_MODEL_SUPPORT_SPECS for model_name in spec.model_names
}
_PROBE_SPEC_OF_MODEL = {
    model_name: spec for spec in PROBE_ONLY_MODEL_SUPPORT_SPECS for model_name in spec.model_names
}


def get_model_support_spec(
    base_model: str, *, allow_unvalidated_arch: bool = False
) -> ModelSupportSpec:
    """Find a model's family.

    Args:
        base_model: The model's Hugging Face name, such as ``"Qwen/Qwen3-8B"``.
        allow_unvalidated_arch: Treat a model that is not registered as a plain dense one.

    Returns:
        The family's spec.

    Raises:
        UnsupportedModelArchitectureError: The model is not registered, and
            ``allow_unvalidated_arch`` is not set. The message names the nearest registered models.
    """
    spec = _SPEC_OF_MODEL.get(base_model)
    if spec is not None:
        return spec
    for spec in _plugin_specs():
        if base_model in spec.model_names:
            return spec
    if allow_unvalidated_arch:
        return _PROBE_SPEC_OF_MODEL.get(base_model, DEFAULT_DENSE_SPEC)
    raise _unsupported(base_model)


def get_model_support_handler(
    base_model: str, *, allow_unvalidated_arch: bool = False
) -> "ModelSupportHandler":
    """Load the handler of a model's family. This imports torch and megatron.

    Args:
        base_model: The model's Hugging Face name.
        allow_unvalidated_arch: Treat a model that is not registered as a plain dense one.

    Returns:
        The handler.

    Raises:
        UnsupportedModelArchitectureError: As :func:`get_model_support_spec`.
        MissingExtraError: The extra ``megatron`` is not installed.
        DependencyFloorError: An engine's installed version is below the family's floor.
        ModelSupportPluginError: The plug-in's handler cannot be loaded, or is none.
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
        DependencyFloorError: An engine's installed version is below the family's floor.
        ModelSupportPluginError: The plug-in's handler cannot be loaded, or is none.
    """
    from . import handlers
    from .floors import require_floors
    from .plugins import load_plugin_handler, source_of

    require_floors(spec, source=source_of(spec))
    if ":" in spec.handler.handler_name:
        return load_plugin_handler(spec)
    handler: ModelSupportHandler = getattr(handlers, spec.handler.handler_name)
    return handler


def default_target_modules_for_model(
    base_model: str, *, allow_unvalidated_arch: bool = False
) -> list[str]:
    """Name the modules of a model that get a LoRA adapter by default.

    Args:
        base_model: The model's Hugging Face name.
        allow_unvalidated_arch: Treat a model that is not registered as a plain dense one.

    Returns:
        Hugging Face module names, such as ``"q_proj"``; ``"experts"`` is all routed experts.

    Raises:
        UnsupportedModelArchitectureError: As :func:`get_model_support_spec`.
    """
    spec = get_model_support_spec(base_model, allow_unvalidated_arch=allow_unvalidated_arch)
    return list(spec.default_target_modules)


def native_vllm_lora_status_for_model(
    base_model: str, *, allow_unvalidated_arch: bool = False
) -> "NativeVllmLoraStatus":
    """Say how far vLLM serves a model's LoRA tensors as they are.

    Args:
        base_model: The model's Hugging Face name.
        allow_unvalidated_arch: Treat a model that is not registered as a plain dense one.

    Returns:
        ``"disabled"``, ``"wip"`` or ``"validated"``.

    Raises:
        UnsupportedModelArchitectureError: As :func:`get_model_support_spec`.
    """
    spec = get_model_support_spec(base_model, allow_unvalidated_arch=allow_unvalidated_arch)
    return spec.native_vllm_lora_status


def model_uses_expert_parallel(base_model: str, *, allow_unvalidated_arch: bool = False) -> bool:
    """Say whether a model has routed experts, which can be spread over GPUs.

    Args:
        base_model: The model's Hugging Face name.
        allow_unvalidated_arch: Treat a model that is not registered as a plain dense one.

    Returns:
        True for a mixture of experts.

    Raises:
        UnsupportedModelArchitectureError: As :func:`get_model_support_spec`.
    """
    spec = get_model_support_spec(base_model, allow_unvalidated_arch=allow_unvalidated_arch)
    return spec.is_moe


def model_requires_merged_rollout(base_model: str, *, allow_unvalidated_arch: bool = False) -> bool:
    """Say whether rollouts need the adapter merged into the model's weights.

    Args:
        base_model: The model's Hugging Face name.
        allow_unvalidated_arch: Treat a model that is not registered as a plain dense one.

    Returns:
        True when an inference server cannot be given the adapter by itself.

    Raises:
        UnsupportedModelArchitectureError: As :func:`get_model_support_spec`.
    """
    spec = get_model_support_spec(base_model, allow_unvalidated_arch=allow_unvalidated_arch)
    return spec.default_rollout_weights_mode == "merged"


def is_model_support_registered(base_model: str) -> bool:
    """Say whether a model is registered, by its Hugging Face name."""
    return base_model in _SPEC_OF_MODEL or any(
        base_model in spec.model_names for spec in _plugin_specs()
    )


def list_model_support_specs() -> list[ModelSupportSpec]:
    """List the registered families: art's own, then those of plug-ins.

    Without the default for models that are not registered.
    """
    return [*VALIDATED_MODEL_SUPPORT_SPECS, *_plugin_specs()]


def _plugin_specs() -> list[ModelSupportSpec]:
    # Imported here: finding entry points costs more than every question about art's own models.
    from .plugins import plugin_specs

    return plugin_specs()


def _unsupported(base_model: str) -> UnsupportedModelArchitectureError:
    from difflib import get_close_matches

    from .plugins import list_model_support_plugins

    # Names differ in case more often than in anything else.
    known = [*_SPEC_OF_MODEL, *(name for spec in _plugin_specs() for name in spec.model_names)]
    names = {name.lower(): name for name in known}
    near = [names[name] for name in get_close_matches(base_model.lower(), names, n=3)]
    hint = (
        f"Did you mean {' or '.join(map(repr, near))}?"
        if near
        else "list_model_support_specs() lists the models that are."
    )
    refused = "".join(
        f" A plug-in was left out, which may have it: {plugin.error}."
        for plugin in list_model_support_plugins()
        if plugin.error is not None
    )
    return UnsupportedModelArchitectureError(
        f"{base_model!r} is not a model that art's megatron engine is validated for. {hint} "
        f"To try it as a plain dense model, pass allow_unvalidated_arch=True.{refused}"
    )
