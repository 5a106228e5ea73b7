"""dspy: `python with_dspy.py chat|tools|stream`."""

import asyncio
import json
import os
import sys
from typing import Any

import dspy

calls: list[list[int]] = []


def add(a: int, b: int) -> int:
    """Add two numbers."""
    calls.append([a, b])
    return a + b


async def stream(program: Any, **inputs: str) -> Any:
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    last: Any = None
    async for part in dspy.streamify(program, stream_listeners=[listener])(**inputs):
        last = part
    return last


mode = sys.argv[1]
dspy.configure(
    lm=dspy.LM(
        f"openai/{os.environ['MODEL']}",
        api_base=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        cache=False,
    )
)
if mode == "tools":
    prediction: Any = dspy.ReAct("question -> answer", tools=[add])(question="What is 17 + 25?")
elif mode == "stream":
    prediction = asyncio.run(stream(dspy.Predict("question -> answer"), question="Say hello."))
else:
    prediction = dspy.Predict("question -> answer")(question="Say hello.")
print(json.dumps({"answer": prediction.answer, "calls": calls}))
