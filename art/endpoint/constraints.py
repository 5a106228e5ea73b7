"""Constraints on a turn, to call tools or to be JSON of a schema, and their grammars.

A grammar changes which token is drawn. The logprobs of the sampled tokens stay those of the model
without it, since these are what training compares with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from art.chat.lark import json_value, literal
from art.chat.template import ChatTemplate
from art.chat.tool_calls.protocol import Tool
from art.endpoint.errors import RequestError

ToolUse = Literal["auto", "required"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A constraint on a turn.

    Attributes:
        tool_use: Whether the turn must call a tool.
        tool_name: The one tool to call, where one is demanded.
        content_rule: Lark text that the content matches; ``None`` is any content. A turn may
            call tools instead, where there are tools.
    """

    tool_use: ToolUse = "auto"
    tool_name: str | None = None
    content_rule: str | None = None


NO_CONSTRAINT = Constraint()


@dataclass(frozen=True, slots=True)
class ToolSelection:
    """A request's choice of tools.

    Attributes:
        mode: Whether a tool may, may not, or must be called.
        name: The one tool to call, where one is demanded.
        allowed: The names of the tools that may be called; ``None`` is all of them.
    """

    mode: Literal["auto", "none", "required"]
    name: str | None = None
    allowed: frozenset[str] | None = None


AUTO = ToolSelection("auto")


def choose_tools(
    tools: Sequence[Tool], selection: ToolSelection, content_rule: str | None
) -> tuple[Sequence[Tool], Constraint]:
    """Resolve a choice of tools.

    Args:
        tools: The tools of the request.
        selection: The choice among them.
        content_rule: The Lark text of the content; ``None`` is any text.

    Returns:
        The tools to show to the model, and what its turn must be.

    Raises:
        RequestError: The choice names a tool that is not among them (400).
    """
    if selection.mode == "none":
        return [], Constraint(content_rule=content_rule)
    if selection.allowed is not None:
        unknown = selection.allowed - {tool["function"]["name"] for tool in tools}
        if unknown:
            raise RequestError(
                400,
                f"tool_choice allows {min(unknown)!r:.60}, which is not among the tools",
                param="tool_choice",
            )
        tools = [tool for tool in tools if tool["function"]["name"] in selection.allowed]
    if selection.mode == "required":
        return tools, Constraint(tool_use="required", tool_name=selection.name)
    return tools, Constraint(content_rule=content_rule)


def json_schema_rule(schema: Mapping[str, Any]) -> str:
    """The Lark text of a JSON value that follows a schema."""
    return json_value(schema)


JSON_OBJECT_RULE = json_schema_rule({"type": "object"})
"""The Lark text of any JSON object."""


def choice_rule(choices: Sequence[str]) -> str:
    """The Lark text of one of several texts."""
    return f"({' | '.join(map(literal, choices))})"


def turn_grammar(
    constraint: Constraint,
    tools: Sequence[Tool],
    prompt_token_ids: Sequence[int],
    *,
    parallel: bool,
    template: ChatTemplate,
) -> str | None:
    """Write the grammar of a turn. Thinking before it is free.

    Args:
        constraint: What the turn must be.
        tools: The tools on offer.
        prompt_token_ids: The prompt, which may have begun the thinking.
        parallel: Whether it may have more than one call.
        template: The chat template, which knows how calls are written.

    Returns:
        The grammar; ``None`` where the turn may be anything.

    Raises:
        RequestError: A tool is demanded that is not on offer, or calls have no grammar (400).
    """
    rules: list[str] = []
    if constraint.content_rule is not None:
        rule, before = constraint.content_rule, template.content_opening
        rules.append(f"content: {rule}" if before is None else f"content: {before} ({rule})")
    if constraint.tool_use == "required":
        chosen = _chosen(constraint.tool_name, tools)
        body = "tool_calls"
        rules = [_calls(chosen, parallel=parallel, template=template, param="tool_choice")]
    elif not rules:
        return None
    elif tools:
        body = "(content | tool_calls)"
        rules.append(_calls(tools, parallel=parallel, template=template, param="response_format"))
    else:
        body = "content"
    opening = template.opening_grammar(prompt_token_ids)
    if opening is None:
        return "\n".join([f"start: {body}", *rules])
    return "\n".join([f"start: opening {body}", *rules, opening])


def _chosen(name: str | None, tools: Sequence[Tool]) -> Sequence[Tool]:
    chosen = [tool for tool in tools if name is None or tool["function"]["name"] == name]
    if not chosen:
        wanted = "a tool call" if name is None else f"a call of {name!r:.60}"
        raise RequestError(
            400, f"tool_choice demands {wanted}, which is not among the tools", param="tool_choice"
        )
    return chosen if name is None else chosen[:1]


def _calls(tools: Sequence[Tool], *, parallel: bool, template: ChatTemplate, param: str) -> str:
    each = template.tool_call_format
    token_ids = template.marker_token_ids
    rules = each.grammar(tools, parallel=parallel, token_ids=token_ids) if each else None
    if rules is None:
        raise RequestError(
            400,
            f"{param} cannot be honoured: calls of tools, as this model's chat template writes "
            "them, have no grammar here; use tool_choice auto",
            param=param,
        )
    return rules
