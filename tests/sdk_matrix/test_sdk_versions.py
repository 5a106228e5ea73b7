"""Clients of every minor version of the SDK against one ``art serve``.

``make .sdks/.ready`` installs each version of versions.txt into a folder of its own. They ask for
the same libraries, so they share those of one environment: the one of the client alone.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from art.engine.wire.sdk_version import NEWEST, OLDEST

from ..engine_server import EngineServer
from ..processes import ROOT, run

HERE = Path(__file__).parent
VERSIONS = (HERE / "versions.txt").read_text(encoding="utf-8").split()
SDKS = ROOT / ".sdks"
# Minors that were never published.
MISSING = {"0.37"}


def test_every_minor_of_the_range_has_a_client() -> None:
    minors = {f"0.{minor}" for minor in range(OLDEST.minor, NEWEST.minor + 1)} - MISSING
    assert {f"0.{Version(version).minor}" for version in VERSIONS} == minors


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter with what the SDKs import."""
    if not (SDKS / ".ready").exists():
        pytest.skip("the SDKs are not installed: make .sdks/.ready")
    return ROOT / ".venv-tinker" / "bin" / "python"


def run_client(python: Path, version: str, engine: EngineServer) -> dict[str, Any]:
    ran = run(
        python,
        HERE / "client.py",
        engine.base_model,
        env={
            "PYTHONPATH": str(SDKS / version),
            "TINKER_BASE_URL": engine.base_url,
            "TINKER_API_KEY": engine.api_key,
            "TINKER_TELEMETRY": "0",
        },
    )
    facts: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return facts


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_of_any_minor_trains_samples_saves_and_resumes(
    python: Path, engine_server: EngineServer, version: str
) -> None:
    facts = run_client(python, version, engine_server)
    assert facts["version"] == version
    assert facts["models"] == [engine_server.base_model]
    assert facts["rank"] == 4

    losses = facts["losses"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]

    # Sampler and trainer agree on every token, by way of an unnamed save and of a named one.
    assert facts["sampled_lengths"] == facts["sampled_logprobs"] == [4, 4, 4]
    assert facts["scored_logprobs"] == pytest.approx(facts["trained_logprobs"], abs=1e-5)
    assert facts["named_logprobs"] == facts["scored_logprobs"]

    run_id = facts["model_id"]
    assert facts["checkpoints"] == [
        f"tinker://{run_id}/sampler_weights/named",
        f"tinker://{run_id}/weights/state",
    ]
    assert facts["resumed"] == pytest.approx(facts["uninterrupted"], rel=1e-6)
    assert facts["reloaded"] == pytest.approx(facts["uninterrupted"], rel=1e-6)
