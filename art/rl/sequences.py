"""Trajectories as training data: the exact tokens that were sampled, never tokenized again.

Shapes: T is the number of tokens of a sequence.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from art.errors import (
    EmptyGroupError,
    InvalidRewardError,
    NoTrainableTokensError,
    TrainingDataError,
)
from art.rl.advantages import group_advantages
from art.trajectories import Trajectory, TrajectoryGroup
from art.types import Choice, MessagesAndChoices

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSequence:
    """One sequence to train on.

    Attributes:
        tokens: int64 ``[T]``: prompts and completions, as the model saw them.
        logprobs: float32 ``[T]``: the sampler's logprob of each sampled token, 0 elsewhere.
        mask: bool ``[T]``: True where the policy sampled the token; never at position 0.
        advantage: Of the whole sequence.
    """

    tokens: IntArray
    logprobs: FloatArray
    mask: BoolArray
    advantage: float


@dataclass(frozen=True, slots=True, eq=False)
class TrainingBatch:
    """The data of one training step.

    Attributes:
        sequences: What to train on; empty where no group teaches anything.
        metrics: Counts by name: ``data/step_num_groups_submitted``,
            ``data/step_num_groups_trainable``, ``data/step_num_groups_dropped`` (all rewards
            equal), ``data/step_num_trajectories`` (of all groups), and of the sequences
            ``data/step_num_sequences``, ``data/step_num_tokens``, ``data/step_trainer_tokens``
            (those under the mask).
    """

    sequences: list[TrainingSequence] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Completion:
    """The tokens of one completion, checked.

    Attributes:
        prompt: int64 ``[P]``.
        tokens: int64 ``[N]``: those that were sampled.
        logprobs: float32 ``[N]``: the sampler's.
    """

    prompt: IntArray
    tokens: IntArray
    logprobs: FloatArray


@dataclass(slots=True)
class OpenSequence:
    """A sequence that later turns of its conversation may still join.

    Attributes:
        tokens: As in :class:`TrainingSequence`; ``logprobs`` and ``mask`` too.
        logprobs: See there.
        mask: See there.
    """

    tokens: IntArray
    logprobs: FloatArray
    mask: BoolArray

    def is_prefix_of(self, prompt: IntArray) -> bool:
        """Say whether a prompt extends this sequence."""
        size = len(self.tokens)
        return size <= len(prompt) and np.array_equal(prompt[:size], self.tokens)

    def append(self, completion: Completion) -> None:
        """Add what a completion has beyond this sequence, which its prompt extends."""
        context = completion.prompt[len(self.tokens) :]
        self.tokens = np.concatenate([self.tokens, context, completion.tokens])
        self.logprobs = np.concatenate(
            [self.logprobs, np.zeros(len(context), np.float32), completion.logprobs]
        )
        self.mask = np.concatenate(
            [self.mask, np.zeros(len(context), np.bool_), np.ones(len(completion.tokens), np.bool_)]
        )


def training_batch(
    groups: Iterable[TrajectoryGroup], *, normalize_advantages: bool = True
) -> TrainingBatch:
    """Turn groups of trajectories into the data of one training step.

    Every sampled token of a kept group is trained on exactly once. A turn whose prompt extends
    the tokens of an earlier turn of the same conversation joins its sequence; where the chat
    template rewrites what came before, the turn starts a sequence of its own. Messages that are
    not Choices are context only. A group whose rewards are all equal is dropped and counted.

    Args:
        groups: The step's groups. They are not changed.
        normalize_advantages: As for :func:`art.rl.advantages.group_advantages`.

    Returns:
        The sequences, in the order of groups and trajectories, and counts.

    Raises:
        art.errors.EmptyGroupError: A group has no trajectories.
        art.errors.InvalidRewardError: A reward is NaN or infinite.
        art.errors.NoTrainableTokensError: A trajectory has no completion, or one without its
            tokens or logprobs.
        art.errors.TrainingDataError: A completion's tokens and logprobs contradict each other.
    """
    groups = list(groups)
    # All of the input is checked before anything is built, dropped groups too.
    completions = [
        [_completions_of(trajectory, where) for trajectory, where in _checked(group, index)]
        for index, group in enumerate(groups)
    ]
    sequences: list[TrainingSequence] = []
    trainable_groups = 0
    for group, conversations_of in zip(groups, completions, strict=True):
        advantages = group_advantages(
            [trajectory.reward for trajectory in group], normalize=normalize_advantages
        )
        if not advantages.any():
            continue
        trainable_groups += 1
        for advantage, conversations in zip(advantages, conversations_of, strict=True):
            sequences.extend(
                TrainingSequence(each.tokens, each.logprobs, each.mask, float(advantage))
                for conversation in conversations
                for each in join_completions(conversation)
            )
    return TrainingBatch(
        sequences,
        {
            "data/step_num_groups_submitted": float(len(groups)),
            "data/step_num_groups_trainable": float(trainable_groups),
            "data/step_num_groups_dropped": float(len(groups) - trainable_groups),
            "data/step_num_trajectories": float(sum(len(group) for group in groups)),
            "data/step_num_sequences": float(len(sequences)),
            "data/step_num_tokens": float(sum(len(each.tokens) for each in sequences)),
            "data/step_trainer_tokens": float(sum(int(each.mask.sum()) for each in sequences)),
        },
    )


def _checked(group: TrajectoryGroup, index: int) -> Iterator[tuple[Trajectory, str]]:
    if not group.trajectories:
        failures = f"; its {len(group.exceptions)} rollouts raised" if group.exceptions else ""
        first = f", the first: {group.exceptions[0].message}" if group.exceptions else ""
        raise EmptyGroupError(
            f"Group {index} has no trajectories{failures}{first}. Leave it out, or run its "
            "rollouts again."
        )
    for position, trajectory in enumerate(group):
        where = f"group {index}, trajectory {position}"
        if not math.isfinite(trajectory.reward):
            raise InvalidRewardError(
                f"The reward of {where} is {trajectory.reward}. A reward must be a finite number."
            )
        yield trajectory, where


def _completions_of(trajectory: Trajectory, where: str) -> list[list[Completion]]:
    """Read the completions of each of a trajectory's conversations."""
    named: list[tuple[str, MessagesAndChoices]] = [
        ("messages_and_choices", trajectory.messages_and_choices)
    ]
    named += [
        (f"additional_histories[{number}].messages_and_choices", history.messages_and_choices)
        for number, history in enumerate(trajectory.additional_histories)
    ]
    conversations = [
        [
            _read(item, f"{name}[{position}] of {where}")
            for position, item in enumerate(items)
            if isinstance(item, Choice)
        ]
        for name, items in named
    ]
    if not any(
        len(completion.tokens) for conversation in conversations for completion in conversation
    ):
        raise NoTrainableTokensError(
            f"There is nothing to train on in {where}: none of its messages is a Choice with "
            "tokens. Append response.choices[0] itself to messages_and_choices, not its text."
        )
    return conversations


def _read(choice: Choice, where: str) -> Completion:
    extra = choice.model_extra or {}
    content = choice.logprobs.content if choice.logprobs else None
    missing = [name for name in ("prompt_token_ids", "token_ids") if extra.get(name) is None]
    if content is None:
        missing.append("logprobs.content")
    if missing or content is None:
        raise NoTrainableTokensError(
            f"The Choice at {where} has no {' and no '.join(missing)}. Training needs the exact "
            "tokens: sample with model.openai_client() of a registered art.TrainableModel, and "
            "keep the Choice as it came. To use a completion as context only, append its message "
            "as a dict."
        )
    completion = Completion(
        _token_array(extra["prompt_token_ids"], f"prompt_token_ids of the Choice at {where}"),
        _token_array(extra["token_ids"], f"token_ids of the Choice at {where}"),
        np.asarray([token.logprob for token in content], np.float32),
    )
    if len(completion.tokens) != len(completion.logprobs):
        raise TrainingDataError(
            f"The Choice at {where} has {len(completion.tokens)} token_ids but "
            f"{len(completion.logprobs)} logprobs; there must be one for each."
        )
    if not len(completion.prompt):
        raise TrainingDataError(
            f"The Choice at {where} has no prompt tokens; a first token is never trained."
        )
    if not np.isfinite(completion.logprobs).all():
        raise TrainingDataError(f"The Choice at {where} has a logprob that is not finite.")
    return completion


def _token_array(token_ids: object, what: str) -> IntArray:
    # Extra fields of a Choice are whatever the server sent.
    valid = isinstance(token_ids, list) and all(
        isinstance(token_id, int) and 0 <= token_id < 2**63 for token_id in token_ids
    )
    if not valid:
        raise TrainingDataError(f"The {what} must be a list of token ids; it is {token_ids!r:.80}.")
    return np.asarray(token_ids, np.int64)


def join_completions(conversation: list[Completion]) -> list[OpenSequence]:
    """Join the turns of one conversation to sequences; see :func:`training_batch`.

    Args:
        conversation: Its completions, in order. Those without tokens are left out.

    Returns:
        The sequences, in the order in which they began.
    """
    sequences: list[OpenSequence] = []
    for completion in conversation:
        if not len(completion.tokens):
            continue
        extended = [each for each in sequences if each.is_prefix_of(completion.prompt)]
        if extended:
            target = max(extended, key=lambda each: len(each.tokens))
        else:
            target = OpenSequence(
                np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.bool_)
            )
            sequences.append(target)
        target.append(completion)
    return sequences
