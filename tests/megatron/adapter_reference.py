"""What transformers and PEFT compute for a case: logits, an adapter, gradients, training."""

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
RANK, ALPHA = 3, 5.0
FRESH_SEED = 11
# More tokens than the scaled rotations were trained with, and than a sliding window holds.
ROWS, LENGTH = 4, 18
STEPS = 3


def write_case(name: str, folder: Path) -> None:
    """Write what transformers and PEFT compute for a case, for ``mesh_worker.py``.

    Args:
        name: The case, one of ``tiny_models``.
        folder: Gets ``base`` and ``base.safetensors``; where adapters of the case are trained,
            ``peft`` and ``peft.safetensors``.
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
    """Adam, with an epsilon above the rounding of gradients, which it would blow up."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=0.01, eps=1e-3)


def _train(model: PeftModel, name: str, tokens: Tensor) -> dict[str, Tensor]:
    """The first gradients, and what comes of some steps."""
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
                key.replace(".default", ""): parameter.grad.clone()
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
    """Put random adapters on a model; of those that PEFT makes, B is zero.

    Args:
        base: The model.
        name: Its case. All that the family adapts by default is adapted.
        shared: Adapt only q, v and the experts, gate and up of an expert with one A for both.

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
        # It warns that it ignores the ranks of fused experts, which it does not.
        warnings.simplefilter("ignore", RuntimeWarning)
        model = get_peft_model(base, config)
    for key, parameter in model.named_parameters():
        if ".lora_B." in key:
            # Larger ones lead gated delta nets to where they amplify float32's rounding: at 0.1
            # a gradient can be 3e-5 off, of which 3e-6 is left when megatron runs in float64.
            parameter.data.normal_(std=0.04)
            if ".experts.base_layer." in key and parameters != FUSED_EXPERTS:
                _keep_gate_and_up_apart(parameter, base.config.num_experts)
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
    """Take out, now and while training, what an adapter of gate and one of up cannot have."""
    kept = torch.zeros(2, b.shape[0] // 2, 2, RANK, experts)
    kept[0, :, 0] = kept[1, :, 1] = 1
    kept = kept.reshape(b.shape)
    b.data *= kept
    b.register_hook(lambda gradient: gradient * kept)
