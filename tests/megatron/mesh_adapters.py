"""Adapters of a sharded model: added, imported, trained and exported."""

from pathlib import Path

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed

from art.megatron.adapters.gather import gather_adapter
from art.megatron.adapters.peft import export_adapter, import_adapter
from art.megatron.lora.config import MegatronLoraConfig
from art.megatron.lora.gradients import finalize_adapter_grads
from art.megatron.lora.injection import adapters_of, add_adapters
from art.megatron.model_support import ModelSupportHandler

from .adapter_reference import ALPHA, BASE_MODEL, FRESH_SEED, RANK, STEPS, gradient_of, optimizer
from .mesh_step import run_step
from .tiny_models import CASES


def measure_adapters(
    model: GPTModel, handler: ModelSupportHandler, folder: Path, output: Path
) -> dict[str, bool | float | None]:
    """Add, import, train and export an adapter, and compare each step with PEFT's.

    Args:
        model: This rank's part of a model, with its weights.
        handler: The handler of its family.
        folder: The case's folder, with PEFT's results.
        output: The folder in which to write the adapter as it starts, as imported and as trained,
            and its gradients.

    Returns:
        The measurements of this rank.
    """
    reference = load_file(folder / "peft.safetensors")
    measured: dict[str, bool | float | None] = {}
    measured |= _measure_start(model, handler, reference, folder)
    export_adapter(model, handler, output / "fresh", base_model=BASE_MODEL)
    import_adapter(model, handler, folder / "peft", base_model=BASE_MODEL)
    first = run_step(model, reference["tokens"], train=True)
    finalize_adapter_grads(model)
    measured["adapted logits"] = _difference(first.logits, reference["logits"])
    export_adapter(model, handler, output / "imported", base_model=BASE_MODEL)
    trained = gather_adapter(model)
    if distributed.get_rank() == 0:
        save_file(trained, output / "as_trained.safetensors")
    measured |= _measure_gradients(model, handler, reference, output / "gradients")
    losses, last = _train(model, reference["tokens"])
    measured["losses"] = _difference(losses, reference["losses"])
    measured["trained logits"] = _difference(last, reference["trained logits"])
    export_adapter(model, handler, output / "trained", base_model=BASE_MODEL)
    if last is not None and distributed.get_rank() == distributed.get_world_size() - 1:
        save_file({"logits": last.contiguous()}, output / "trained_logits.safetensors")
    return measured


def _measure_start(
    model: GPTModel, handler: ModelSupportHandler, reference: dict[str, Tensor], folder: Path
) -> dict[str, bool]:
    """Add adapters, and check that nothing else changes."""
    # If a weight needs no gradient, torch convolves in another way, with other rounding.
    model.requires_grad_(False)
    before = run_step(model, reference["tokens"], train=False).logits
    model.requires_grad_(True)
    weights = {key: value.data_ptr() for key, value in model.named_parameters()}
    targets = CASES[folder.name].spec.default_target_modules
    add_adapters(model, handler, MegatronLoraConfig(RANK, ALPHA, targets, FRESH_SEED))
    after = run_step(model, reference["tokens"], train=False).logits
    parameters = dict(model.named_parameters())
    kept = {key: value.data_ptr() for key, value in parameters.items() if key in weights}
    trained = {key for key, value in parameters.items() if value.requires_grad}
    return {
        "unchanged": before is None or after is None or torch.equal(before, after),
        "base kept": kept == weights,
        "only adapters trained": trained == parameters.keys() - weights.keys(),
    }


def _measure_gradients(
    model: GPTModel, handler: ModelSupportHandler, reference: dict[str, Tensor], folder: Path
) -> dict[str, float]:
    """Compare gradients with the reference's, gathered and named like the adapter itself."""
    spread = 0.0
    values: dict[torch.nn.Parameter, Tensor] = {}
    with torch.no_grad():
        for adapter in adapters_of(model):
            for parameter in adapter.parameters():
                values[parameter] = parameter.clone()
                parameter.copy_(gradient_of(parameter))
            replicas = parallel_state.get_data_parallel_group()
            if adapter.is_expert:
                replicas = parallel_state.get_expert_data_parallel_group()
            for module in adapter.shapes:
                pair = adapter.pair(module)
                spread = max(
                    spread,
                    _spread(pair.matrix(adapter.replicated), adapter.group),
                    *(_spread(matrix, replicas) for matrix in pair.parameters()),
                )
        export_adapter(model, handler, folder, base_model=BASE_MODEL)
        for parameter, value in values.items():
            parameter.copy_(value)
    gathered = load_file(folder / "adapter_model.safetensors")
    prefix = "gradient."
    expected = {k.removeprefix(prefix): v for k, v in reference.items() if k.startswith(prefix)}
    assert gathered.keys() == expected.keys(), gathered.keys() ^ expected.keys()
    errors = [
        (gathered[key] - value).abs().max().item() / value.abs().max().item()
        for key, value in expected.items()
    ]
    return {"spread": spread, "gradients": max(errors)}


def _train(model: GPTModel, tokens: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Take the steps of PEFT's model; return the loss before each, and the logits after all."""
    steps = optimizer(model.parameters())
    losses = []
    for _ in range(STEPS):
        steps.zero_grad()
        losses.append(run_step(model, tokens, train=True).loss)
        finalize_adapter_grads(model)
        steps.step()
    last = run_step(model, tokens, train=False).logits
    return None if last is None else torch.tensor(losses), last


def _spread(tensor: Tensor, group: distributed.ProcessGroup) -> float:
    """Compute the largest difference between the replicas of a tensor."""
    whole = [torch.empty_like(tensor) for _ in range(group.size())]
    distributed.all_gather(whole, tensor.detach().contiguous(), group=group)
    return max((replica - whole[0]).abs().max().item() for replica in whole)


def _difference(ours: Tensor | None, theirs: Tensor) -> float | None:
    if ours is None:
        return None
    return (ours[..., : theirs.shape[-1]] - theirs).abs().max().item()
