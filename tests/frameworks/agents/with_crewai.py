"""crewai: `python with_crewai.py chat|tools|stream`."""

import json
import os
import sys
from typing import Any

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool

calls: list[list[int]] = []


@tool("add")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    calls.append([a, b])
    return a + b


mode = sys.argv[1]
llm = LLM(
    model=f"openai/{os.environ['MODEL']}",
    base_url=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
    stream=mode == "stream",
)
tools: list[Any] = [] if mode == "chat" else [add]
agent = Agent(role="adder", goal="Add numbers", backstory="You add.", llm=llm, tools=tools)
question = "Say hello." if mode == "chat" else "What is 17 + 25? Use the tool."
task = Task(description=question, expected_output="One sentence", agent=agent)
answer = Crew(agents=[agent], tasks=[task], verbose=False).kickoff()
print(json.dumps({"answer": str(answer), "calls": calls}))
