"""The model families of art, as data: one spec each, and nothing else lists a family.

A spec names the ``model_type``s of ``config.json`` that the family's handler reads, the published
models, the modules that get a LoRA adapter, and the minimum versions of the engines. Families of
other distributions are found by :mod:`.plugins`; :mod:`.registry` answers questions about both.
"""

from .spec import DependencyFloor, HandlerMeta, ModelSupportSpec

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")
_DENSE = (*_ATTENTION, *_MLP)
_GATED_DELTA_NET = ("in_proj_qkv", "in_proj_z", "out_proj")

# Each minimum is the first release that has what the family takes from it:
#   megatron-core 0.16.0  gated delta nets and output gates, which every handler imports or checks
#   transformers 5.0.0    `rope_parameters`, which every config is read by
#   transformers 5.6.0    Qwen3.5, with the tensor names that checkpoints have had since: 5.2 to 5.5
#                         write others
#   vLLM 0.8.4            Qwen3
#   vLLM 0.11.1           adapters of routed experts
#   vLLM 0.19.0           adapters of Qwen3.5, with which 0.17 and 0.18 fail as they start
_MEGATRON_CORE = "0.16.0"
_COMMON_VERSIONS = DependencyFloor(transformers="5.0.0", megatron_core=_MEGATRON_CORE)
_QWEN3_5_VERSIONS = DependencyFloor(
    transformers="5.6.0", vllm="0.19.0", megatron_core=_MEGATRON_CORE
)

# For models that no family is registered for, where the caller asks for it
# (`allow_unvalidated_arch`). It claims no model_type: Llama and Qwen3 have families of their own.
DEFAULT_DENSE_SPEC = ModelSupportSpec(
    handler=HandlerMeta(key="default_dense", handler_name="DEFAULT_DENSE_HANDLER"),
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    default_target_modules=_DENSE,
    dependency_floor=_COMMON_VERSIONS,
)

LLAMA3_DENSE_SPEC = ModelSupportSpec(
    handler=HandlerMeta(
        key="llama3_dense",
        handler_name="LLAMA3_DENSE_HANDLER",
        native_vllm_lora_status="validated",
    ),
    model_types=("llama",),
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
    dependency_floor=_COMMON_VERSIONS,
)

QWEN3_DENSE_SPEC = ModelSupportSpec(
    handler=HandlerMeta(
        key="qwen3_dense",
        handler_name="QWEN3_DENSE_HANDLER",
        native_vllm_lora_status="validated",
    ),
    model_types=("qwen3",),
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
    model_types=("qwen3_moe",),
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
    # The decoder alone, and the vision-language model that is published.
    model_types=("qwen3_5_text", "qwen3_5"),
    model_names=(
        "Qwen/Qwen3.5-4B",
        "Qwen/Qwen3.5-9B",
        "Qwen/Qwen3.5-9B-Base",
        "Qwen/Qwen3.5-27B",
        "Qwen/Qwen3.6-27B",
        "Qwen/Qwen3.8-27B",
    ),
    default_target_modules=(*_ATTENTION, *_GATED_DELTA_NET, *_MLP),
    dependency_floor=_QWEN3_5_VERSIONS,
)

QWEN3_5_MOE_SPEC = ModelSupportSpec(
    handler=HandlerMeta(
        key="qwen3_5_moe",
        handler_name="QWEN3_5_MOE_HANDLER",
        is_moe=True,
        native_vllm_lora_status="validated",
    ),
    # As for the dense family.
    model_types=("qwen3_5_moe_text", "qwen3_5_moe"),
    model_names=(
        "Qwen/Qwen3.5-35B-A3B",
        "Qwen/Qwen3.5-35B-A3B-Base",
        "Qwen/Qwen3.5-397B-A17B",
        "Qwen/Qwen3.6-35B-A3B",
    ),
    # The last three are those of the shared expert, which are ordinary linear modules.
    default_target_modules=(*_ATTENTION, *_GATED_DELTA_NET, "experts", *_MLP),
    dependency_floor=_QWEN3_5_VERSIONS,
)

GPT_OSS_SPEC = ModelSupportSpec(
    handler=HandlerMeta(
        key="gpt_oss",
        handler_name="GPT_OSS_HANDLER",
        is_moe=True,
        native_vllm_lora_status="validated",
    ),
    model_types=("gpt_oss",),
    model_names=(
        "openai/gpt-oss-20b",
        "openai/gpt-oss-120b",
        # The same in bfloat16: OpenAI's files are quantised, which the handler refuses.
        "unsloth/gpt-oss-20b-BF16",
        "unsloth/gpt-oss-120b-BF16",
    ),
    default_target_modules=(*_ATTENTION, "experts"),
    dependency_floor=_COMMON_VERSIONS,
)

# Every family above, in that order.
VALIDATED_MODEL_SUPPORT_SPECS = tuple(
    value
    for value in list(globals().values())
    if isinstance(value, ModelSupportSpec) and value is not DEFAULT_DENSE_SPEC
)
# Families that are used only where the caller asks for it, by the name of the model.
PROBE_ONLY_MODEL_SUPPORT_SPECS: tuple[ModelSupportSpec, ...] = ()
