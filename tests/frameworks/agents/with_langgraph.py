"""langgraph with langchain-openai: `python with_langgraph.py chat|tools|stream`."""

import json
import os
import sys

from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent

calls: list[list[int]] = []


def add(a: int, b: int) -> int:
    """Add two numbers."""
    calls.append([a, b])
    return a + b


mode = sys.argv[1]
model = ChatOpenAI(
    model=os.environ["MODEL"],
    base_url=os.environ["OPENAI_BASE_URL"],
    streaming=mode == "stream",
)
question = "Say hello." if mode == "chat" else "What is 17 + 25? Use the tool."
agent = create_react_agent(model, [] if mode == "chat" else [add])
state = {"messages": [{"role": "user", "content": question}]}
if mode == "stream":
    *_, last = agent.stream(state, stream_mode="values")
else:
    last = agent.invoke(state)
print(json.dumps({"answer": last["messages"][-1].content, "calls": calls}))
