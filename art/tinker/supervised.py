"""Supervised fine-tuning: trajectories to sequences whose assistant turns are imitated.

Shapes: T is the number of tokens of a sequence.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tinker

from art.chat.template import ChatTemplate
from art.errors import ChatTemplateError, NoTrainableTokensError
from art.rl.completions import Completion
from art.rl.sequences import TrainingSequence, join_completions
from art.runs.progress import Progress
from art.tinker.datums import loss_datums, token_advantages
from art.tinker.server_session import ServerSession
from art.tinker.training_step import PendingStep, StepData
from art.trajectories import Trajectory, get_messages
from art.types import Choice, MessagesAndChoices, Tools, TrainConfig, TrainSFTConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SupervisedBatch:
    """The data of one optimizer step.

    Attributes:
        sequences: What to imitate, at least one.
        learning_rate: Adam's step size.
    """

    sequences: list[TrainingSequence]
    learning_rate: float


@dataclass(frozen=True, slots=True)
class SupervisedData:
    """The data of one call of ``train_sft``.

    Attributes:
        batches: In the order of the trajectories.
        metrics: ``data/step_num_trajectories``, ``data/step_num_dropped_trajectories``,
            ``data/step_num_sequences``, ``data/step_trainer_tokens`` (those that are imitated) and
            ``data/step_num_gradient_steps``.
    """

    batches: list[SupervisedBatch]
    metrics: dict[str, float]


def supervised_data(
    trajectories: Sequence[Trajectory],
    config: TrainSFTConfig,
    template: ChatTemplate,
    max_tokens: int,
) -> SupervisedData:
    """Turn trajectories into batches of sequences.

    Every assistant turn is imitated: a Choice that carries its token ids by exactly these, other
    messages by what the chat template makes of them. Turns join one sequence as those of
    reinforcement learning do: see :func:`art.rl.sequences.training_batch`. A trajectory is dropped,
    with a warning, and counted, where it has no such turn, a sequence of it is too long, or the
    template refuses it.

    Args:
        trajectories: The examples; additional histories are conversations of their own.
        config: Batch size and learning rates.
        template: The model's chat template.
        max_tokens: How many tokens of a sequence fit the model's context.

    Returns:
        The batches; one all of whose trajectories were dropped is left out.

    Raises:
        art.errors.NoTrainableTokensError: Nothing is left to train on.
        art.errors.ConfigurationError: There are more batches than learning rates.
    """
    size = config.trajectories_per_batch()
    chunks = [trajectories[start : start + size] for start in range(0, len(trajectories), size)]
    rates = config.learning_rates(len(chunks))
    batches: list[SupervisedBatch] = []
    reasons: list[str] = []
    for chunk, learning_rate in zip(chunks, rates, strict=True):
        sequences: list[TrainingSequence] = []
        for trajectory in chunk:
            try:
                sequences += _sequences_of(trajectory, template, max_tokens)
            except (ChatTemplateError, NoTrainableTokensError) as error:
                reasons.append(str(error))
        if sequences:
            batches.append(SupervisedBatch(sequences, learning_rate))
    if reasons:
        logger.warning(
            "%d of %d trajectories are left out, the first since %s",
            len(reasons),
            len(trajectories),
            reasons[0],
        )
    if not batches:
        first = f"; the first, since {reasons[0]}" if reasons else ""
        raise NoTrainableTokensError(
            f"none of {len(trajectories)} trajectories can be trained on{first}"
        )
    everything = [sequence for batch in batches for sequence in batch.sequences]
    return SupervisedData(
        batches,
        {
            "data/step_num_trajectories": float(len(trajectories)),
            "data/step_num_dropped_trajectories": float(len(reasons)),
            "data/step_num_sequences": float(len(everything)),
            "data/step_trainer_tokens": float(sum(int(each.mask.sum()) for each in everything)),
            "data/step_num_gradient_steps": float(len(batches)),
        },
    )


def _sequences_of(
    trajectory: Trajectory, template: ChatTemplate, max_tokens: int
) -> list[TrainingSequence]:
    """Turn one trajectory into sequences, or say why it cannot be."""
    conversations = [(trajectory.messages_and_choices, trajectory.tools)]
    conversations += [
        (history.messages_and_choices, history.tools) for history in trajectory.additional_histories
    ]
    sequences = [
        TrainingSequence(each.tokens, each.logprobs, each.mask, 1.0)
        for items, tools in conversations
        for each in join_completions(_examples(items, tools, template))
    ]
    if not sequences:
        raise NoTrainableTokensError("it has no message of the assistant")
    longest = max(len(each.tokens) for each in sequences)
    if longest > max_tokens:
        raise NoTrainableTokensError(
            f"it has a sequence of {longest} tokens, and {max_tokens} fit the model's context"
        )
    return sequences


def _examples(
    items: MessagesAndChoices, tools: Tools | None, template: ChatTemplate
) -> list[Completion]:
    messages = get_messages(items)
    examples = []
    for index, item in enumerate(items):
        if messages[index]["role"] != "assistant":
            continue
        extra = (item.model_extra or {}) if isinstance(item, Choice) else {}
        prompt, tokens = extra.get("prompt_token_ids"), extra.get("token_ids")
        if not prompt or not tokens:
            prompt, tokens = template.example_token_ids(messages[: index + 1], tools)
        zeros = np.zeros(len(tokens), np.float32)
        examples.append(
            Completion(np.asarray(prompt, np.int64), np.asarray(tokens, np.int64), zeros)
        )
    return examples


async def take_supervised_steps(
    session: ServerSession,
    client: tinker.TrainingClient,
    batches: Sequence[SupervisedBatch],
    progress: Progress,
) -> dict[str, float]:
    """Take one optimizer step a batch, on the loss ``cross_entropy``.

    The loss is a sum over the tokens that are imitated. A batch is sent before the one before it
    is done, so that the server need not wait in between.

    Args:
        session: The session of ``client``.
        client: Trains the model.
        batches: The data.
        progress: Advanced by 1 for each batch.

    Returns:
        Means over the batches, among them ``loss/train``, the loss per token.

    Raises:
        art.errors.EngineError: The server failed; some steps may have been taken.
    """
    history: list[dict[str, float]] = []

    async def finish(pending: PendingStep) -> None:
        metrics = await pending.gradients() | await pending.update()
        history.append(metrics)
        shown = {"loss": metrics["loss/train"]} if "loss/train" in metrics else {}
        progress.advance(1, {"stage": "SFT", **shown})

    previous: PendingStep | None = None
    for batch in batches:
        config = TrainConfig(loss_fn="cross_entropy", learning_rate=batch.learning_rate)
        datums = loss_datums("cross_entropy", batch.sequences, token_advantages(batch.sequences))
        data = StepData(datums, [sequence.mask[1:] for sequence in batch.sequences])
        pending = PendingStep(session, client, data, config)
        if previous is not None:
            await finish(previous)
        previous = pending
    if previous is not None:
        await finish(previous)
    names = dict.fromkeys(name for metrics in history for name in metrics)
    values = {name: [each[name] for each in history if name in each] for name in names}
    return {name: sum(each) / len(each) for name, each in values.items()}
