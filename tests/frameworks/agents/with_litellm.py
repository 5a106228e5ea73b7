"""litellm: `python with_litellm.py chat|tools|stream`."""

import json
import os
import sys
from typing import Any

import litellm

calls: list[list[int]] = []
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


def complete(messages: list[Any], *, stream: bool, **options: Any) -> Any:
    completion: Any = litellm.completion(
        model=f"openai/{os.environ['MODEL']}",
        api_base=os.environ["OPENAI_BASE_URL"],
        messages=messages,
        stream=stream,
        **options,
    )
    if stream:
        completion = litellm.stream_chunk_builder(list(completion), messages=messages)
    return completion.choices[0].message


def add(a: int, b: int) -> int:
    calls.append([a, b])
    return a + b


mode = sys.argv[1]
if mode == "chat":
    message = complete([{"role": "user", "content": "Say hello."}], stream=False)
else:
    messages: list[Any] = [{"role": "user", "content": "What is 17 + 25? Use the tool."}]
    while True:
        message = complete(messages, stream=mode == "stream", tools=[TOOL])
        if not message.tool_calls:
            break
        messages.append(message.model_dump())
        for call in message.tool_calls:
            result = add(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})
print(json.dumps({"answer": message.content, "calls": calls}))
