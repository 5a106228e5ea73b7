"""The checkpoints of one model: weights on a Tinker server, and folders here that name them."""

import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import tinker

from art.errors import InvalidRequestError
from art.tinker.checkpoints import CheckpointFolders, CheckpointInfo
from art.tinker.sdk_calls import sdk_call
from art.tinker.server_session import ServerSession
from art.tinker.unfinished_saves import UnfinishedSave, UnfinishedSaves

logger = logging.getLogger(__name__)

# Given a checkpoint's new folder and its sampler path on the server.
CheckpointSaved = Callable[[Path, str], Awaitable[None]]


async def leave_folder(folder: Path, sampler_path: str) -> None:
    """Put nothing into a checkpoint's folder: its weights stay on the server."""


class ModelCheckpoints:
    """Saves and deletes checkpoints on both sides. The caller holds the model's lock.

    Args:
        output_dir: The model's folder.
        base_model: The base model's name.
        checkpoint_saved: Puts further files into a checkpoint's folder before it is complete.

    Attributes:
        folders: The folders on this machine.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        base_model: str,
        checkpoint_saved: CheckpointSaved,
    ) -> None:
        self.folders = CheckpointFolders(output_dir)
        self._unfinished = UnfinishedSaves(output_dir)
        self._base_model = base_model
        self._checkpoint_saved = checkpoint_saved

    async def save(self, step: int, session: ServerSession, client: tinker.TrainingClient) -> str:
        """Save a step on the server, then name it in a folder.

        Returns:
            The path on the server to sample from.

        Raises:
            art.errors.CheckpointError: The folder cannot be written.
            art.errors.EngineError: The server failed.
        """
        save = UnfinishedSave(str(client.model_id), f"{step:04d}")
        self._unfinished.add(save)
        state = client.save_state(save.name)
        weights = client.save_weights_for_sampler(save.name)
        doing = f"saving the checkpoint of step {step}"
        state_path = (await sdk_call(session.connection, state, doing)).path
        sampler_path: str = (await sdk_call(session.connection, weights, doing)).path
        info = CheckpointInfo(save.model_id, state_path, sampler_path, self._base_model)
        await self.folders.write(
            step, info, lambda folder: self._checkpoint_saved(folder, sampler_path)
        )
        self._unfinished.remove(save)
        return sampler_path

    async def delete(self, step: int, session: ServerSession) -> None:
        """Delete a step on the server, then its folder: what is interrupted can be repeated."""
        for path in self.folders.read(step).paths:
            await session.delete_checkpoint(path)
        self.folders.delete(step)

    async def sweep_server(self, session: ServerSession) -> None:
        """Delete what was saved on the server and never named in a folder here."""
        for save in self._unfinished.read():
            infos = [self.folders.read(step) for step in self.folders.steps()]
            kept = {path for info in infos for path in info.paths}
            try:
                for path in await session.checkpoint_paths(save.model_id, save.name):
                    if path not in kept:
                        logger.info("deleting %s, whose step was never completed", path)
                        await session.delete_checkpoint(path)
            except InvalidRequestError as error:
                # Weights that nobody asks for are no reason not to train.
                logger.warning("checkpoint %s of %s stays: %s", save.name, save.model_id, error)
            else:
                self._unfinished.remove(save)
