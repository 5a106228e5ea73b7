"""One training step: gradients and an optimizer step, on the server."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import numpy.typing as npt
import tinker

from art.errors import ConfigurationError
from art.formats.losses import complete_config, find_loss
from art.rl.kl_penalty import penalize_kl
from art.rl.sequences import TrainingSequence
from art.tinker.datums import FloatArray, loss_datums, token_advantages
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
    session: ServerSession,
    client: tinker.TrainingClient,
    sequences: Sequence[TrainingSequence],
    config: TrainConfig,
) -> StepData:
    """Make the datums of a step, for the loss that the config names.

    Args:
        session: Asks the base model for its logprobs, where there is a KL penalty.
        client: Asks the model for its logprobs, where the loss reads those of the context.
        sequences: What to train on.
        config: Names the loss and the penalty.

    Returns:
        The data.

    Raises:
        ConfigurationError: A KL penalty is asked for with ``cross_entropy``, which has no
            advantages that it could change.
        EngineError: The server failed.
    """
    spec = find_loss(config.loss_fn)
    if not spec.reads_advantages:
        if config.kl_penalty_coef:
            raise ConfigurationError(
                f"kl_penalty_coef changes advantages, and {config.loss_fn} uses none; use another "
                "loss_fn, or leave kl_penalty_coef at 0"
            )
        # Rejection-sampling fine-tuning (RAFT, arXiv:2304.06767): the better rollouts are imitated.
        sequences = [sequence for sequence in sequences if sequence.advantage > 0]
    advantages = token_advantages(sequences)
    metrics: dict[str, float] = {}
    if config.kl_penalty_coef:
        base_logprobs = await session.base_logprobs([sequence.tokens for sequence in sequences])
        advantages, metrics["loss/kl_policy_base"] = penalize_kl(
            sequences, advantages, base_logprobs, config.kl_penalty_coef
        )
    context_logprobs = None
    if spec.reads_context_logprobs:
        context_logprobs = await _policy_logprobs(session, client, sequences)
    return StepData(
        loss_datums(config.loss_fn, sequences, advantages, context_logprobs),
        [sequence.mask[1:] for sequence in sequences],
        metrics,
    )


async def _policy_logprobs(
    session: ServerSession, client: tinker.TrainingClient, sequences: Sequence[TrainingSequence]
) -> list[FloatArray]:
    """Ask the model for the logprobs of all tokens: float32 ``[T]``, 0 at position 0.

    A loss whose penalty on ``log p - log q`` no input masks would train the prompts. With these as
    ``log q`` of a token that was not sampled, the penalty and its gradient are zero there.
    """
    # Every target with weight 1, so that the logprob of every target comes back.
    whole = [
        replace(sequence, mask=np.ones_like(sequence.mask), advantage=0.0) for sequence in sequences
    ]
    datums = loss_datums("cross_entropy", whole, token_advantages(whole))
    output = await sdk_call(
        session.connection, client.forward(datums, "cross_entropy"), "scoring the context"
    )
    return [
        np.concatenate([np.zeros(1, np.float32), result["logprobs"].to_numpy()])
        for result in output.loss_fn_outputs
    ]


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
        # All settings are sent, so that what is documented runs on any server.
        loss_config = complete_config(config.loss_fn, config.loss_fn_config or {})
        self._gradients = client.forward_backward(data.datums, config.loss_fn, loss_config or None)
        self._update = client.optim_step(tinker.AdamParams(**asdict(config.adam())))

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
    """Average |trainer's - sampler's logprob| over trained tokens, where both are known."""
    total, count = 0.0, 0
    for datum, mask, result in zip(data.datums, data.masks, output.loss_fn_outputs, strict=True):
        if "logprobs" not in datum.loss_fn_inputs or "logprobs" not in result:
            return None
        sampled = datum.loss_fn_inputs["logprobs"].to_numpy()
        difference = np.abs(result["logprobs"].to_numpy() - sampled)[mask]
        total += float(difference.sum(dtype=np.float64))
        count += difference.size
    return total / count if count else None
