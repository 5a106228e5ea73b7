"""AdamW over one adapter's parameters, with gradients that add up between steps."""

from collections.abc import Sequence
from pathlib import Path

import torch

from art.errors import CheckpointError, EngineError, TrainingDataError
from art.executors.torch.adapters import Parameters
from art.executors.torch.tensor_files import read_tensors, write_tensors
from art.formats.adam import AdamParams

_MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW:
    """AdamW of one adapter. It touches that adapter's tensors only, so it needs no turn.

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
            EngineError: The gradient is not finite, or the weights would not be. Weights and state
                are as before, and the gradients are cleared.
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
        self._step_or_restore(params)
        return {"grad_norm:mean": norm.item()}

    def _step_or_restore(self, params: AdamParams) -> None:
        before = self._copies()
        overflow: Exception | None = None
        try:
            self._optimizer.step()
        except RuntimeError as error:  # a number that is not one of float32
            overflow = error
        self.clear()
        finite = all(bool(torch.isfinite(p).all()) for p in self._parameters.values())
        if overflow is not None or not finite:
            self._restore(before)
            raise EngineError(
                f"the step with learning rate {params.learning_rate} and eps {params.eps} made "
                "weights that are NaN or infinite; it was taken back, and the gradients were "
                "cleared. Lower the learning rate, or raise eps"
            ) from overflow

    def _copies(self) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """Copy each parameter and its state."""
        return [
            (
                parameter.detach().clone(),
                {name: value.clone() for name, value in self._optimizer.state[parameter].items()}
                if parameter in self._optimizer.state
                else {},
            )
            for parameter in self._parameters.values()
        ]

    def _restore(self, copies: list[tuple[torch.Tensor, dict[str, torch.Tensor]]]) -> None:
        for parameter, (value, state) in zip(self._parameters.values(), copies, strict=True):
            with torch.no_grad():
                parameter.copy_(value)
            if state:
                self._optimizer.state[parameter] = state
            else:
                self._optimizer.state.pop(parameter, None)

    def clear(self) -> None:
        """Forget the gradients."""
        self._optimizer.zero_grad(set_to_none=True)
        self._has_gradients = False

    def save(self, file: Path) -> None:
        """Write ``step`` and, by parameter, ``exp_avg`` and ``exp_avg_sq``, as safetensors.

        Raises:
            CheckpointError: It cannot be written.
        """
        tensors = {"step": torch.zeros(())}
        for key, parameter in self._parameters.items():
            state = self._optimizer.state.get(parameter)
            if state:
                tensors["step"] = state["step"]
                tensors |= {f"{moment}.{key}": state[moment] for moment in _MOMENTS}
        write_tensors(file, tensors)

    def load(self, file: Path) -> None:
        """Replace the optimizer's state by a file's, and forget the gradients.

        Raises:
            CheckpointError: The file is missing, damaged or of another adapter. Nothing changed.
        """
        tensors = read_tensors(file)
        expected = {
            f"{moment}.{key}": parameter.shape
            for key, parameter in self._parameters.items()
            for moment in _MOMENTS
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
                    for moment in _MOMENTS
                },
            }

    def reset(self) -> None:
        """Forget the state and the gradients."""
        self._optimizer = torch.optim.AdamW(list(self._parameters.values()))
        self.clear()
