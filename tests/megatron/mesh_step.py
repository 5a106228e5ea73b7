"""Forward and backward passes of a sharded model, by megatron's own schedules.

Axes: B sequences of the batch, S positions, V padded vocabulary.
"""

from typing import Any, NamedTuple

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import vocab_parallel_cross_entropy
from torch import Tensor, distributed


class Step(NamedTuple):
    """The result of a pass over the whole batch; ``None`` but on the last ranks of the pipeline.

    Args:
        logits: ``[B, S, V]`` of the whole batch.
        loss: The mean over the batch's tokens, without the last of each row.
    """

    logits: Tensor | None
    loss: float | None


def run_step(model: GPTModel, tokens: Tensor, *, train: bool) -> Step:
    """Pass a batch through a model, in microbatches of two rows.

    Args:
        model: This rank's part of the model.
        tokens: ``[B, S]``, the whole batch, the same on every rank.
        train: Compute gradients too, of the mean over the whole batch, which
            :func:`art.megatron.lora.gradients.finalize_adapter_grads` then completes.

    Returns:
        The logits and the loss.
    """
    model.train(train)
    data = parallel_state.get_data_parallel_rank()
    own = tokens.chunk(parallel_state.get_data_parallel_world_size())[data]
    microbatches = own.split(min(2, len(own)))
    logits: list[Tensor] = []

    def forward(iterator: Any, model: GPTModel) -> tuple[Tensor, Any]:
        rows = next(iterator)
        positions = torch.arange(rows.shape[1]).expand_as(rows)
        output = model(rows, positions, None)
        if model.post_process:
            logits.append(output.detach().clone())
        return output, lambda output: _loss(output, rows, tokens, len(microbatches))

    with torch.set_grad_enabled(train):
        losses = get_forward_backward_func()(
            forward_step_func=forward,
            data_iterator=iter(microbatches),
            model=model,
            num_microbatches=len(microbatches),
            seq_length=tokens.shape[1],
            micro_batch_size=len(microbatches[0]),
            forward_only=not train,
        )
    if not model.post_process:
        return Step(None, None)
    whole = _gather(torch.cat(logits), parallel_state.get_tensor_model_parallel_group(), dim=-1)
    whole = _gather(whole, parallel_state.get_data_parallel_group(), dim=0)
    loss = torch.stack(losses).sum()
    distributed.all_reduce(loss, group=parallel_state.get_data_parallel_group())
    return Step(whole, loss.item())


def _loss(
    logits: Tensor, rows: Tensor, whole_batch: Tensor, microbatches: int
) -> tuple[Tensor, Tensor]:
    """Compute these rows' part of the mean over the whole batch."""
    # The loss works in place. The target of a token is the next one; the last has none.
    own = logits.clone(memory_format=torch.contiguous_format)
    losses = vocab_parallel_cross_entropy(own, rows.roll(-1, dims=1))
    loss = losses[:, :-1].sum() / whole_batch[:, 1:].numel()
    # Megatron's schedules take the mean over microbatches.
    return loss * microbatches, loss.detach()


def _gather(tensor: Tensor, group: distributed.ProcessGroup, dim: int) -> Tensor:
    parts = [torch.empty_like(tensor) for _ in range(group.size())]
    distributed.all_gather(parts, tensor.contiguous(), group=group)
    return torch.cat(parts, dim=dim)
