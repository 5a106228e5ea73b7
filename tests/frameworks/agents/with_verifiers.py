"""verifiers: `python with_verifiers.py chat|tools [train]`; with a tool server and a reward.

``train`` is its client for training, which sends tokens and takes tokens.
"""

import asyncio
import json
import os
import sys

import verifiers.v1 as vf
from verifiers_tasks import AddConfig, AddTask, SayData, SayTask


async def main(mode: str, client_type: str) -> None:
    server = {"base_url": os.environ["OPENAI_BASE_URL"], "api_key_var": "OPENAI_API_KEY"}
    client: vf.ClientConfig = vf.EvalClientConfig(**server)
    if client_type == "train":
        client = vf.TrainClientConfig(**server, renderer_model_name=os.environ["TOKENIZER"])
    agent = vf.make_agent(
        vf.AgentConfig(
            harness=vf.HarnessConfig(id="null"),
            runtime=vf.SubprocessConfig(),
            model=os.environ["MODEL"],
            client=client,
            max_turns=4,
        )
    )
    if mode == "chat":
        task: vf.Task = SayTask(SayData(prompt="Say hello.", wanted="Hello"), vf.TaskConfig())
    else:
        question = "What is 17 + 25? Use the tool."
        task = AddTask(SayData(prompt=question, wanted="42"), AddConfig())
    trace = await agent.run(task)
    if trace.errors:
        raise SystemExit(str(trace.errors))
    print(json.dumps({"answer": trace.last_reply, "reward": trace.reward}))


asyncio.run(main(sys.argv[1], (sys.argv[2:] or ["eval"])[0]))
