"""One rank of a model with adapters: what test_lora.py and test_adapters.py start with torchrun.

Takes a folder with a sub-folder for each case (see ``adapter_cases.py``), runs every layout of
every case, and writes what it measured to ``measured.json``.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from adapter_cases import BASE_MODEL, FRESH_SEED, LAYOUTS, Layout, layouts_of
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import vocab_parallel_cross_entropy
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed

from art.megatron.adapters.gather import gather_adapter
from art.megatron.adapters.peft import export_adapter, import_adapter
from art.megatron.cpu import megatron_on_cpu
from art.megatron.lora.config import LoraConfig
from art.megatron.lora.gradients import finalize_adapter_grads
from art.megatron.lora.injection import adapters_of, add_adapters
from art.megatron.model_support import ModelSupportHandler, handlers
from art.megatron.models.build import build_model, transformer_config
from art.megatron.weights.load import load_weights


def main(root: Path) -> None:
    distributed.init_process_group("gloo")
    measured: dict[str, Any] = {}
    with megatron_on_cpu():
        # Layouts outside: each leaves behind the threads of some forty groups.
        for name, layout in LAYOUTS.items():
            parallel_state.initialize_model_parallel(
                tensor_model_parallel_size=layout.tensor,
                pipeline_model_parallel_size=layout.pipeline,
                expert_model_parallel_size=layout.expert,
                expert_tensor_parallel_size=layout.expert_tensor,
            )
            for folder in sorted(path.parent for path in root.glob("*/case.json")):
                if name in layouts_of(folder.name):
                    case = json.loads((folder / "case.json").read_text())
                    measured[f"{folder.name}/{name}"] = _measure(folder, case, name, layout)
            parallel_state.destroy_model_parallel()
    if distributed.get_rank() == 0:
        (root / "measured.json").write_text(json.dumps(measured))
    distributed.destroy_process_group()


def _measure(folder: Path, case: dict[str, Any], name: str, layout: Layout) -> dict[str, Any]:
    handler = getattr(handlers, case["handler"])
    architecture = handler.read_config(json.loads((folder / "base" / "config.json").read_text()))
    config = transformer_config(
        architecture, dtype=torch.float32, sequence_parallel=layout.sequence_parallel
    )
    model = build_model(architecture, config)
    load_weights(model, handler.weight_mapping(architecture), folder / "base")
    reference = load_file(folder / "reference.safetensors")
    # torch convolves in another way, with other rounding, where a weight needs no gradient.
    model.requires_grad_(False)
    before = _logits(model, reference)
    model.requires_grad_(True)
    weights = {key: value.data_ptr() for key, value in model.named_parameters()}

    lora = LoraConfig(case["rank"], case["alpha"], tuple(case["target_modules"]), FRESH_SEED)
    add_adapters(model, handler, lora)
    after = _logits(model, reference)
    kept = {key: value.data_ptr() for key, value in model.named_parameters() if key in weights}
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    own = {key for key in dict(model.named_parameters()) if key not in weights}
    results: dict[str, Any] = {
        "unchanged": before is None or torch.equal(before, after),
        "base_kept": kept == weights,
        "only_adapters_trained": trained == own,
    }
    export_adapter(model, handler, folder / name / "fresh", base_model=BASE_MODEL)
    import_adapter(model, handler, folder / "peft", base_model=BASE_MODEL)
    logits = _logits(model, reference, train=True)
    if logits is not None and distributed.get_rank() == distributed.get_world_size() - 1:
        save_file({"logits": logits.contiguous()}, folder / name / "logits.safetensors")
    results["logits"] = None if logits is None else _difference(logits, reference["logits"], 1.0)
    finalize_adapter_grads(model)
    export_adapter(model, handler, folder / name / "exported", base_model=BASE_MODEL)
    trained_tensors = gather_adapter(model)
    if distributed.get_rank() == 0:
        save_file(trained_tensors, folder / name / "trained.safetensors")
    results |= _gradients(model, handler, reference, folder / name / "gradients")
    return _worst(results)


def _logits(model: GPTModel, reference: dict[str, Tensor], *, train: bool = False) -> Tensor | None:
    """The logits of the whole batch, on the ranks that are last in their pipelines."""
    data = parallel_state.get_data_parallel_rank()
    of_data = reference["tokens"].chunk(parallel_state.get_data_parallel_world_size())
    tokens = of_data[data]
    rows, length = tokens.shape
    positions = torch.arange(length).expand(rows, -1)
    incoming = None
    if not model.pre_process:
        # The pipeline by hand: megatron's schedules allocate on CUDA, whatever there is.
        incoming = torch.empty(_hidden_shape(model, rows, length), requires_grad=train)
        distributed.recv(incoming.data, parallel_state.get_pipeline_model_parallel_prev_rank())
        model.set_input_tensor(incoming)
    with torch.set_grad_enabled(train):
        output = model(tokens, positions, None)
    gradient = None
    if not model.post_process:
        after = parallel_state.get_pipeline_model_parallel_next_rank()
        distributed.send(output.detach().contiguous(), after)
        if train:
            gradient = torch.empty_like(output)
            distributed.recv(gradient, after)
    if train:
        result = output if gradient is not None else _loss(output, tokens, reference["tokens"])
        result.backward(gradient)
        if incoming is not None:
            distributed.send(
                incoming.grad.contiguous(), parallel_state.get_pipeline_model_parallel_prev_rank()
            )
    if not model.post_process:
        return None
    whole = _gather(output.detach(), parallel_state.get_tensor_model_parallel_group(), dim=-1)
    whole = _gather(whole, parallel_state.get_data_parallel_group(), dim=0)
    return whole[..., : reference["logits"].shape[-1]]


def _hidden_shape(model: GPTModel, rows: int, length: int) -> tuple[int, int, int]:
    config = model.config
    if config.sequence_parallel:
        length //= config.tensor_model_parallel_size
    return length, rows, config.hidden_size


def _loss(logits: Tensor, tokens: Tensor, whole_batch: Tensor) -> Tensor:
    """This rank's part of the mean over the tokens of the whole batch."""
    # Of each token the next: the last has none.
    labels = tokens.roll(-1, dims=1)
    # It works in place.
    own = logits.clone(memory_format=torch.contiguous_format)
    losses = vocab_parallel_cross_entropy(own, labels)
    return losses[:, :-1].sum() / whole_batch[:, 1:].numel()


def _gather(tensor: Tensor, group: distributed.ProcessGroup, dim: int) -> Tensor:
    parts = [torch.empty_like(tensor) for _ in range(group.size())]
    distributed.all_gather(parts, tensor.contiguous(), group=group)
    return torch.cat(parts, dim=dim)


def _gradients(
    model: GPTModel, handler: ModelSupportHandler, reference: dict[str, Tensor], folder: Path
) -> dict[str, Any]:
    """Gradients against the reference's, gathered and named as the adapter itself is."""
    spread = 0.0
    with torch.no_grad():
        for adapter in adapters_of(model):
            for parameter in adapter.parameters():
                parameter.copy_(parameter.grad)
            replicas = parallel_state.get_data_parallel_group()
            if adapter.is_expert:
                replicas = parallel_state.get_expert_data_parallel_group()
            for module in adapter.shapes:
                pair = adapter.pair(module)
                whole = pair.matrix(adapter.replicated)
                spread = max(
                    spread,
                    _spread(whole, adapter.group),
                    *(_spread(matrix, replicas) for matrix in pair.parameters()),
                )
    export_adapter(model, handler, folder, base_model=BASE_MODEL)
    gathered = load_file(folder / "adapter_model.safetensors")
    expected = {key[9:]: value for key, value in reference.items() if key.startswith("gradient.")}
    assert gathered.keys() == expected.keys(), gathered.keys() ^ expected.keys()
    return {
        "spread": spread,
        "gradients": max(
            _difference(gathered[key], value, value.abs().max().item())
            for key, value in expected.items()
        ),
    }


def _spread(tensor: Tensor, group: distributed.ProcessGroup) -> float:
    """How far the replicas of a tensor are from each other."""
    whole = _gather(tensor.detach()[None], group, dim=0)
    return (whole - whole[:1]).abs().max().item()


def _difference(ours: Tensor, theirs: Tensor, scale: float) -> float:
    return (ours - theirs).abs().max().item() / scale


def _worst(results: dict[str, Any]) -> dict[str, Any]:
    """The worst that any rank measured."""
    of_ranks: list[dict[str, Any]] = [{}] * distributed.get_world_size()
    distributed.all_gather_object(of_ranks, results)
    worst: dict[str, Any] = {}
    for of_rank in of_ranks:
        for key, value in of_rank.items():
            if isinstance(value, bool):
                worst[key] = worst.get(key, True) and value
            elif value is not None:
                worst[key] = max(worst.get(key, 0.0), value)
    return worst


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]))
