"""References that transformers and PEFT compute: logits, adapters, gradients, training."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from .tiny_models import CASES, FUSED_EXPERTS, hf_config, save

BASE_MODEL = "tiny/base"
RANK, ALPHA = 3, 5
FRESH_SEED = 11
# More tokens than the scaled rotations were trained with, and than a sliding window holds.
ROWS, LENGTH = 4, 18
STEPS = 3


def write_case(name: str, folder: Path) -> None:
    """Compute the references of a case with transformers and PEFT, for ``mesh_worker.py``.

    Args:
        name: The case, one of ``tiny_models``.
        folder: The folder in which to write ``base`` and ``base.safetensors``, and if adapters of
            the case are trained, ``peft`` and ``peft.safetensors``.
    """
    model = save(name, folder / "base")
    tokens = torch.randint(97, (ROWS, LENGTH))
    with torch.no_grad():
        logits = model(input_ids=tokens).logits
    save_file({"tokens": tokens, "logits": logits}, folder / "base.safetensors")
    if CASES[name].adapted:
        adapted = peft_model(model, name)
        adapted.save_pretrained(str(folder / "peft"))
        save_file(_train(adapted, name, tokens), folder / "peft.safetensors")


def optimizer(parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Make an Adam with an epsilon above the rounding of gradients, which it would amplify."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=0.01, eps=1e-3)


def gradient_of(parameter: torch.nn.Parameter) -> Tensor:
    """Get the gradient of a parameter that must have one."""
    assert parameter.grad is not None
    return parameter.grad


def _train(model: PeftModel, name: str, tokens: Tensor) -> dict[str, Tensor]:
    """Compute the first gradients, and the losses and logits of some steps."""
    computed = {"tokens": tokens}
    losses = []
    steps = optimizer(model.parameters())
    for step in range(STEPS):
        steps.zero_grad()
        logits = model(input_ids=tokens).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
        )
        loss.backward()
        losses.append(loss.detach())
        if step == 0:
            computed["logits"] = logits.detach()
            gradients = {
                key.replace(".default", ""): gradient_of(parameter).clone()
                for key, parameter in model.named_parameters()
                if parameter.requires_grad
            }
            exported = as_exported(gradients, name)
            computed |= {f"gradient.{key}": value.contiguous() for key, value in exported.items()}
        steps.step()
    with torch.no_grad():
        computed["trained logits"] = model(input_ids=tokens).logits
    return computed | {"losses": torch.stack(losses)}


def peft_model(base: PreTrainedModel, name: str, *, shared: bool = False) -> PeftModel:
    """Add random adapters to a model; PEFT initialises B to zeros.

    Args:
        base: The model.
        name: Its case. The family's default modules are adapted.
        shared: Adapt only q, v and the experts, whose gate and up share one A.

    Returns:
        The model with adapters.
    """
    case = CASES[name]
    targets = [module for module in case.spec.default_target_modules if module != "experts"]
    parameters = case.parameters
    if shared:
        targets, parameters = ["q_proj", "v_proj"], FUSED_EXPERTS
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=targets, target_parameters=list(parameters) or None
    )
    with warnings.catch_warnings():
        # PEFT warns that it ignores the ranks of fused experts, which it does not.
        warnings.simplefilter("ignore", RuntimeWarning)
        model = get_peft_model(base, config)
    for key, parameter in model.named_parameters():
        if ".lora_B." in key:
            # With larger ones gated delta nets amplify float32's rounding: at 0.1 a gradient can
            # be 3e-5 off, of which 3e-6 is left if megatron computes in float64.
            parameter.data.normal_(std=0.04)
            if ".experts.base_layer." in key and parameters != FUSED_EXPERTS:
                _keep_gate_and_up_apart(parameter, base.config.num_experts)
    return model


def peft_logits(base: PreTrainedModel, adapter: Path, tokens: Tensor) -> Tensor:
    """Compute the logits of a model with an adapter that PEFT loads from a folder."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", RuntimeWarning)
        model = PeftModel.from_pretrained(base, str(adapter)).eval()
        return model(input_ids=tokens).logits


def as_exported(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Convert the tensors of PEFT's adapter to those that the family of a case exports.

    Args:
        tensors: PEFT's tensors, with fused experts.
        name: The case.

    Returns:
        The same numbers. For Qwen3, which vLLM serves with single experts, these are split.
    """
    if CASES[name].parameters == FUSED_EXPERTS or not CASES[name].experts:
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


def _keep_gate_and_up_apart(b: torch.nn.Parameter, experts: int) -> None:
    """Zero, now and in training, the blocks that separate adapters of gate and up do not have."""
    kept = torch.zeros(2, b.shape[0] // 2, 2, RANK, experts)
    kept[0, :, 0] = kept[1, :, 1] = 1
    kept = kept.reshape(b.shape)
    b.data *= kept
    b.register_hook(lambda gradient: gradient * kept)
