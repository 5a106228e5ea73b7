"""The tests of ``art.langgraph`` where LangGraph is: in the environment of the frameworks."""

import os

import pytest

from ..processes import ROOT, run

PYTHON = ROOT / ".frameworks" / "agents" / "bin" / "python"
LIGHT = ROOT / ".venv-tinker" / "bin" / "python"


@pytest.mark.slow
def test_agents_of_langgraph_and_langchain_are_captured() -> None:
    if not (ROOT / ".frameworks" / ".ready").exists():
        pytest.skip("the frameworks are not installed: make .frameworks/.ready")
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    # What art and its tests import beside LangGraph.
    packages = run(LIGHT, "-c", purelib).stdout.strip()
    ran = run(
        PYTHON,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/light/capture/test_langgraph.py"),
        cwd=ROOT,
        env={"PYTHONPATH": os.pathsep.join([str(ROOT), packages])},
    )
    summary = ran.stdout.splitlines()[-1]
    assert "8 passed" in summary, ran.stdout
