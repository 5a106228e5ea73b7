"""Episodes of a scripted model: turns sampled after real prompts, read back, and sent again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from art.chat.tool_calls.protocol import ParsedText
from art.types import Choice
from tests.light.chat.families import Family
from tests.light.chat.native import NATIVE, Arguments

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Look something up.",
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string"},
                    "limit": {"type": "integer"},
                    "exact": {"type": "boolean"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "filters": {"type": "object"},
                },
                "required": ["query"],
            },
        },
    }
]


@dataclass(frozen=True)
class Scripted:
    """What the model says in one turn."""

    content: str
    reasoning: str | None = None
    calls: Sequence[Arguments] = ()


@dataclass
class Episode:
    """A conversation with one family's model, as an agent's loop leads it."""

    family: Family
    messages: list[dict[str, Any]] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    parsed: list[ParsedText] = field(default_factory=list)

    @property
    def tools(self) -> list[dict[str, Any]]:
        return TOOLS if self.family.template.renders_tools else []

    def say(self, content: str) -> None:
        """Add a user's message."""
        self.messages.append({"role": "user", "content": content})

    def prompt(self) -> list[int]:
        return self.family.template.prompt_token_ids(self.messages, self.tools)

    def sample(self, turn: Scripted) -> ParsedText:
        """Let the model write a turn as its family does, ended by its own token."""
        native = NATIVE[self.family.name]
        calls = turn.calls if self.tools else ()
        text = native.turn(self.family.text(self.prompt()), turn.content, turn.reasoning, calls)
        return self.sample_tokens(
            self.family.encode(text + native.ends[bool(calls)]), result="7 results"
        )

    def sample_tokens(self, token_ids: list[int], result: str) -> ParsedText:
        """Let the model write any tokens; its calls are answered with a result."""
        prompt = self.prompt()
        template = self.family.template
        ends = template.end_of_turn_ids
        end = next((i for i, each in enumerate(token_ids) if each in ends), None)
        parsed = template.parse(template.decode(token_ids[:end]), self.tools, prompt)
        kept = token_ids if end is None else token_ids[: end + 1]
        self.choices.append(_choice(prompt, kept))
        self.parsed.append(parsed)
        self._answer(parsed, result)
        return parsed

    def _answer(self, parsed: ParsedText, result: str) -> None:
        message: dict[str, Any] = {"role": "assistant", "content": parsed.content}
        if parsed.reasoning is not None:
            message["reasoning_content"] = parsed.reasoning
        calls = [
            {
                "id": call.id or f"call_{len(self.messages)}_{number}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for number, call in enumerate(parsed.tool_calls)
        ]
        if calls:
            # As an OpenAI server answers: no content is null.
            message.update(content=parsed.content or None, tool_calls=calls)
        self.messages.append(message)
        self.messages += [
            {"role": "tool", "tool_call_id": call["id"], "content": result} for call in calls
        ]

    def joins(self, turn: int) -> bool:
        """Whether the prompt of a turn begins with all tokens of the turn before."""
        before, after = self.choices[turn - 1].model_extra, self.choices[turn].model_extra
        assert before is not None
        assert after is not None
        tokens = before["prompt_token_ids"] + before["token_ids"]
        return bool(after["prompt_token_ids"][: len(tokens)] == tokens)


def arguments_of(parsed: ParsedText) -> list[Any]:
    """The decoded arguments of a message's calls."""
    return [json.loads(call.arguments) for call in parsed.tool_calls]


def _choice(prompt: list[int], token_ids: list[int]) -> Choice:
    logprobs: list[dict[str, Any]] = [
        {"token": str(each), "bytes": None, "logprob": -0.5, "top_logprobs": []}
        for each in token_ids
    ]
    return Choice.model_validate(
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "not read"},
            "logprobs": {"content": logprobs},
            "prompt_token_ids": prompt,
            "token_ids": token_ids,
        }
    )
