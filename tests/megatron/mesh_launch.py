"""Launches of torchrun, each shared by all tests of a session."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock

from .adapter_reference import write_case
from .meshes import Run
from .tiny_models import CASES

ROOT = Path(__file__).parents[2]


class MeshRuns:
    """What came of all cases on all meshes. Each number of processes is launched once.

    Args:
        folder: A folder of the session's, the same for all of its workers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._measured: dict[int, dict[str, Any]] = {}

    def measured(self, run: Run) -> dict[str, Any]:
        """What the ranks of a run measured."""
        return self.of(run.processes)[str(run)]

    def output(self, run: Run) -> Path:
        """What a run wrote."""
        self.of(run.processes)
        return self.folder / run.case / f"of_{run.processes}" / run.mesh

    def of(self, processes: int) -> dict[str, Any]:
        """All that so many processes measured, by run."""
        if processes not in self._measured:
            path = self.folder / f"of_{processes}.json"
            failure = path.with_suffix(".failed")
            # Workers of pytest-xdist share the launch; the first of them runs it.
            with FileLock(self.folder / "lock"):
                self._write_cases()
                if not path.exists() and not failure.exists():
                    error = _launch(processes, self.folder)
                    if error:
                        failure.write_text(error)
            # Once failed it has failed for all: hundreds of tests ask for it.
            assert not failure.exists(), failure.read_text()
            self._measured[processes] = json.loads(path.read_text())
        return self._measured[processes]

    def case(self, name: str) -> Path:
        """The folder of a case."""
        with FileLock(self.folder / "lock"):
            self._write_cases()
        return self.folder / name

    def _write_cases(self) -> None:
        for case in CASES:
            if not (self.folder / case).exists():
                (self.folder / case).mkdir()
                write_case(case, self.folder / case)


def _launch(processes: int, folder: Path) -> str:
    """Run ``mesh_worker.py``; return the end of what it printed if it failed."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    worker = ["-m", "tests.megatron.mesh_worker", str(folder)]
    process = subprocess.Popen(
        [*torchrun, f"--nproc-per-node={processes}", *worker],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        # Killed, it would leave the processes that it started.
        process.terminate()
        output, _ = process.communicate(timeout=60)
        return f"not done after 600 seconds:\n{output[-8000:]}"
    return output[-8000:] if process.returncode else ""
