"""The backend that trains on this machine, with the embedded engine."""

import asyncio
import os
from pathlib import Path

from art.runs.progress import ShowProgress
from art.tinker.backend import TinkerBackend, refuse_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from art.local.engine_process import EngineProcess
    from art.tinker.connection import Connection


class LocalBackend(TinkerBackend):
    """Trains models on this machine: on a CPU, or, where there is one, an Apple or CUDA GPU.

    ::

        async with art.LocalBackend() as backend:
            await model.register(backend)

    The first model that is registered starts the engine, a child process on loopback; each base
    model has one of its own. It ends with :meth:`close`, or with this process, however that ends.
    In all else this is a :class:`art.tinker.backend.TinkerBackend`.

    Args:
        path: Root of all models' state. The engine keeps its checkpoints and its log under
            ``engine``; each step's folder holds the adapter as PEFT reads it.
        device: A device's name in torch, such as ``"cpu"``; ``"auto"`` takes the best there is.
        dtype: Type of the base model's weights: ``"float32"``, ``"bfloat16"``, or ``"auto"``,
            which is bfloat16 on CUDA and float32 elsewhere.
        show_progress: Shows the progress of long work; ``None`` shows bars on the terminal.
        **options: ART's further options. One that would have an effect there is refused.

    Raises:
        art.errors.ConfigurationError: An option of ART's is refused.
    """

    def __init__(
        self,
        *,
        path: str | os.PathLike[str] = ".art",
        device: str = "auto",
        dtype: str = "auto",
        show_progress: ShowProgress | None = None,
        **options: object,
    ) -> None:
        refuse_options("art.LocalBackend", options)
        super().__init__(path=path, show_progress=show_progress)
        self._engine_root = Path(self._path) / "engine"
        self._engine_arguments = ("--device", device, "--dtype", dtype)
        self._engines: dict[str, EngineProcess] = {}
        self._starting = asyncio.Lock()

    async def close(self) -> None:
        """Stop the endpoints, then the engines. Checkpoints stay."""
        try:
            await super().close()
        finally:
            engines, self._engines = self._engines, {}
            for engine in engines.values():
                await asyncio.to_thread(engine.close)

    async def _connect(self, base_model: str) -> "Connection":
        """Start the engine of a base model, unless it runs.

        Raises:
            MissingExtraError: The engine is not installed.
            UnknownBaseModelError: The engine cannot find the base model.
            EngineStartError: The engine ended before it was ready.
        """
        from art.local.engine_process import EngineConnection, EngineProcess
        from art.runs.progress import terminal_progress

        async with self._starting:
            engine = self._engines.get(base_model)
            if engine is None or not engine.alive:
                engine = EngineProcess(base_model, self._engine_root, self._engine_arguments)
                await engine.wait_until_ready(self._show_progress or terminal_progress)
                self._engines[base_model] = engine
        return EngineConnection(engine.base_url, engine.api_key, engine)

    async def _checkpoint_saved(self, folder: Path, sampler_path: str) -> None:
        from art._internal.files import link_or_copy
        from art.formats.checkpoint_paths import CheckpointPath
        from art.formats.peft_folder import CONFIG_FILE, WEIGHTS_FILE

        saved = CheckpointPath.parse(sampler_path).folder(self._engine_root)
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            await asyncio.to_thread(link_or_copy, saved / file, folder / file)
