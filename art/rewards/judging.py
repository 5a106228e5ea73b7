"""RULER: a judge scores the trajectories of a group against each other.

The idea is OpenPipe's: a model that sees all attempts at a task side by side ranks them better
than it can grade one, and training needs no more than the ranking within the group.
"""

import json
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, Field

from art.errors import AnswerError, ConfigurationError, JudgeError
from art.metrics import record_response_cost
from art.model_providers import open_model
from art.rewards.litellm_params import JudgeCall, with_litellm_params
from art.rewards.prompts import DEFAULT_RUBRIC as DEFAULT_RUBRIC
from art.rewards.prompts import judge_messages, shared_messages
from art.structured_output import CLOSED, ask
from art.trajectories import TrajectoryGroup
from art.types import Message, Tools

logger = logging.getLogger(__name__)


class TrajectoryScore(BaseModel):
    """A judge's score of one trajectory.

    Attributes:
        trajectory_id: Its place in the group, from ``"1"``.
        explanation: Why, in a sentence or two.
        score: From 0 to 1.
    """

    model_config = CLOSED

    trajectory_id: str = Field(description="The id of the attempt.")
    explanation: str = Field(description="Why, in a sentence or two.")
    score: float = Field(description="From 0 to 1.")


class _Scores(BaseModel):
    model_config = CLOSED

    scores: list[TrajectoryScore]


async def ruler(
    message_lists: Sequence[Sequence[Message]],
    judge_model: str = "openai/o3",
    extra_litellm_params: Mapping[str, Any] | None = None,
    rubric: str = DEFAULT_RUBRIC,
    tools: Tools | None = None,
    *,
    debug: bool = False,
    base_url: str | None = None,
    api_key: str | None = None,
    client: AsyncOpenAI | None = None,
    timeout: float = 120.0,
    max_retries: int = 2,
) -> list[TrajectoryScore]:
    """Score conversations against each other by a judge.

    Any OpenAI-compatible endpoint can judge, a local one too::

        scores = await ruler(
            conversations, "qwen3-32b", base_url="http://127.0.0.1:8000/v1", api_key="none"
        )
        scores = await ruler(
            conversations, judge.get_inference_name(), client=judge.openai_client()
        )

    Args:
        message_lists: The conversations. Where all are equal, one is judged for all.
        judge_model: ``"provider/model"`` as litellm takes it; with ``base_url`` or ``client`` the
            model's name there.
        extra_litellm_params: ``api_base``, ``api_key``, ``timeout``, ``num_retries``, and arguments
            of ``chat.completions.create`` such as ``temperature``.
        rubric: What makes a conversation good.
        tools: The tools that the agent had.
        debug: Write the scores and their explanations to standard error.
        base_url: Base URL of the judge's endpoint.
        api_key: Its key; ``None`` reads the provider's environment variable.
        client: A client to ask through, in place of these two.
        timeout: Seconds for one attempt.
        max_retries: How often to ask again after a failure that may pass, or an answer that cannot
            be used.

    Returns:
        A score for each conversation, in their order.

    Raises:
        art.errors.JudgeError: The judge did not answer in time, failed, or gave no usable scores.
        art.errors.ConfigurationError: The provider or the model is unknown, the key is missing or
            refused, or an argument means nothing without litellm.
    """
    if not message_lists:
        return []
    shared = shared_messages(message_lists)
    all_equal = all(len(messages) == shared for messages in message_lists)
    judged = message_lists[:1] if all_equal else message_lists
    call = with_litellm_params(
        JudgeCall(judge_model, base_url, api_key, client, timeout, max_retries, {}),
        extra_litellm_params or {},
    )

    def record(response: ChatCompletion) -> None:
        record_response_cost("judge/ruler", response, judge_model)

    def check(answer: _Scores) -> None:
        _check_scores(answer.scores, len(judged))

    async with open_model(
        call.model, base_url=call.base_url, api_key=call.api_key, client=call.client
    ) as asked:
        try:
            answer = await ask(
                asked,
                judge_messages(judged, rubric, tools),
                _Scores,
                check=check,
                timeout=call.timeout,
                max_retries=call.max_retries,
                options=call.options,
                on_response=record,
            )
        except AnswerError as error:
            raise JudgeError(f"The judge gave no scores: {error}") from error
    scores = sorted(answer.scores, key=lambda score: int(score.trajectory_id))
    if debug:
        lines = [json.dumps(score.model_dump(), ensure_ascii=False) for score in scores]
        sys.stderr.write("\n".join([f"RULER, judged by {judge_model}:", *lines, ""]))
    if not all_equal:
        return scores
    ids = range(1, len(message_lists) + 1)
    return [scores[0].model_copy(update={"trajectory_id": str(each)}) for each in ids]


def _check_scores(scores: Sequence[TrajectoryScore], expected: int) -> None:
    ids = [score.trajectory_id for score in scores]
    if sorted(ids) != sorted(str(number) for number in range(1, expected + 1)):
        raise ValueError(f"it scores {ids}; the ids are 1 to {expected}, each once")
    for score in scores:
        if not (math.isfinite(score.score) and 0 <= score.score <= 1):
            raise ValueError(f"the score of {score.trajectory_id} is {score.score}, not in [0, 1]")


async def ruler_score_group(
    group: TrajectoryGroup,
    judge_model: str = "openai/o3",
    extra_litellm_params: Mapping[str, Any] | None = None,
    rubric: str = DEFAULT_RUBRIC,
    *,
    swallow_exceptions: bool = False,
    debug: bool = False,
    base_url: str | None = None,
    api_key: str | None = None,
    client: AsyncOpenAI | None = None,
    timeout: float = 120.0,
    max_retries: int = 2,
) -> TrajectoryGroup | None:
    """Score the trajectories of a group against each other by a judge.

    ::

        groups = await art.gather_trajectory_groups(
            (art.TrajectoryGroup(rollout(model, each) for _ in range(8)) for each in scenarios),
            after_each=lambda group: ruler_score_group(group, swallow_exceptions=True),
        )

    Args:
        group: The group; it is not changed.
        judge_model: As all further ones but the next: see :func:`ruler`.
        extra_litellm_params: See there.
        rubric: See there.
        swallow_exceptions: Log a judge's failure and return ``None``, which leaves the group out
            of ``gather_trajectory_groups``.
        debug: See there.
        base_url: See there.
        api_key: See there.
        client: See there.
        timeout: See there.
        max_retries: See there.

    Returns:
        A copy whose rewards are the scores. Each trajectory's metrics have ``ruler_score`` and its
        earlier reward as ``independent_reward``; its logs have the judge's explanation.

    Raises:
        art.errors.JudgeError: As for :func:`ruler`, unless it is swallowed.
        art.errors.ConfigurationError: As for :func:`ruler`, swallowed never: it would be the same
            for every group. Or a trajectory has additional histories, which a judge is not shown.
    """
    if any(trajectory.additional_histories for trajectory in group):
        raise ConfigurationError(
            "ruler_score_group shows a judge messages_and_choices alone; for trajectories with "
            "additional_histories, put together what it should see and call ruler"
        )
    trajectories = [
        trajectory.model_copy(
            update={"metrics": dict(trajectory.metrics), "logs": list(trajectory.logs)}
        )
        for trajectory in group
    ]
    try:
        scores = await ruler(
            [trajectory.messages() for trajectory in trajectories],
            judge_model,
            extra_litellm_params,
            rubric,
            next((trajectory.tools for trajectory in trajectories if trajectory.tools), None),
            debug=debug,
            base_url=base_url,
            api_key=api_key,
            client=client,
            timeout=timeout,
            max_retries=max_retries,
        )
    except JudgeError as error:
        if not swallow_exceptions:
            raise
        logger.warning("A group of %d trajectories is left out: %s", len(group), error)
        return None
    for trajectory, score in zip(trajectories, scores, strict=True):
        trajectory.metrics |= {"independent_reward": trajectory.reward, "ruler_score": score.score}
        trajectory.reward = score.score
        trajectory.log(f"RULER: {score.explanation}")
    scored = group.__copy__()
    scored.trajectories = trajectories
    return scored
