"""smolagents: `python with_smolagents.py chat|tools|stream`."""

import json
import os
import sys

from smolagents import OpenAIModel, ToolCallingAgent, tool

calls: list[list[int]] = []


@tool
def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    calls.append([a, b])
    return a + b


mode = sys.argv[1]
model = OpenAIModel(
    model_id=os.environ["MODEL"],
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
)
if mode == "chat":
    answer = model([{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}]).content
else:
    agent = ToolCallingAgent(
        tools=[add], model=model, verbosity_level=0, stream_outputs=mode == "stream"
    )
    answer = agent.run("What is 17 + 25? Use the tool.")
print(json.dumps({"answer": answer, "calls": calls}))
