"""Sampled turns, put together to the conversations of a trajectory.

A request has no name that says which conversation it belongs to. It has all of its messages: where
they begin with a conversation that was recorded before, it continues that one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from art.trajectories import History, Trajectory
from art.types import Choice, Message, Tools, message_or_choice

# A message by what it says: its role, its text and its tool calls.
_Said = tuple[str, str, tuple[tuple[str, str], ...]]


def record_turn(
    trajectory: Trajectory,
    messages: Sequence[Message],
    tools: Tools | None,
    choices: Sequence[Choice],
) -> None:
    """Add a request and the choices that were sampled for it to a trajectory.

    The request continues the longest conversation that it begins with, offered the same tools;
    messages are compared by role, text and tool calls, since clients write ids, nulls and white
    space in their own ways. A request that continues none begins a conversation: the trajectory's
    own if that is empty, else an additional history. What was sampled for an earlier request is
    there a message like any other, so that each ``Choice`` is in the trajectory once.

    Args:
        trajectory: The trajectory; it is changed.
        messages: The messages of the request.
        tools: The tools that it offers.
        choices: One or more. The first goes on in the conversation; each further one begins a
            branch of its own.
    """
    said = [_said(message) for message in messages]
    for number, choice in enumerate(choices):
        conversation = _continued(trajectory, said, tools) if number == 0 else None
        if conversation is None:
            conversation = _begin(trajectory)
            conversation.tools = tools
        items = conversation.messages_and_choices
        _take_over_call_ids(items, messages)
        items.extend(messages[len(items) :])
        items.append(choice)


def record_completion(
    trajectory: Trajectory,
    prompt_token_ids: Sequence[int],
    choices: Sequence[Choice],
    text_of: Callable[[Sequence[int]], str],
) -> None:
    """Add a prompt of tokens and the completions that were sampled for it to a trajectory.

    The prompt continues the longest conversation whose last completion, with its own prompt, it
    begins with. What it has beyond that is one message of the user's, for those who read it:
    training takes the tokens.

    Args:
        trajectory: The trajectory; it is changed.
        prompt_token_ids: ``[P]``.
        choices: One or more, with ``prompt_token_ids`` and ``token_ids``.
        text_of: Writes tokens as text.
    """
    for number, choice in enumerate(choices):
        found = _continued_by_tokens(trajectory, prompt_token_ids) if number == 0 else None
        conversation, known = found or (_begin(trajectory), 0)
        items = conversation.messages_and_choices
        if new := prompt_token_ids[known:]:
            items.append({"role": "user", "content": text_of(new)})
        items.append(choice)


def _continued_by_tokens(
    trajectory: Trajectory, prompt_token_ids: Sequence[int]
) -> tuple[Trajectory | History, int] | None:
    """Find a conversation, with the number of tokens of the prompt that it holds."""
    found: tuple[Trajectory | History, int] | None = None
    prompt = list(prompt_token_ids)
    conversations: list[Trajectory | History] = [trajectory, *trajectory.additional_histories]
    for conversation in conversations:
        last = next(reversed(conversation.messages_and_choices), None)
        fields = last.model_extra or {} if isinstance(last, Choice) else {}
        held = [*fields.get("prompt_token_ids", ()), *fields.get("token_ids", ())]
        longer = found is None or len(held) > found[1]
        if held and longer and prompt[: len(held)] == held:
            found = conversation, len(held)
    return found


def _continued(
    trajectory: Trajectory, said: Sequence[_Said], tools: Tools | None
) -> Trajectory | History | None:
    found: Trajectory | History | None = None
    conversations: list[Trajectory | History] = [trajectory, *trajectory.additional_histories]
    for conversation in conversations:
        items = conversation.messages_and_choices
        longer = found is None or len(items) > len(found.messages_and_choices)
        if not items or not longer or len(items) > len(said):
            continue
        if (conversation.tools or None) != (tools or None):
            continue
        # From the end: conversations of one agent often begin alike.
        if all(_said(items[i]) == said[i] for i in reversed(range(len(items)))):
            found = conversation
    return found


def _begin(trajectory: Trajectory) -> Trajectory | History:
    if not trajectory.messages_and_choices:
        return trajectory
    trajectory.additional_histories.append(History(messages_and_choices=[]))
    return trajectory.additional_histories[-1]


def _said(item: object) -> _Said:
    plain = message_or_choice(item)
    message = plain.message.model_dump() if isinstance(plain, Choice) else plain
    role = str(message.get("role"))
    return (
        "system" if role == "developer" else role,
        _text(message.get("content")).strip(),
        tuple(_called(call) for call in message.get("tool_calls") or ()),
    )


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    parts = [
        part["text"] if isinstance(part, Mapping) and part.get("type") == "text" else _json(part)
        for part in content
    ]
    return "".join(parts)


def _called(call: Mapping[str, Any]) -> tuple[str, str]:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return str(function.get("name")), arguments
    return str(function.get("name")), _json(arguments or {})


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _take_over_call_ids(items: Sequence[object], messages: Sequence[Message]) -> None:
    """Give recorded calls the ids under which the client knows them, and names their results."""
    for item, message in zip(items, messages, strict=False):
        if isinstance(item, Choice) and item.message.tool_calls:
            sent: Any = message.get("tool_calls") or ()
            for call, sent_call in zip(item.message.tool_calls, sent, strict=False):
                call.id = sent_call.get("id") or call.id
