"""What PEFT computes for a case: an adapter in a folder, logits and gradients."""

import json
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from art.megatron.model_support import registry

from .tiny_models import CASES, hf_config, save

RANK, ALPHA = 3, 5.0
ROWS, LENGTH = 4, 10


def write_case(name: str, folder: Path) -> None:
    """Write a case for ``adapter_worker.py``.

    Args:
        name: The case, one of ``tiny_models``.
        folder: Gets ``base``, ``peft``, ``reference.safetensors`` and ``case.json``.
    """
    base = save(name, folder / "base")
    spec = getattr(registry, f"{CASES[name].family.upper()}_SPEC")
    model = peft_model(base, name)
    model.save_pretrained(str(folder / "peft"))
    tokens = torch.randint(base.config.vocab_size, (ROWS, LENGTH))
    logits = model(input_ids=tokens).logits
    torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    ).backward()
    gradients = {
        key.replace(".default", ""): parameter.grad
        for key, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    reference = {
        f"gradient.{key}": value.contiguous() for key, value in as_exported(gradients, name).items()
    }
    reference |= {"tokens": tokens, "logits": logits.detach()}
    save_file(reference, folder / "reference.safetensors")
    case = {
        "handler": spec.handler.handler_name,
        "rank": RANK,
        "alpha": ALPHA,
        "target_modules": list(spec.default_target_modules),
    }
    (folder / "case.json").write_text(json.dumps(case))


def peft_model(base: PreTrainedModel, name: str, *, shared: bool = False) -> PeftModel:
    """Put random adapters on a model; of those that PEFT makes, B is zero.

    Args:
        base: The model.
        name: Its case. All that the family adapts by default is adapted.
        shared: Adapt only q, v and the experts, gate and up of an expert with one A for both.

    Returns:
        The model with adapters.
    """
    family = CASES[name].family
    spec = getattr(registry, f"{family.upper()}_SPEC")
    targets = [module for module in spec.default_target_modules if module != "experts"]
    parameters = []
    if shared:
        targets = ["q_proj", "v_proj"]
    if shared or family == "qwen3_5_moe":
        parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    elif name == "qwen3_moe_mixed":
        # PEFT takes the names of experts for those of their parameters alone.
        parameters = [f"mlp.{module}.weight" for module in ("gate_proj", "up_proj", "down_proj")]
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=targets, target_parameters=parameters or None
    )
    with warnings.catch_warnings():
        # It warns that it ignores the ranks of fused experts, which it does not.
        warnings.simplefilter("ignore", RuntimeWarning)
        model = get_peft_model(base, config)
    for key, parameter in model.named_parameters():
        if ".lora_B." in key:
            # Larger ones lead gated delta nets to where they amplify float32's rounding: at 0.1
            # a gradient can be 3e-5 off, of which 3e-6 is left when megatron runs in float64.
            parameter.data.normal_(std=0.04)
            if ".experts.base_layer." in key and family == "qwen3_moe" and not shared:
                _block_diagonal(parameter.data, base.config.num_experts)
    return model


def peft_logits(base: PreTrainedModel, adapter: Path, tokens: Tensor) -> Tensor:
    """The logits of a model with an adapter that PEFT loads from a folder."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", RuntimeWarning)
        model = PeftModel.from_pretrained(base, str(adapter)).eval()
        return model(input_ids=tokens).logits


def as_exported(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Name and cut the tensors of PEFT's adapter as the family of a case exports them.

    Args:
        tensors: PEFT's tensors, of which it made fused experts of gate, up and down.
        name: The case.

    Returns:
        The same numbers; of Qwen3, which vLLM serves expert by expert, each expert by itself.
    """
    if CASES[name].family != "qwen3_moe":
        return tensors
    config = hf_config(name)
    single = {}
    for key, tensor in tensors.items():
        module, _, matrix = key.rpartition(".lora_")
        if not module.endswith((".experts", ".experts.base_layer")):
            single[key] = tensor
            continue
        experts = module.removesuffix(".base_layer")
        projections = ("gate_proj", "up_proj") if module != experts else ("down_proj",)
        for expert in range(config.num_experts):
            for number, projection in enumerate(projections):
                inner = range(number * RANK, (number + 1) * RANK)
                name = f"{experts}.{expert}.{projection}.lora_{matrix}"
                if matrix.startswith("A"):
                    rows = [expert * len(projections) * RANK + row for row in inner]
                    single[name] = tensor[rows]
                else:
                    columns = [row * config.num_experts + expert for row in inner]
                    size = tensor.shape[0] // len(projections)
                    single[name] = tensor[number * size : (number + 1) * size, columns]
    return single


def _block_diagonal(b: Tensor, experts: int) -> None:
    """Take out what an adapter of gate and one of up cannot have."""
    half = b.shape[0] // 2
    by_rank = b.view(b.shape[0], 2 * RANK, experts)
    by_rank[:half, RANK:] = 0
    by_rank[half:, :RANK] = 0
