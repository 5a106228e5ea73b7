"""Launches of torchrun, each used by all tests of a session."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock

from tests.processes import ROOT, Child

from .adapter_reference import write_case
from .meshes import Run
from .tiny_models import CASES


class MeshRuns:
    """The results of all cases on all meshes. Each number of processes is launched once.

    Args:
        folder: A folder of the session, the same for all of its workers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._measured: dict[int, dict[str, Any]] = {}

    def measured(self, run: Run) -> dict[str, Any]:
        """Get the measurements of a run."""
        return self.of(run.processes)[str(run)]

    def output(self, run: Run) -> Path:
        """Get the folder that a run has written."""
        self.of(run.processes)
        return self.folder / run.case / f"of_{run.processes}" / run.mesh

    def of(self, processes: int) -> dict[str, Any]:
        """Get all measurements of a number of processes, by run."""
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
            # A failed launch is not repeated for the hundreds of tests that need it.
            assert not failure.exists(), failure.read_text()
            self._measured[processes] = json.loads(path.read_text())
        return self._measured[processes]

    def case(self, name: str) -> Path:
        """Get the folder of a case."""
        with FileLock(self.folder / "lock"):
            self._write_cases()
        return self.folder / name

    def _write_cases(self) -> None:
        for case in CASES:
            if not (self.folder / case).exists():
                (self.folder / case).mkdir()
                write_case(case, self.folder / case)


def _launch(processes: int, folder: Path) -> str:
    """Run ``mesh_worker.py``; return the end of its output if it failed."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    worker = ("-m", "tests.megatron.mesh_worker", folder)
    command = (*torchrun, f"--nproc-per-node={processes}", *worker)
    with Child(*command, cwd=ROOT, env={"OMP_NUM_THREADS": "1"}) as child:
        try:
            child.wait(0, timeout=600)
        except AssertionError as error:
            # If torchrun were killed, it would leave the processes that it has started.
            child.send_signal(signal.SIGTERM)
            child.wait(timeout=60)
            return str(error)
    return ""
