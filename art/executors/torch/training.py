"""One adapter's training: loss and gradients over packed passes, and AdamW.

Shapes: T tokens of a datum, K targets a position, L targets of a pass, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from art.errors import (
    CheckpointError,
    ContextLengthError,
    EngineError,
    TrainingDataError,
)
from art.executors.losses import Loss
from art.executors.packing import Pass
from art.executors.torch.adapters import read_tensors
from art.executors.torch.language_model import LanguageModel
from art.executors.types import (
    Datum,
    FloatArray,
    ForwardBackwardResult,
    LossFunction,
)
from art.formats.adam import AdamParams

Parameters = dict[str, torch.nn.Parameter]


def forward_backward(
    language_model: LanguageModel,
    parameters: Parameters,
    data: Sequence[Datum],
    loss_function: LossFunction,
    *,
    backward: bool,
) -> tuple[ForwardBackwardResult, list[torch.Tensor] | None]:
    """Compute a loss and, with ``backward``, its gradient, in passes of bounded size.

    Args:
        language_model: The base model, with the adapter active.
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
        with torch.set_grad_enabled(backward and bool(targets.active.any())):
            logprobs = _target_logprobs(language_model, step, targets)
            value = _loss_sum(logprobs, targets, loss)
        if gradient is not None and value.requires_grad:
            parts = torch.autograd.grad(
                value, list(parameters.values()), allow_unused=True, materialize_grads=True
            )
            for whole, part in zip(gradient, parts, strict=True):
                whole += part
        total += float(value.detach())
        for (index, _), part in zip(step.paths, logprobs, strict=True):
            outputs[index] = part.detach().cpu().numpy()
    result = ForwardBackwardResult(
        outputs=[{"logprobs": logprobs} for logprobs in outputs], metrics={"loss:sum": total}
    )
    return result, gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class _Targets:
    """The targets of one pass, all datums of the pass one after the other.

    Attributes:
        nodes: int64 ``[L]``, the token of the pass that predicts each target.
        tokens: int64 ``[L]``, the targets.
        active: bool ``[L]``, which of them can have a loss.
        shapes: For each datum of the pass, the shape of its targets.
        inputs: For each datum of the pass, its other loss inputs, shaped as its targets.
    """

    nodes: torch.Tensor
    tokens: torch.Tensor
    active: torch.Tensor
    shapes: list[torch.Size]
    inputs: list[dict[str, torch.Tensor]]

    @staticmethod
    def of(step: Pass, data: Sequence[Datum], loss: Loss, device: torch.device) -> "_Targets":
        nodes, tokens, active, shapes, inputs = [], [], [], [], []
        for index, path in step.paths:
            arrays = {
                name: torch.as_tensor(np.ascontiguousarray(array), device=device)
                for name, array in data[index].loss_inputs.items()
            }
            target = arrays.pop("target_tokens").long()
            path_of_targets = torch.from_numpy(path).to(device)
            if target.dim() == 2:
                path_of_targets = path_of_targets[:, None].expand_as(target)
            nodes.append(path_of_targets.reshape(-1))
            tokens.append(target.reshape(-1))
            active.append(loss.active(arrays, target).reshape(-1))
            shapes.append(target.shape)
            inputs.append({name: array.float() for name, array in arrays.items()})
        return _Targets(
            nodes=torch.cat(nodes),
            tokens=torch.cat(tokens),
            active=torch.cat(active),
            shapes=shapes,
            inputs=inputs,
        )


def _target_logprobs(
    language_model: LanguageModel, step: Pass, targets: _Targets
) -> list[torch.Tensor]:
    """Logprobs of the targets, by datum of the pass.

    Targets without a loss are reported too, but need no backward pass through the output layer,
    the widest of the model.
    """
    hidden = language_model.hidden_states(step)
    logprobs = torch.empty(len(targets.nodes), device=hidden.device)
    for chosen, with_grad in ((targets.active, True), (~targets.active, False)):
        index = chosen.nonzero().squeeze(1)
        if not len(index):
            continue
        index = index[targets.nodes[index].argsort(stable=True)]
        nodes, rows = torch.unique_consecutive(targets.nodes[index], return_inverse=True)
        with torch.set_grad_enabled(with_grad and torch.is_grad_enabled()):
            values = language_model.token_logprobs(hidden[nodes], rows, targets.tokens[index])
        logprobs = logprobs.index_put((index,), values)
    sizes = [shape.numel() for shape in targets.shapes]
    return [
        part.view(shape) for part, shape in zip(logprobs.split(sizes), targets.shapes, strict=True)
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
    allowed = loss.spec.inputs
    missing = sorted({"target_tokens", *loss.spec.required} - datum.loss_inputs.keys())
    unknown = sorted(datum.loss_inputs.keys() - allowed)
    if missing or unknown:
        raise TrainingDataError(
            f"{what} {'lacks' if missing else 'has an unknown'} loss input "
            f"{(missing or unknown)[0]!r}; {loss_name} takes {', '.join(sorted(allowed))}"
        )
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


class AdamW:
    """AdamW of one adapter, with gradients that add up between steps.

    Loshchilov and Hutter 2019 (arXiv:1711.05101), as ``torch.optim.AdamW`` computes it.

    Args:
        parameters: What to train, by the keys under which state is saved.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._optimizer = torch.optim.AdamW(list(parameters.values()))
        self._has_gradients = False

    def accumulate(self, gradient: Sequence[torch.Tensor]) -> None:
        """Add to the gradients, in the order of the parameters."""
        for parameter, part in zip(self._parameters.values(), gradient, strict=True):
            parameter.grad = part if parameter.grad is None else parameter.grad + part
        self._has_gradients = True

    def step(self, params: AdamParams) -> dict[str, float]:
        """Take a step, then clear the gradients.

        Returns:
            ``grad_norm:mean``, the global norm before clipping.

        Raises:
            TrainingDataError: There are no gradients to step with.
            EngineError: The gradient is not finite. The weights have not changed, and the
                gradients are cleared.
        """
        if not self._has_gradients:
            raise TrainingDataError(
                "optim_step has no gradients: call forward_backward before every optim_step"
            )
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
        if not bool(torch.isfinite(norm)):
            self.clear()
            raise EngineError(
                f"the gradient's norm is {norm.item()}; the step was not taken and the gradients "
                "were cleared. Look for extreme logprobs or advantages, or lower the learning rate."
            )
        if 0 < params.grad_clip_norm < norm.item():
            for gradient in gradients:
                gradient *= params.grad_clip_norm / norm
        self._optimizer.param_groups[0].update(
            lr=params.learning_rate,
            betas=(params.beta1, params.beta2),
            eps=params.eps,
            weight_decay=params.weight_decay,
        )
        self._optimizer.step()
        self.clear()
        return {"grad_norm:mean": norm.item()}

    def clear(self) -> None:
        """Forget the gradients."""
        self._optimizer.zero_grad(set_to_none=True)
        self._has_gradients = False

    def save(self, file: Path) -> None:
        """Write ``step`` and, by parameter, ``exp_avg`` and ``exp_avg_sq``, as safetensors.

        Raises:
            CheckpointError: It cannot be written.
        """
        from safetensors.torch import save_file

        tensors = {"step": torch.zeros(())}
        for key, parameter in self._parameters.items():
            state = self._optimizer.state.get(parameter)
            if state:
                tensors["step"] = state["step"].detach().cpu()
                for moment in ("exp_avg", "exp_avg_sq"):
                    tensors[f"{moment}.{key}"] = state[moment].detach().cpu().contiguous()
        try:
            save_file(tensors, file)
        except OSError as error:
            raise CheckpointError(f"cannot write the optimizer to {file}: {error}") from error

    def load(self, file: Path) -> None:
        """Replace the optimizer's state by a file's, and forget the gradients.

        Raises:
            CheckpointError: The file is missing, damaged or of another adapter. Nothing changed.
        """
        tensors = read_tensors(file)
        moments = ("exp_avg", "exp_avg_sq")
        expected = {
            f"{moment}.{key}": parameter.shape
            for key, parameter in self._parameters.items()
            for moment in moments
        }
        found = {key: tensor.shape for key, tensor in tensors.items() if key != "step"}
        if "step" not in tensors or (found and found != expected):
            raise CheckpointError(f"{file} is not the optimizer state of this adapter")
        self.reset()
        if not found:
            return
        for key, parameter in self._parameters.items():
            self._optimizer.state[parameter] = {
                "step": tensors["step"].clone(),
                **{
                    moment: tensors[f"{moment}.{key}"].to(parameter.device, copy=True)
                    for moment in moments
                },
            }

    def reset(self) -> None:
        """Forget the state and the gradients."""
        self._optimizer = torch.optim.AdamW(list(self._parameters.values()))
        self.clear()
