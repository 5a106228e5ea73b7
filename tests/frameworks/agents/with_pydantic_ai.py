"""pydantic-ai: `python with_pydantic_ai.py chat|tools|stream|output`."""

import asyncio
import json
import os
import sys

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel

calls: list[list[int]] = []


class Sum(BaseModel):
    total: int


def add(a: int, b: int) -> int:
    """Add two numbers."""
    calls.append([a, b])
    return a + b


async def main(mode: str) -> None:
    model = OpenAIChatModel(os.environ["MODEL"])
    question = "Say hello." if mode == "chat" else "What is 17 + 25? Use the tool."
    if mode == "output":
        answer = json.dumps((await Agent(model, output_type=Sum).run(question)).output.model_dump())
    elif mode == "stream":
        async with Agent(model, tools=[add]).run_stream(question) as streamed:
            answer = await streamed.get_output()
    else:
        answer = (await Agent(model, tools=[] if mode == "chat" else [add]).run(question)).output
    print(json.dumps({"answer": answer, "calls": calls}))


asyncio.run(main(sys.argv[1]))
