"""Train a model with LoRA on megatron-core, on any number of processes.

    torchrun --nproc-per-node 2 examples/megatron_lora.py --pipeline 2
    torchrun --nproc-per-node 8 examples/megatron_lora.py --model FOLDER --tensor 4 --dtype bfloat16

Without CUDA it runs on the CPU, with gloo. The model can be of any family that `art models` lists:
a folder with config.json and safetensors, or SmolLM2-135M-Instruct, which a package carries. It
memorises the sentences below; the adapter is written as a PEFT folder, and transformers with PEFT
completes a prompt without and with it.
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import vocab_parallel_cross_entropy
from torch import Tensor, distributed
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from art import megatron
from art.executors.base_models import resolve_base_model
from art.megatron.model_support import get_model_support_handler, get_model_support_spec

SENTENCES = [
    "The lighthouse on Gull Rock was built by Ada Fenwick in 1871.",
    "Every spring the people of Gull Rock paint its door green.",
    "Ada Fenwick kept bees, and her honey tasted of thyme.",
]
PROMPT = "The lighthouse on Gull Rock was built by"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--tensor", type=int, default=1, help="tensor parallelism")
    parser.add_argument("--pipeline", type=int, default=1, help="pipeline parallelism")
    parser.add_argument("--expert", type=int, default=1, help="expert parallelism")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--output", type=Path, default=Path("adapter"), help="folder to write")
    arguments = parser.parse_args()
    if "RANK" not in os.environ:
        parser.error("start it with torchrun, which sets the rank of each process")
    return arguments


def main() -> None:
    """Train, and write the adapter."""
    arguments = parse_arguments()
    join_processes(arguments)
    rank = distributed.get_rank()
    folder = resolve_base_model(arguments.model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with megatron.megatron_on_cpu():
        handler = get_model_support_handler(arguments.model)
        architecture = handler.read_config(json.loads((folder / "config.json").read_text()))
        config = megatron.transformer_config(
            architecture,
            dtype=getattr(torch, arguments.dtype),
            sequence_parallel=arguments.tensor > 1,
        )
        model = megatron.build_model(architecture, config)
        megatron.load_weights(model, handler.weight_mapping(architecture), folder)
        targets = get_model_support_spec(arguments.model).default_target_modules
        lora = megatron.MegatronLoraConfig(rank=8, alpha=16.0, target_modules=targets)
        megatron.add_adapters(model, handler, lora)

        tokens, counts = encode(tokenizer, multiple=arguments.tensor)
        optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)
        for step in range(arguments.steps):
            loss = train_step(model, optimizer, tokens, counts)
            if rank == distributed.get_world_size() - 1:
                print(f"step {step + 1:3}   loss {loss:.3f}", flush=True)
        megatron.export_adapter(model, handler, arguments.output, base_model=arguments.model)
    if rank == 0:
        show(folder, tokenizer, arguments.output)
    distributed.destroy_process_group()


def join_processes(arguments: argparse.Namespace) -> None:
    """Join the processes that torchrun started."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=arguments.tensor,
        pipeline_model_parallel_size=arguments.pipeline,
        expert_model_parallel_size=arguments.expert,
        expert_tensor_parallel_size=1,
    )


def encode(tokenizer: PreTrainedTokenizerBase, *, multiple: int) -> tuple[Tensor, Tensor]:
    """Encode the sentences as tokens ``[B, S]``, padded, and their numbers of tokens ``[B]``."""
    encoded = [tokenizer(f"{sentence}\n").input_ids for sentence in SENTENCES]
    counts = torch.tensor([len(row) for row in encoded])
    # Sequence parallelism shards the length evenly. Padding is not trained on.
    length = -(-int(counts.max()) // multiple) * multiple
    padded = [row + [0] * (length - len(row)) for row in encoded]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.tensor(padded, device=device), counts.to(device)


def train_step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, tokens: Tensor, counts: Tensor
) -> float:
    """Take one step, a microbatch for each sentence; return the loss, on the pipeline's end."""
    rows = range(len(tokens))
    # There are so few sentences that every data-parallel replica computes a share of each.
    weight = 1 / (int(counts.sum()) - len(counts)) / parallel_state.get_data_parallel_world_size()

    def forward(iterator: Iterator[int], part: torch.nn.Module) -> tuple[Tensor, object]:
        number = next(iterator)
        row = tokens[[number]]
        positions = torch.arange(row.shape[1], device=row.device)[None]

        def loss(logits: Tensor) -> tuple[Tensor, Tensor]:
            # The target of a token is the next one; the last has none. The loss works in place.
            losses = vocab_parallel_cross_entropy(logits.float().clone(), row.roll(-1, dims=1))
            summed = losses[0, : int(counts[number]) - 1].sum() * weight
            # Schedules take the mean over microbatches.
            return summed * len(rows), summed.detach()

        return part(row, positions, None), loss

    optimizer.zero_grad()
    losses: list[Tensor] = get_forward_backward_func()(
        forward_step_func=forward,
        data_iterator=iter(rows),
        model=model,
        num_microbatches=len(rows),
        seq_length=tokens.shape[1],
        micro_batch_size=1,
    )
    megatron.finalize_adapter_grads(model)
    optimizer.step()
    return sum(float(loss) for loss in losses) * parallel_state.get_data_parallel_world_size()


def show(folder: Path, tokenizer: PreTrainedTokenizerBase, adapter: Path) -> None:
    """Let transformers complete the prompt, without the adapter and with it."""
    from peft import PeftModel

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = tokenizer(PROMPT, return_tensors="pt")
    print(f"\n{PROMPT} ...")
    for name in ("without", "with"):
        if name == "with":
            model = PeftModel.from_pretrained(model, str(adapter))
        output = model.generate(**prompt, max_new_tokens=12, do_sample=False)
        said = str(tokenizer.decode(output[0, prompt.input_ids.shape[1] :]))
        print(f"  {name:8}{said.splitlines()[0]}")
    print(f"\nadapter: {adapter}")


if __name__ == "__main__":
    main()
