"""The agents of tests/frameworks/agents, and what a model would write to each of them."""

import json
from dataclasses import dataclass

END = "<|im_end|>"
HELLO = f"Hello there.{END}"
SUM = f"The sum is 42.{END}"


def _call(name: str, **arguments: object) -> str:
    """A tool call as Qwen 2.5 writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>{END}"


CALL = _call("add", a=17, b=25)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run of an agent.

    Attributes:
        agent: The program, without ``with_`` and ``.py``.
        arguments: Its arguments: the mode first.
        replies: The texts that the model samples, one a turn.
        answer: The agent's answer.
        environment: The folder of ``.frameworks`` with the libraries.
        adds: Whether the tool ``add`` was called with 17 and 25 in this process.
    """

    agent: str
    arguments: tuple[str, ...]
    replies: tuple[str, ...]
    answer: str = "The sum is 42."
    environment: str = "agents"
    adds: bool = True

    @property
    def name(self) -> str:
        return " ".join([self.agent, *self.arguments])


def _fields(**values: str) -> str:
    """The form in which DSPy asks for its outputs."""
    parts = [f"[[ ## {name} ## ]]\n{value}" for name, value in values.items()]
    return "\n\n".join([*parts, "[[ ## completed ## ]]"]) + END


def _usual(agent: str, environment: str = "agents", stream: str = "stream") -> list[Case]:
    chat = Case(
        agent=agent,
        arguments=("chat",),
        replies=(HELLO,),
        answer="Hello there.",
        adds=False,
        environment=environment,
    )
    return [
        chat,
        *(
            Case(agent=agent, arguments=(mode,), replies=(CALL, SUM), environment=environment)
            for mode in ("tools", stream)
        ),
    ]


_FINAL_ANSWER = _call("final_answer", answer="The sum is 42.")
_RESULT = _call("final_result", total=42)
_DSPY_HELLO = _fields(answer="Hello there.")
_DSPY_REACT = (
    _fields(next_thought="I add.", next_tool_name="add", next_tool_args='{"a": 17, "b": 25}'),
    _fields(next_thought="That is it.", next_tool_name="finish", next_tool_args="{}"),
    _fields(reasoning="17 + 25 is 42.", answer="The sum is 42."),
)

CASES: list[Case] = [
    *_usual("openai"),
    *(
        Case(agent="openai", arguments=(mode,), replies=(CALL, SUM))
        for mode in ("responses", "responses-stream")
    ),
    *_usual("openai_agents"),
    *(
        Case(agent="openai_agents", arguments=(mode, "chat_completions"), replies=(CALL, SUM))
        for mode in ("tools", "stream")
    ),
    *_usual("langgraph"),
    *_usual("pydantic_ai"),
    Case(
        agent="pydantic_ai",
        arguments=("output",),
        replies=(_RESULT,),
        answer='{"total": 42}',
        adds=False,
    ),
    *_usual("litellm"),
    _usual("smolagents")[0],
    *(
        Case(agent="smolagents", arguments=(mode,), replies=(CALL, _FINAL_ANSWER))
        for mode in ("tools", "stream")
    ),
    *(
        Case(
            agent="dspy",
            arguments=(mode,),
            replies=(_DSPY_HELLO,),
            answer="Hello there.",
            adds=False,
        )
        for mode in ("chat", "stream")
    ),
    Case(agent="dspy", arguments=("tools",), replies=_DSPY_REACT),
    *_usual("crewai", "crewai"),
    Case(
        agent="verifiers",
        arguments=("chat",),
        replies=(HELLO,),
        answer="Hello there.",
        environment="verifiers",
        adds=False,
    ),
    # Its tools are in a server of their own.
    Case(
        agent="verifiers",
        arguments=("tools",),
        replies=(CALL.replace('"add"', '"adder_add"'), SUM),
        environment="verifiers",
        adds=False,
    ),
]
