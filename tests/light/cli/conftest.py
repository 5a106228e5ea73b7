"""The ``art`` command as a user runs it: a process of its own, with its own environment."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def art() -> Run:
    """Run ``art`` with arguments; keywords set environment variables, ``None`` takes one away."""

    def run(*arguments: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
        variables = {
            **os.environ,
            "COLUMNS": "100",
            "TINKER_API_KEY": None,
            "TINKER_BASE_URL": None,
            **environment,
        }
        return subprocess.run(
            [sys.executable, "-m", "art.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            env={name: value for name, value in variables.items() if value is not None},
        )

    return run
