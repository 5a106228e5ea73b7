"""The client in an environment that has no engine, against an engine in another process.

The client runs in `.venv-tinker`, which has no torch and no megatron; `make test` makes it.
"""

import os
import sys
from pathlib import Path

import pytest

from tests.engine_server import EngineServer
from tests.processes import ROOT, run_python

CLIENT = ROOT / ".venv-tinker" / ("Scripts" if os.name == "nt" else "bin") / "python"

SCRIPT = """
import asyncio, sys
import art

async def main(base_model, path):
    model = art.TrainableModel(name="words", project="light", base_model=base_model)
    async with art.TinkerBackend(path=path) as backend:
        service = await backend._get_service(model)
        print(type(service).__name__)
        await model.register(backend)
        messages = [{"role": "user", "content": "Say a word."}]
        completion = await model.openai_client().chat.completions.create(
            model=model.get_inference_name(), messages=messages, max_tokens=8, n=4
        )
        group = art.TrajectoryGroup(
            art.Trajectory(messages_and_choices=[*messages, choice], reward=float(number))
            for number, choice in enumerate(completion.choices)
        )
        result = await backend.train(model, [group], learning_rate=1e-3)
        print(result.step, await model.get_step())

asyncio.run(main(*sys.argv[1:]))
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"megatron", "torch", "transformer_engine"}))
"""


def test_a_model_registers_and_trains_from_where_there_is_no_engine(
    engine_server: EngineServer, tmp_path: Path
) -> None:
    if not CLIENT.exists():
        pytest.fail("the environment of the client is missing: run `make .venv-tinker/.ready`")
    assert sys.executable != str(CLIENT)
    run_python("import importlib.util as u; assert u.find_spec('torch') is None", python=CLIENT)

    result = run_python(
        SCRIPT,
        engine_server.base_model,
        tmp_path,
        python=CLIENT,
        env={"TINKER_BASE_URL": engine_server.base_url, "TINKER_API_KEY": engine_server.api_key},
    )
    assert result.stdout.splitlines() == ["TinkerService", "1 1", "[]"]
