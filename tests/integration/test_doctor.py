"""``art doctor`` against the engine that ``art serve`` starts."""

import pytest

from tests.engine_server import EngineServer
from tests.processes import run_art


@pytest.mark.parametrize(
    ("key", "status", "said"),
    [
        ("right", 0, "serves"),
        ("tml-wrong", 1, "is reachable, but refuses the key in TINKER_API_KEY"),
        (None, 1, "is reachable, but TINKER_API_KEY is not set"),
    ],
)
def test_doctor_says_whether_the_engine_accepts_the_key(
    engine_server: EngineServer, key: str | None, status: int, said: str
) -> None:
    api_key = engine_server.api_key if key == "right" else key
    result = run_art(
        "doctor",
        status=status,
        env={"TINKER_BASE_URL": engine_server.base_url, "TINKER_API_KEY": api_key},
    )
    report = " ".join(result.stdout.split())
    assert f"{engine_server.base_url} {said}" in report
    if status == 0:
        assert engine_server.base_model in report
