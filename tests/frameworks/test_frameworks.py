"""Agents of other frameworks, in environments without art, run and are trained on.

Each knows the base URL, the key and the model's name, and nothing else of art. The sampler is
scripted, since a tiny model calls no tools; the endpoint, the capture and the training are real.
"""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import art
from art.endpoint.types import SampledTokens, SamplingOptions
from art.types import Choice

from ..processes import ROOT
from .cases import CASES, Case

pytestmark = pytest.mark.slow

AGENTS = Path(__file__).parent / "agents"
ENVIRONMENTS = ROOT / ".frameworks"
TEMPLATE = ROOT / "tests/light/chat/data/qwen2_5/chat_template.jinja"
LIMIT_S = 180


class Script:
    """A sampler that says one text after the other, and keeps their tokens."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.replies: list[str] = []
        self.said: list[list[int]] = []

    async def complete(
        self, prompt_token_ids: Sequence[int], options: SamplingOptions
    ) -> list[SampledTokens]:
        token_ids = self._tokenizer.encode(self.replies.pop(0), add_special_tokens=False)
        self.said.append(token_ids)
        likeliest = [[(token_id, -0.5)] for token_id in token_ids]
        return [SampledTokens(token_ids, [-0.5] * len(token_ids), "stop", likeliest)]


@pytest.fixture(scope="module")
def base_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a long context, and a template that shows tools."""
    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 16384}))
    shutil.copy(TEMPLATE, folder / "chat_template.jinja")
    return folder


@pytest.fixture(scope="module")
def script(base_model: Path) -> Script:
    return Script(base_model)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(
    script: Script, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[art.LocalBackend]:
    async def open_script(service: object, path: str | None) -> Script:
        return script

    path = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("art.tinker.service.TinkerService._open_completer", open_script)
        async with art.LocalBackend(path=path, device="cpu") as backend:
            yield backend


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(backend: art.LocalBackend, base_model: Path) -> art.TrainableModel[None]:
    model: art.TrainableModel[None] = art.TrainableModel(
        name="agent", project="frameworks", base_model=str(base_model)
    )
    await model.register(backend)
    return model


async def run_agent(case: Case, **environment: str) -> dict[str, Any]:
    """Run an agent in its environment; what it prints last."""
    folder = ENVIRONMENTS / case.environment
    if not (ENVIRONMENTS / ".ready").exists():
        pytest.skip("the frameworks are not installed: make .frameworks/.ready")
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        folder / "bin" / "python",
        AGENTS / f"with_{case.agent}.py",
        *case.arguments,
        env={
            **inherited,
            "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(AGENTS),
            "CREWAI_DISABLE_TELEMETRY": "true",
            "OTEL_SDK_DISABLED": "true",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            **environment,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{output.decode()}\n{errors.decode()[-3000:]}"
    # A progress line may stand before it, without an end.
    text = output.decode()
    printed: dict[str, Any] = json.loads(text[text.rindex('{"answer"') :])
    return printed


def sampled(trajectory: art.Trajectory) -> list[list[int]]:
    """The tokens of the turns of all histories."""
    histories = [trajectory.messages_and_choices]
    histories += [each.messages_and_choices for each in trajectory.additional_histories]
    return [
        (item.model_extra or {})["token_ids"]
        for history in histories
        for item in history
        if isinstance(item, Choice)
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_an_agent_runs_unchanged_and_its_run_is_trained_on(
    case: Case, script: Script, model: art.TrainableModel[None], backend: art.LocalBackend
) -> None:
    script.replies, script.said = list(case.replies), []
    async with model.rollout_endpoint() as rollout:
        printed = await run_agent(case, **rollout.env, MODEL=rollout.model_name)
        trajectory = await rollout.trajectory()
    assert printed["answer"] == case.answer
    if case.adds:
        assert printed["calls"] == [[17, 25]]
    assert script.replies == []
    assert sampled(trajectory) == script.said

    better = trajectory.model_copy(update={"reward": 1.0})
    step = await model.get_step()
    result = await backend.train(model, [art.TrajectoryGroup([trajectory, better])])
    assert result.step == step + 1


ROWS = {
    "openai": "openai, chat completions",
    "openai responses": "openai, responses",
    "openai_agents": "openai-agents, responses",
    "openai_agents chat_completions": "openai-agents, chat completions",
    "langgraph": "langgraph with langchain-openai",
    "pydantic_ai": "pydantic-ai",
}


def test_the_page_names_what_is_run() -> None:
    ran: dict[str, set[str]] = {}
    for case in CASES:
        mode, *api = case.arguments
        kind, _, stream = mode.partition("-")
        name = " ".join([case.agent, *api, *(["responses"] if kind == "responses" else [])])
        cell = {"stream": "streaming", "responses": "tools", "output": "tools"}.get(kind, kind)
        ran.setdefault(ROWS.get(name, name), set()).add("streaming" if stream else cell)
    page = (ROOT / "docs" / "capture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z][^|]*) \| (.*) \| yes \|$", page, re.MULTILINE)
    columns = ("chat", "tools", "streaming")
    said = {
        name: {
            column for column, cell in zip(columns, cells.split("|"), strict=True) if cell.strip()
        }
        for name, cells in rows
    }
    assert said == ran
