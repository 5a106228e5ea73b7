"""The openai client: `python with_openai.py chat|tools|stream|responses|responses-stream`."""

import json
import os
import sys
from typing import Any

from openai import OpenAI

MODEL = os.environ["MODEL"]
QUESTION = "What is 17 + 25? Use the tool."
PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}

client = OpenAI()
calls: list[list[int]] = []


def add(a: int, b: int) -> int:
    calls.append([a, b])
    return a + b


def chat() -> str | None:
    messages: list[Any] = [{"role": "user", "content": "Say hello."}]
    completion = client.chat.completions.create(model=MODEL, messages=messages)
    return completion.choices[0].message.content


def tools(*, stream: bool) -> str | None:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    tool: Any = {"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}
    while True:
        if stream:
            with client.chat.completions.stream(
                model=MODEL, messages=messages, tools=[tool]
            ) as events:
                message: Any = events.get_final_completion().choices[0].message
        else:
            message = (
                client.chat.completions.create(model=MODEL, messages=messages, tools=[tool])
                .choices[0]
                .message
            )
        if not message.tool_calls:
            return str(message.content)
        messages.append(message)
        for call in message.tool_calls:
            result = add(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})


def responses(*, stream: bool) -> str:
    items: list[Any] = [{"role": "user", "content": QUESTION}]
    tool: Any = {"type": "function", "name": "add", "parameters": PARAMETERS, "strict": False}
    while True:
        if stream:
            with client.responses.stream(model=MODEL, input=items, tools=[tool]) as events:
                response: Any = events.get_final_response()
        else:
            response = client.responses.create(model=MODEL, input=items, tools=[tool])
        asked = [item for item in response.output if item.type == "function_call"]
        if not asked:
            return str(response.output_text)
        items += response.output
        for call in asked:
            result = add(**json.loads(call.arguments))
            items.append(
                {"type": "function_call_output", "call_id": call.call_id, "output": str(result)}
            )


MODES = {
    "chat": chat,
    "tools": lambda: tools(stream=False),
    "stream": lambda: tools(stream=True),
    "responses": lambda: responses(stream=False),
    "responses-stream": lambda: responses(stream=True),
}
print(json.dumps({"answer": MODES[sys.argv[1]](), "calls": calls}))
