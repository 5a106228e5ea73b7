"""One adapter's loss and gradients, computed in packed passes.

Shapes: B rows of a pass, N tokens of a row, T tokens of a datum, K targets a position, L targets
of a pass, A targets that can have a loss, M tokens that predict one of them, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from art.errors import ContextLengthError, TrainingDataError
from art.executors.losses import Loss
from art.executors.packing import Pass
from art.executors.torch.adapters import Parameters
from art.executors.torch.language_model import LanguageModel
from art.executors.torch.turns import Turn
from art.executors.types import Datum, FloatArray, ForwardBackwardResult, LossFunction


def forward_backward(
    language_model: LanguageModel,
    turn: Turn,
    parameters: Parameters,
    data: Sequence[Datum],
    loss_function: LossFunction,
    *,
    backward: bool,
) -> tuple[ForwardBackwardResult, list[torch.Tensor] | None]:
    """Compute a loss and, with ``backward``, its gradient, in passes of bounded size.

    Args:
        language_model: The base model.
        turn: Holds the model with the adapter active; taken for each pass, forward and backward
            together.
        parameters: What to differentiate by.
        data: Training sequences; none is changed.
        loss_function: Which loss, with which numbers.
        backward: Whether to compute the gradient.

    Returns:
        The result for the wire, and the gradient of the summed loss by each parameter, in the
        order of ``parameters``. No parameter's ``grad`` is touched.

    Raises:
        InvalidRequestError: The loss or its configuration is unknown.
        ContextLengthError: A datum is longer than the context.
        TrainingDataError: A datum cannot be used.
    """
    loss = Loss.of(loss_function)
    for index, datum in enumerate(data):
        _check_datum(language_model, loss, loss_function.name, datum, index)
    outputs: list[FloatArray] = [np.empty(0, np.float32)] * len(data)
    total = 0.0
    gradient: list[torch.Tensor] | None = None
    if backward:
        gradient = [torch.zeros_like(parameter) for parameter in parameters.values()]
    for step in language_model.passes([datum.tokens for datum in data]):
        targets = _Targets.of(step, data, loss, language_model.device)
        differentiable = backward and bool(targets.active_L.any())
        with turn(), torch.set_grad_enabled(differentiable):
            logprobs = _target_logprobs(language_model, step, targets)
            value = _loss_sum(logprobs, targets, loss)
            if gradient is not None and value.requires_grad:
                _add_gradient(gradient, value, parameters)
        total += float(value.detach())
        for (index, _), part in zip(step.paths, logprobs, strict=True):
            outputs[index] = part.detach().cpu().numpy()
    result = ForwardBackwardResult(
        outputs=[{"logprobs": logprobs} for logprobs in outputs], metrics={"loss:sum": total}
    )
    return result, gradient


def _add_gradient(
    gradient: list[torch.Tensor], value: torch.Tensor, parameters: Parameters
) -> None:
    parts = torch.autograd.grad(
        value, list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    for whole, part in zip(gradient, parts, strict=True):
        whole += part


@dataclass(frozen=True, slots=True, kw_only=True)
class _Targets:
    """The targets of one pass, all datums of the pass one after the other.

    Attributes:
        nodes_L: int64, the token of the pass, of all ``B * N``, that predicts each target.
        tokens_L: int64, the targets.
        active_L: bool, which of them can have a loss.
        shapes: For each datum of the pass, the shape of its targets, ``[T]`` or ``[T, K]``.
        inputs: For each datum of the pass, its other loss inputs, shaped as its targets, float32.
    """

    nodes_L: torch.Tensor
    tokens_L: torch.Tensor
    active_L: torch.Tensor
    shapes: list[torch.Size]
    inputs: list[dict[str, torch.Tensor]]

    @staticmethod
    def of(step: Pass, data: Sequence[Datum], loss: Loss, device: torch.device) -> "_Targets":
        nodes, tokens, active, shapes, inputs = [], [], [], [], []
        for index, path in step.paths:
            # One copy, straight to the device: the wire's arrays are read-only views.
            arrays = {
                name: torch.tensor(array, device=device, dtype=torch.float32)
                for name, array in data[index].loss_inputs.items()
                if name != "target_tokens"
            }
            target = torch.tensor(
                data[index].loss_inputs["target_tokens"], device=device, dtype=torch.int64
            )
            nodes_of_target = torch.tensor(path, device=device)
            if target.dim() == 2:
                nodes_of_target = nodes_of_target[:, None].expand_as(target)
            nodes.append(nodes_of_target.reshape(-1))
            tokens.append(target.reshape(-1))
            active.append(loss.active(arrays, target).reshape(-1))
            shapes.append(target.shape)
            inputs.append(arrays)
        return _Targets(
            nodes_L=torch.cat(nodes),
            tokens_L=torch.cat(tokens),
            active_L=torch.cat(active),
            shapes=shapes,
            inputs=inputs,
        )


def _target_logprobs(
    language_model: LanguageModel, step: Pass, targets: _Targets
) -> list[torch.Tensor]:
    """Compute the logprobs of the targets, ``[T]`` or ``[T, K]`` for each datum of the pass.

    Targets without a loss are reported too, but need no backward pass through the output layer,
    the widest of the model.
    """
    hidden_BN_D = language_model.hidden_states(step)
    logprobs_L = torch.empty(len(targets.nodes_L), device=hidden_BN_D.device)
    for chosen_L, with_grad in ((targets.active_L, True), (~targets.active_L, False)):
        index_A = chosen_L.nonzero().squeeze(1)
        if not len(index_A):
            continue
        # Sort the targets by the token that predicts them: logits are then computed once a token,
        # however many sequences of the tree, or targets of a position, it predicts.
        index_A = index_A[targets.nodes_L[index_A].argsort(stable=True)]
        nodes_M, rows_A = torch.unique_consecutive(targets.nodes_L[index_A], return_inverse=True)
        with torch.set_grad_enabled(with_grad and torch.is_grad_enabled()):
            values_A = language_model.token_logprobs(
                hidden_BN_D[nodes_M], rows_A, targets.tokens_L[index_A]
            )
        logprobs_L = logprobs_L.index_put((index_A,), values_A)
    sizes = [shape.numel() for shape in targets.shapes]
    return [
        part.view(shape)
        for part, shape in zip(logprobs_L.split(sizes), targets.shapes, strict=True)
    ]


def _loss_sum(logprobs: list[torch.Tensor], targets: _Targets, loss: Loss) -> torch.Tensor:
    return torch.stack(
        [
            loss.tokens(part, inputs).sum()
            for part, inputs in zip(logprobs, targets.inputs, strict=True)
        ]
    ).sum()


def _check_datum(
    language_model: LanguageModel, loss: Loss, loss_name: str, datum: Datum, index: int
) -> None:
    what = f"datum {index}"
    language_model.check_tokens(datum.tokens, what, TrainingDataError)
    length = len(datum.tokens)
    if length > language_model.max_context_length:
        raise ContextLengthError(
            f"{what} has {length} tokens; the model's context is "
            f"{language_model.max_context_length}. Shorten or drop the trajectory."
        )
    _check_names(loss, loss_name, datum, what)
    targets = datum.loss_inputs["target_tokens"]
    if targets.shape[:1] != (length,) or targets.ndim > (2 if loss.spec.takes_many_targets else 1):
        raise TrainingDataError(
            f"{what}: target_tokens has shape {list(targets.shape)}, not [{length}]"
            f"{f' or [{length}, K]' if loss.spec.takes_many_targets else ''}, as its {length} "
            "tokens ask"
        )
    language_model.check_tokens(
        np.asarray(targets, np.int64), f"{what}, target_tokens", TrainingDataError
    )
    for name, array in datum.loss_inputs.items():
        if array.shape != targets.shape:
            raise TrainingDataError(
                f"{what}: {name} has shape {list(array.shape)}, but target_tokens has "
                f"{list(targets.shape)}"
            )
        if not np.isfinite(array).all():
            raise TrainingDataError(f"{what}: {name} has a number that is NaN or infinite")


def _check_names(loss: Loss, loss_name: str, datum: Datum, what: str) -> None:
    allowed = loss.spec.inputs
    missing = sorted({"target_tokens", *loss.spec.required} - datum.loss_inputs.keys())
    unknown = sorted(datum.loss_inputs.keys() - allowed)
    if missing or unknown:
        raise TrainingDataError(
            f"{what} {'lacks' if missing else 'has an unknown'} loss input "
            f"{(missing or unknown)[0]!r}; {loss_name} takes {', '.join(sorted(allowed))}"
        )
