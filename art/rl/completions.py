"""Completions of trajectories, with the exact tokens that training uses; bad ones are left out.

Shapes: P is the number of tokens of a prompt, N that of a completion.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from art._internal.numbers import plain_number
from art._internal.validation import describe
from art.errors import InvalidRewardError, NoTrainableTokensError, TrainingDataError
from art.trajectories import Trajectory, TrajectoryGroup
from art.types import Choice, MessagesAndChoices, message_or_choice

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """The tokens of a Choice, checked.

    Attributes:
        prompt: int64 ``[P]``, at least one.
        tokens: int64 ``[N]``.
        logprobs: float32 ``[N]``, finite.
    """

    prompt: IntArray
    tokens: IntArray
    logprobs: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class UsableTrajectory:
    """A trajectory that can be trained on.

    Attributes:
        reward: Finite.
        conversations: The completions of its messages, then of each additional history.
    """

    reward: float
    conversations: list[list[Completion]]


@dataclass(frozen=True, slots=True, eq=False)
class UsableTrajectories:
    """The part of a step that can be trained on, and the faults of the rest.

    Attributes:
        groups: The usable trajectories of each group, in order; a group may have none.
        problems: Of each trajectory that was left out, why.
    """

    groups: list[list[UsableTrajectory]] = field(default_factory=list)
    problems: list[TrainingDataError] = field(default_factory=list)


def usable_trajectories(groups: Iterable[TrajectoryGroup]) -> UsableTrajectories:
    """Read the completions of a step, and leave out trajectories that cannot be trained on.

    Args:
        groups: The step's groups. They are not changed.

    Returns:
        The trajectories that have a finite reward and completions whose tokens and logprobs agree.
    """
    usable = UsableTrajectories()
    for index, group in enumerate(groups):
        kept = []
        for position, trajectory in enumerate(group):
            try:
                kept.append(_read_trajectory(trajectory, f"group {index}, trajectory {position}"))
            except TrainingDataError as problem:
                usable.problems.append(problem)
        usable.groups.append(kept)
    return usable


def _read_trajectory(trajectory: Trajectory, where: str) -> UsableTrajectory:
    try:
        reward = float(plain_number(trajectory.reward))
    except (TypeError, ValueError, OverflowError):
        reward = math.nan
    if not math.isfinite(reward):
        raise InvalidRewardError(
            f"The reward of {where} is {trajectory.reward!r:.100}. A reward must be a finite "
            "number."
        )
    try:
        return UsableTrajectory(reward, _completions_of(trajectory, where))
    except ValidationError as error:
        raise TrainingDataError(
            f"A completion of {where} is no Choice: {describe(error)}"
        ) from error


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
            for position, item in enumerate(map(message_or_choice, items))
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
    # litellm moves fields that it does not know there.
    moved = extra.get("provider_specific_fields")
    extra = {**(moved if isinstance(moved, dict) else {}), **extra}
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
