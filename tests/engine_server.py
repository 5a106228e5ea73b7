"""A real ``art serve`` on the tiny model, in a process of its own."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .processes import Child, art_command


@dataclass(frozen=True)
class EngineServer:
    """A running engine.

    Attributes:
        base_url: Where it answers.
        api_key: The key that it demands.
        base_model: The model that it serves, as clients ask for it.
        root: The folder of its checkpoints.
        process: Its process, which ends with its standard input.
    """

    base_url: str
    api_key: str
    base_model: str
    root: Path
    process: Child

    def stop(self) -> int:
        """End it as its parent's end would, and return its exit status."""
        self.process.close_stdin()
        return self.process.wait(timeout=30)


StartEngine = Callable[[Path], EngineServer]


def start(
    base_model: Path,
    root: Path,
    *,
    port: int = 0,
    api_key: str | None = None,
    cwd: Path | None = None,
) -> EngineServer:
    """Start an engine on the CPU and wait until it answers.

    Args:
        base_model: The model's folder.
        root: The folder for its checkpoints.
        port: The port that it listens on; 0 is a free one.
        api_key: The key that it demands; ``None`` makes one.
        cwd: The folder that it runs in; ``None`` is the current one.
    """
    api_key = api_key or "tml-" + secrets.token_urlsafe(8)
    process = Child(
        *art_command(
            "serve", base_model, "--root", root, "--device", "cpu", "--port", str(port), "--child"
        ),
        env={"ART_ENGINE_API_KEY": api_key, "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        stdin=True,
    )
    ready = json.loads(process.read_line('"ready"', timeout=120))
    return EngineServer(ready["base_url"], api_key, str(base_model), root, process)
