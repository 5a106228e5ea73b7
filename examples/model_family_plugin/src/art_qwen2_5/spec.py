"""The spec of Qwen2.5. It imports no engine, since art loads it to answer questions."""

from art.megatron.model_support.spec import DependencyFloor, HandlerMeta, ModelSupportSpec

_SIZES = ("0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B")

QWEN2_5_DENSE_SPEC = ModelSupportSpec(
    handler=HandlerMeta(
        key="qwen2_5_dense",
        handler_name="art_qwen2_5.handler:QWEN2_5_DENSE_HANDLER",
        native_vllm_lora_status="wip",
    ),
    # A config.json with this model_type is of this family, whatever the model is called.
    model_types=("qwen2",),
    model_names=tuple(
        f"Qwen/Qwen2.5-{size}{variant}" for size in _SIZES for variant in ("", "-Instruct")
    ),
    default_target_modules=(
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ),
    # The first transformers with the model type `qwen2`.
    dependency_floor=DependencyFloor(transformers="4.37.0"),
)  # fmt: skip
