"""The ``art`` command as a user runs it: a process of its own, with its own environment."""

import subprocess
from typing import Protocol

import pytest

from tests.processes import run_art


class Run(Protocol):
    """Runs ``art``; keywords set environment variables, ``None`` takes one away."""

    def __call__(
        self, *arguments: str, **environment: str | None
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def art() -> Run:
    """Run ``art`` without a server to connect to, on a terminal of 100 columns."""

    def run(*arguments: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
        bare = {"COLUMNS": "100", "TINKER_API_KEY": None, "TINKER_BASE_URL": None}
        return run_art(*arguments, status=None, timeout=300, env={**bare, **environment})

    return run
