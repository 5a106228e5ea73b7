"""One training step: gradients and an optimizer step, on the server."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import tinker

from art.errors import ConfigurationError
from art.rl.kl_penalty import penalize_kl
from art.rl.sequences import TrainingSequence
from art.tinker.datums import imitation_datums, policy_datums, token_advantages
from art.tinker.sdk_calls import sdk_call
from art.tinker.server_session import ServerSession
from art.types import TrainConfig


@dataclass(frozen=True, slots=True)
class StepData:
    """The data of one step.

    Attributes:
        datums: What to send.
        masks: For each datum bool ``[T-1]``: which of its targets are trained.
        metrics: ``loss/kl_policy_base`` in nats a token, where there is a KL penalty.
    """

    datums: list[tinker.Datum]
    masks: list[npt.NDArray[np.bool_]]
    metrics: dict[str, float] = field(default_factory=dict)


async def step_data(
    session: ServerSession, sequences: Sequence[TrainingSequence], config: TrainConfig
) -> StepData:
    """Make the datums of a step, for the loss that the config names.

    Args:
        session: Asks the base model for its logprobs, where there is a KL penalty.
        sequences: What to train on.
        config: Names the loss and the penalty.

    Returns:
        The data.

    Raises:
        ConfigurationError: A KL penalty is asked for with ``cross_entropy``, which has no
            advantages that it could change.
    """
    if config.loss_fn == "cross_entropy":
        if config.kl_penalty_coef:
            raise ConfigurationError(
                "kl_penalty_coef changes advantages, and cross_entropy uses none; use another "
                "loss_fn, or leave kl_penalty_coef at 0"
            )
        imitated = [sequence for sequence in sequences if sequence.advantage > 0]
        return StepData(imitation_datums(imitated), _target_masks(imitated))
    advantages = token_advantages(sequences)
    metrics: dict[str, float] = {}
    if config.kl_penalty_coef:
        base_logprobs = await session.base_logprobs([sequence.tokens for sequence in sequences])
        advantages, metrics["loss/kl_policy_base"] = penalize_kl(
            sequences, advantages, base_logprobs, config.kl_penalty_coef
        )
    return StepData(policy_datums(sequences, advantages), _target_masks(sequences), metrics)


def _target_masks(sequences: Sequence[TrainingSequence]) -> list[npt.NDArray[np.bool_]]:
    return [sequence.mask[1:] for sequence in sequences]


class PendingStep:
    """A step that was sent to the server: gradients, then the optimizer.

    Both are sent before either is waited for, so that the server need not wait in between.

    Args:
        session: The session of ``client``.
        client: Trains the model.
        data: What to train on, at least one datum.
        config: Names the loss; holds the optimizer's numbers.
    """

    def __init__(
        self,
        session: ServerSession,
        client: tinker.TrainingClient,
        data: StepData,
        config: TrainConfig,
    ) -> None:
        self._connection = session.connection
        self._data = data
        self._gradients = client.forward_backward(
            data.datums, config.loss_fn, config.loss_fn_config
        )
        self._update = client.optim_step(
            tinker.AdamParams(
                learning_rate=config.learning_rate,
                beta1=config.beta1,
                beta2=config.beta2,
                eps=config.eps,
                weight_decay=config.weight_decay,
                grad_clip_norm=config.grad_clip_norm,
            )
        )

    async def gradients(self) -> dict[str, float]:
        """Wait for the gradients.

        Returns:
            ``loss/train``, the loss per trained token, ``offpolicy/logprob_difference``, the mean
            absolute difference between the trainer's and the sampler's logprobs of the trained
            tokens, and what else the server counts.
        """
        output = await sdk_call(self._connection, self._gradients, "computing gradients")
        num_trained = sum(int(mask.sum()) for mask in self._data.masks)
        metrics = {
            _metric_name(name): value
            for name, value in output.metrics.items()
            if name != "loss:sum"
        }
        if "loss:sum" in output.metrics:
            metrics["loss/train"] = output.metrics["loss:sum"] / max(num_trained, 1)
        difference = _logprob_difference(self._data, output)
        if difference is not None:
            metrics["offpolicy/logprob_difference"] = difference
        return metrics

    async def update(self) -> dict[str, float]:
        """Wait for the optimizer step.

        Returns:
            What the server counts, such as ``loss/grad_norm``.
        """
        response = await sdk_call(self._connection, self._update, "taking the optimizer step")
        return {_metric_name(name): value for name, value in (response.metrics or {}).items()}


def _metric_name(name: str) -> str:
    """Name a server's metric as ``history.jsonl`` does: ``grad_norm:mean`` is loss/grad_norm."""
    return f"loss/{name.removesuffix(':mean').replace(':', '_')}"


def _logprob_difference(data: StepData, output: tinker.ForwardBackwardOutput) -> float | None:
    """The mean over trained tokens of |trainer's - sampler's logprob|, where both are known."""
    total, count = 0.0, 0
    for datum, mask, result in zip(data.datums, data.masks, output.loss_fn_outputs, strict=True):
        if "logprobs" not in datum.loss_fn_inputs or "logprobs" not in result:
            return None
        sampled = datum.loss_fn_inputs["logprobs"].to_numpy()
        difference = np.abs(result["logprobs"].to_numpy() - sampled)[mask]
        total += float(difference.sum(dtype=np.float64))
        count += difference.size
    return total / count if count else None
