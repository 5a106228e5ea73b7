"""``art doctor`` against the engine that ``art serve`` starts."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("key", "status", "said"),
    [
        ("right", 0, "serves"),
        ("tml-wrong", 1, "is reachable, but refuses the key in TINKER_API_KEY"),
        (None, 1, "is reachable, but TINKER_API_KEY is not set"),
    ],
)
def test_doctor_asks_the_engine(engine_server, key: str | None, status: int, said: str) -> None:
    environment = {**os.environ, "TINKER_BASE_URL": engine_server.base_url}
    environment.pop("TINKER_API_KEY", None)
    if key is not None:
        environment["TINKER_API_KEY"] = engine_server.api_key if key == "right" else key
    result = subprocess.run(
        [sys.executable, "-m", "art.cli", "doctor"],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert result.returncode == status, result.stdout + result.stderr
    report = " ".join(result.stdout.split())
    assert f"{engine_server.base_url} {said}" in report
    if status == 0:
        assert engine_server.base_model in report
