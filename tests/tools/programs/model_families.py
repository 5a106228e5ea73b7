"""A user's script: what is known of a model's family, and the handler that builds it."""

from art.errors import ArtError, MissingExtraError
from art.megatron.model_support import (
    ModelSupportHandler,
    ModelSupportSpec,
    NativeVllmLoraStatus,
    default_target_modules_for_model,
    get_model_support_handler,
    get_model_support_spec,
)
from art.megatron.model_support.handlers import QWEN3_MOE_HANDLER, Qwen3MoeHandler


def describe(base_model: str) -> str:
    spec: ModelSupportSpec = get_model_support_spec(base_model)
    modules = ", ".join(default_target_modules_for_model(base_model))
    status: NativeVllmLoraStatus = spec.handler.native_vllm_lora_status
    return f"{spec.key}: {modules} (vLLM LoRA: {status})"


def load(base_model: str) -> ModelSupportHandler | None:
    try:
        return get_model_support_handler(base_model)
    except MissingExtraError as error:
        print(f"{error.module} comes with the extra {error.extra}")
    except ArtError as error:
        print(error)
    return None


handler: Qwen3MoeHandler = QWEN3_MOE_HANDLER
print(describe("Qwen/Qwen3-30B-A3B-Instruct-2507"), load("Qwen/Qwen3-0.6B"), handler.key)
