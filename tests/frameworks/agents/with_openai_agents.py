"""openai-agents: `python with_openai_agents.py chat|tools|stream [chat_completions]`."""

import asyncio
import json
import os
import sys
from typing import Any

from agents import (
    Agent,
    Runner,
    function_tool,
    set_default_openai_api,
    set_tracing_disabled,
)

calls: list[list[int]] = []


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    calls.append([a, b])
    return a + b


async def main(mode: str) -> None:
    tools: list[Any] = [] if mode == "chat" else [add]
    agent = Agent(name="adder", instructions="Be brief.", model=os.environ["MODEL"], tools=tools)
    question = "Say hello." if mode == "chat" else "What is 17 + 25? Use the tool."
    if mode == "stream":
        streamed = Runner.run_streamed(agent, question)
        async for _ in streamed.stream_events():
            pass
        answer = streamed.final_output
    else:
        answer = (await Runner.run(agent, question)).final_output
    print(json.dumps({"answer": answer, "calls": calls}))


set_tracing_disabled(True)
if len(sys.argv) > 2:
    set_default_openai_api("chat_completions")
asyncio.run(main(sys.argv[1]))
