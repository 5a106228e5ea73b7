"""Input for vLLM: a model, the same with PEFT's adapter merged into it, and adapters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    PretrainedConfig,
    PreTrainedModel,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
)

from .adapter_models import adapted_model
from .adapter_reference import BASE_MODEL, peft_model
from .tiny_models import CASES, VISION, hf_config, hf_model
from .vllm_faults import FAULTS, Written

# vLLM finds its class by the name that the checkpoint has; for Mistral it is one of its own.
SERVED = ("default_dense_mistral", *(name for name, case in CASES.items() if case.adapted))
# The vision-language models as which decoders are published and served.
VISION_MODELS: dict[str, tuple[type[PreTrainedModel], Callable[..., PretrainedConfig]]] = {
    "qwen3_5_dense": (Qwen3_5ForConditionalGeneration, Qwen3_5Config),
    "qwen3_5_moe": (Qwen3_5MoeForConditionalGeneration, Qwen3_5MoeConfig),
}
# vLLM loads one only beside the other.
BESIDE = {"in_proj_z": {"in_proj_qkv"}}


class _Trained(NamedTuple):
    """A trained adapter: its tensors by the names that training gives them, and its config."""

    case: str
    tensors: dict[str, Tensor]
    config: Any

    def serve(self, kinds: set[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Convert the tensors of some kinds of modules to those for vLLM."""
        from art.megatron.adapters.peft_config import write_config

        tensors = {name: tensor for name, tensor in self.tensors.items() if _kind(name) in kinds}
        hf = hf_config(self.case)
        heads = {key: getattr(hf, key) for key in ("num_attention_heads", "num_key_value_heads")}
        config = write_config(self.config, BASE_MODEL, tensors) | heads
        handler = CASES[self.case].handler
        return handler.to_vllm_lora_tensors(tensors, adapter_config=config)


def write_case(case: str, folder: Path) -> None:
    """Write a case for ``vllm_worker.py``.

    Args:
        case: One of ``SERVED``.
        folder: The folder in which to write ``base``, ``merged`` and, under ``adapters``, the
            adapters that vLLM is to load: ``peft`` as PEFT writes it, ``exported`` and ``served``
            as art does, ``part-*`` of few kinds of modules, and the faults.
    """
    from art.megatron.adapters.folder import write_folder

    adapters = folder / "adapters"
    base = hf_model(case)
    _as_published(base, case).save_pretrained(folder / "base")
    peft = peft_model(base, case)
    peft.save_pretrained(str(adapters / "peft"))
    trained = _train(case, adapters)
    kinds = {_kind(name) for name in trained.tensors}
    served, config = trained.serve(kinds)
    write_folder(adapters / "served", served, config)
    for kind in kinds:
        write_folder(adapters / f"part-{kind}", *trained.serve({kind} | BESIDE.get(kind, set())))
    for name, fault in FAULTS.items():
        if fault.case == case:
            write_folder(adapters / name, fault.spoil(Written(trained.tensors, served)), config)
    _as_published(peft.merge_and_unload(), case).save_pretrained(folder / "merged")


def _train(case: str, adapters: Path) -> _Trained:
    """Import PEFT's adapter into a megatron model, and export it."""
    from art.megatron.adapters.gather import gather_adapter, whole_adapter
    from art.megatron.adapters.peft import export_adapter, import_adapter

    model = adapted_model(case)
    handler = CASES[case].handler
    import_adapter(model, handler, adapters / "peft", base_model=BASE_MODEL)
    export_adapter(model, handler, adapters / "exported", base_model=BASE_MODEL)
    return _Trained(case, gather_adapter(model), whole_adapter(model).config)


def _kind(name: str) -> str:
    """Get the kind of a tensor's module: a projection, or the experts, adapted together."""
    return "experts" if ".experts." in name else name.split(".")[-3]


def _as_published(model: PreTrainedModel, case: str) -> PreTrainedModel:
    """Put a decoder into the class of model that its published checkpoints have."""
    if case not in VISION_MODELS:
        return model
    model_class, config_class = VISION_MODELS[case]
    torch.manual_seed(0)
    text = hf_config(case).to_dict()
    seeing = model_class(config_class(text_config=text, vision_config=VISION))
    seeing.model.language_model.load_state_dict(model.model.state_dict())
    seeing.lm_head.load_state_dict(model.lm_head.state_dict())
    return seeing
