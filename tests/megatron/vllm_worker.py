"""Loading of adapters by vLLM's own code, on the CPU and without its kernels.

``vllm_worker.py ROOT`` does for each folder of ROOT, which ``vllm_cases.py`` wrote, what a server
does: build the model, load its weights, and add one adapter after the other. It then writes what
each adapter, and what PEFT's merged checkpoint, adds to every weight as vLLM lays it out. It runs
where vLLM is importable, and imports nothing of art.
"""

import importlib.util
import json
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if importlib.util.find_spec("torchvision") is None:
    # vLLM imports this name with the class of a vision model, and does not use it to load
    # adapters. The package itself would have to be built for the installed torch.
    import transformers  # noqa: F401 - asks first which packages there are

    absent = types.ModuleType("torchvision.transforms.v2")
    vars(absent)["functional"] = None
    sys.modules[absent.__name__] = absent

import torch
from safetensors.torch import load_file, save_file
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import (
    destroy_distributed_environment,
    destroy_model_parallel,
    init_distributed_environment,
    initialize_model_parallel,
)
from vllm.engine.arg_utils import EngineArgs
from vllm.lora.layers import BaseLayerWithLoRA, FusedMoEWithLoRA
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.request import LoRARequest
from vllm.lora.worker_manager import WorkerLoRAManager
from vllm.model_executor.model_loader.utils import (
    initialize_model,
    process_weights_after_loading,
)
from vllm.model_executor.models.registry import ModelRegistry

CPU = torch.device("cpu")


def main(root: Path) -> None:
    for case in sorted(root.iterdir()):
        config = engine_config(case / "base")
        with set_current_vllm_config(config), one_process():
            run_case(case, config)


def run_case(case: Path, config: VllmConfig) -> None:
    """Write ``wanted.safetensors``, and one such file or an error for each adapter."""
    model = initialize_model(config)
    base, merged = (load_weights(model, case / name) for name in ("base", "merged"))
    wanted = {name: merged[name] - weight for name, weight in base.items()}
    save_file(changed(wanted), case / "wanted.safetensors")
    # Makes the kernels of experts, which LoRA's layers ask for.
    process_weights_after_loading(model, config.model_config, CPU)
    manager = WorkerLoRAManager(config, CPU, model.embedding_modules)
    manager.create_lora_manager(model, config)
    errors = {}
    for number, adapter in enumerate(sorted((case / "adapters").iterdir()), start=1):
        try:
            manager.add_adapter(LoRARequest(adapter.name, number, str(adapter)))
            found = dict(updates(manager._adapter_manager.modules))
            save_file(changed(found), case / f"{adapter.name}.safetensors")
        except (AssertionError, RuntimeError, ValueError) as error:
            errors[adapter.name] = str(error) or repr(error)
        finally:
            manager.remove_adapter(number)
    (case / "errors.json").write_text(json.dumps(errors))


def engine_config(checkpoint: Path) -> VllmConfig:
    (name,) = json.loads((checkpoint / "config.json").read_text())["architectures"]
    # Otherwise another process imports the class, to ask what it can do.
    ModelRegistry.register_model(name, ModelRegistry.models[name].load_model_cls())
    return EngineArgs(
        model=str(checkpoint),
        skip_tokenizer_init=True,
        dtype="float32",
        max_model_len=64,
        max_num_seqs=1,
        max_num_batched_tokens=64,
        enforce_eager=True,
        enable_lora=True,
        max_lora_rank=8,
    ).create_engine_config()


@contextmanager
def one_process() -> Iterator[None]:
    """vLLM's groups of ranks, which differ with the model that is the current one."""
    with tempfile.TemporaryDirectory() as folder:
        init_distributed_environment(1, 0, f"file://{folder}/store", 0, "gloo")
        initialize_model_parallel(1, 1)
        yield
        destroy_model_parallel()
        destroy_distributed_environment()


def load_weights(model: Any, checkpoint: Path) -> dict[str, torch.Tensor]:
    model.load_weights(load_file(checkpoint / "model.safetensors").items())
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def updates(modules: dict[str, BaseLayerWithLoRA]) -> Iterator[tuple[str, torch.Tensor]]:
    """Compute the update of each weight by the active adapter: the scale is already in B."""
    for name, layer in modules.items():
        if isinstance(layer, FusedMoEWithLoRA):
            for weight in ("w13", "w2"):
                a, b = (getattr(layer, f"{weight}_lora_{matrix}_stacked") for matrix in "ab")
                yield f"{name}.routed_experts.{weight}_weight", product(a, b)
        elif isinstance(layer, BaseLinearLayerWithLoRA):
            yield f"{name}.weight", product(layer.lora_a_stacked, layer.lora_b_stacked)[0]


def product(a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Multiply the parts of a fused layer, ``[slots, E, R, I]`` and ``[slots, E, O, R]``."""
    return torch.cat([part_b[0] @ part_a[0] for part_a, part_b in zip(a, b, strict=True)], dim=1)


def changed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: change.contiguous() for name, change in weights.items() if change.any()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
