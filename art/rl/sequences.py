"""Trajectories as training data: the exact tokens that were sampled, never tokenized again.

Shapes: T is the number of tokens of a sequence.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from art.rl.advantages import group_advantages
from art.rl.completions import (
    Completion,
    FloatArray,
    IntArray,
    UsableTrajectories,
    usable_trajectories,
)
from art.trajectories import TrajectoryGroup

logger = logging.getLogger(__name__)

BoolArray = npt.NDArray[np.bool_]

# Faults of trajectories that are written into the log.
_MAX_PROBLEMS = 3


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
            ``data/step_num_groups_trainable``, ``data/step_num_groups_dropped`` (the others: all
            rewards equal, or failed), ``data/step_num_groups_failed`` (no usable trajectory),
            ``data/step_num_trajectories`` (of all groups),
            ``data/step_num_trajectories_dropped`` (not usable), and of the sequences
            ``data/step_num_sequences``, ``data/step_num_rewritten_turns`` (turns after a
            conversation's first that begin a sequence of their own, since the template rewrote
            what came before), ``data/step_num_tokens``, ``data/step_trainer_tokens`` (those under
            the mask).
    """

    sequences: list[TrainingSequence] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


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

    A trajectory that cannot be trained on is left out before advantages are computed, with a
    warning, and so never takes the others down: one without completions, such as a rollout that
    could not start; one whose completions lack their exact tokens; and one whose reward is NaN or
    infinite. Groups whose rollouts all failed are left out too. Where trajectories are left out
    and none remains in any group, it is an error, since the same would happen at every step.

    Args:
        groups: The step's groups. They are not changed.
        normalize_advantages: As for :func:`art.rl.advantages.group_advantages`.

    Returns:
        The sequences, in the order of groups and trajectories, and counts. There are no sequences
        where all rollouts failed, or the rewards within each group are equal.

    Raises:
        art.errors.TrainingDataError: No trajectory of the step can be trained on; the class is
            that of the first one's fault.
        art.errors.InvalidRewardError: Its reward is NaN or infinite.
        art.errors.NoTrainableTokensError: It has no completion, or one without its tokens or
            logprobs.
    """
    groups = list(groups)
    usable = usable_trajectories(groups)
    _report(groups, usable)
    sequences: list[TrainingSequence] = []
    trainable_groups = rewritten_turns = 0
    for trajectories in usable.groups:
        if not trajectories:
            continue
        advantages = group_advantages(
            [trajectory.reward for trajectory in trajectories], normalize=normalize_advantages
        )
        if not advantages.any():
            continue
        trainable_groups += 1
        for advantage, trajectory in zip(advantages, trajectories, strict=True):
            for conversation in trajectory.conversations:
                joined = join_completions(conversation)
                # Its first turn has nothing to extend.
                rewritten_turns += max(len(joined) - 1, 0)
                sequences.extend(
                    TrainingSequence(each.tokens, each.logprobs, each.mask, float(advantage))
                    for each in joined
                )
    return TrainingBatch(
        sequences,
        {
            "data/step_num_groups_submitted": float(len(groups)),
            "data/step_num_groups_trainable": float(trainable_groups),
            "data/step_num_groups_dropped": float(len(groups) - trainable_groups),
            "data/step_num_groups_failed": float(sum(not each for each in usable.groups)),
            "data/step_num_trajectories": float(sum(len(group) for group in groups)),
            "data/step_num_trajectories_dropped": float(len(usable.problems)),
            "data/step_num_sequences": float(len(sequences)),
            "data/step_num_rewritten_turns": float(rewritten_turns),
            "data/step_num_tokens": float(sum(len(each.tokens) for each in sequences)),
            "data/step_trainer_tokens": float(sum(int(each.mask.sum()) for each in sequences)),
        },
    )


def _report(groups: Sequence[TrajectoryGroup], usable: UsableTrajectories) -> None:
    """Log what was left out.

    Raises:
        TrainingDataError: Nothing was kept.
    """
    for index, group in enumerate(groups):
        if not group.trajectories:
            first = f"; the first: {group.exceptions[0].message}" if group.exceptions else ""
            logger.warning(
                "Group %d is left out: it has no trajectories, and %d rollouts that failed%s",
                index,
                len(group.exceptions),
                first,
            )
    problems = usable.problems
    if not problems:
        return
    if not any(usable.groups):
        raise type(problems[0])(
            f"None of the step's {len(problems)} trajectories can be trained on. {problems[0]}"
        ) from problems[0]
    shown = " ".join(str(problem) for problem in problems[:_MAX_PROBLEMS])
    logger.warning(
        "%d of %d trajectories are left out. %s%s",
        len(problems),
        sum(len(group) for group in groups),
        shown,
        " …" if len(problems) > _MAX_PROBLEMS else "",
    )


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
