"""GPUs of this machine, found without torch: a question of milliseconds."""

import platform
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

_SECONDS = 10.0  # a driver that starts up takes some


class GPUs(NamedTuple):
    """The GPUs that were found.

    Attributes:
        names: One line for each GPU.
        problem: What keeps a GPU that is there from being used; ``""`` if nothing does.
        note: What there is instead of a GPU.
    """

    names: tuple[str, ...] = ()
    problem: str = ""
    note: str = "none found; training runs on the CPU"


def find_gpus() -> GPUs:
    """Find the GPUs, by NVIDIA's driver or by the platform.

    Returns:
        The GPUs of NVIDIA and Apple; art uses no others.
    """
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return GPUs(names=("Apple GPU, used through MPS",))
    program = shutil.which("nvidia-smi")
    if program is None:
        if Path("/proc/driver/nvidia/version").exists():
            return GPUs(problem="NVIDIA's driver is loaded, but there is no nvidia-smi to ask")
        return GPUs()
    import subprocess  # only here, since most machines have nothing to ask

    command = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return GPUs(problem=f"nvidia-smi did not answer within {_SECONDS:.0f} s")
    except OSError as error:
        return GPUs(problem=f"nvidia-smi cannot be run: {error}")
    if result.returncode:
        reason = (result.stdout + result.stderr).strip().partition("\n")[0]
        return GPUs(problem=f"nvidia-smi failed: {reason or f'status {result.returncode}'}")
    return GPUs(names=tuple(map(_describe, result.stdout.strip().splitlines())))


def _describe(line: str) -> str:
    name, memory, driver = (part.strip() for part in line.rsplit(",", 2))
    return f"{name}, {memory}, driver {driver}"
