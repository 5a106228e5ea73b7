"""Messages as text for people, and the messages of a trajectory."""

from typing import Any, cast

from art.trajectories import Trajectory
from art.types import Message, Messages


def format_message(message: Message) -> str:
    """Render a message as text to read: its role, its content and its tool calls.

    Args:
        message: A message in the OpenAI API's form. Of content in parts, the text is shown, and
            the type of what is no text.

    Returns:
        ``"Assistant:"``, then the content, then a line ``name(arguments)`` for each tool call.
    """
    # Its fields beyond the role differ by role.
    fields = cast("dict[str, Any]", message)
    content = fields.get("content") or fields.get("refusal") or ""
    if not isinstance(content, str):
        content = "\n".join(str(part.get("text", f"[{part.get('type')}]")) for part in content)
    lines = [f"{message['role'].capitalize()}:", *([content] if content else [])]
    lines += [
        f"{call['function']['name']}({call['function']['arguments']})"
        for call in fields.get("tool_calls") or ()
        if "function" in call
    ]
    return "\n".join(lines)


def get_trajectory_messages(trajectory: Trajectory) -> Messages:
    """Render a trajectory's main conversation as plain messages: ``trajectory.messages()``.

    Args:
        trajectory: The trajectory.

    Returns:
        Messages; a Choice becomes an assistant message.
    """
    return trajectory.messages()
