"""Sampling sessions: which weights each sees, and the requests that are sampled from them.

Beside :class:`~art.engine.core.Engine`, whose sessions and checkpoints it shares, and on the same
thread: the event loop's.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

from art.engine.checkpoints import CheckpointStore
from art.engine.commands import CreateSamplingSession, Sample, SaveForSampling
from art.engine.futures import FutureStore
from art.engine.sampling_queue import SamplingJob, SamplingQueue
from art.engine.sessions import SamplingSession, Session, Sessions
from art.errors import ContextLengthError, InvalidRequestError, UnknownBaseModelError
from art.executors.types import BaseModelInfo
from art.formats.checkpoint_paths import CheckpointPath

_ABANDONED_AFTER_S = 10.0
# Copies of one sampling session in several processes number their requests from blocks of their
# own.
_SEQ_IDS_PER_CLONE = 1_000_000_000


class Samplers:
    """The sampling sessions of one engine.

    Args:
        queue: Runs the requests.
        base_model: The model in memory.
        store: The checkpoints.
        sessions: The sessions that are alive.
        futures: Where clients wait.
    """

    def __init__(
        self,
        queue: SamplingQueue,
        base_model: BaseModelInfo,
        store: CheckpointStore,
        sessions: Sessions,
        futures: FutureStore,
    ) -> None:
        self._queue, self._base_model = queue, base_model
        self._store, self._sessions, self._futures = store, sessions, futures
        # The folders of the checkpoints that are sampled from, by version.
        self._pinned: dict[str, Path] = {}
        # Adapters that nobody will ask for again; a request that began before may still use one.
        self._retired: dict[str, Path | None] = {}

    async def open(self, command: CreateSamplingSession) -> str:
        """Open a sampling session, of a checkpoint or of the base model.

        Returns:
            Its id.

        Raises:
            UnknownBaseModelError: The base model is not the one in memory.
            NotFoundError: There is no such checkpoint.
            InvalidRequestError: Neither a base model nor a checkpoint is named.
            SessionEndedError: The session is not alive.
        """
        session = self._sessions.get(command.session_id)
        sampling_id = _sampling_id(session, command.sampling_session_seq_id)
        if sampling_id in session.sampling_sessions:
            return sampling_id
        if command.base_model is not None:
            check_base_model(command.base_model, self._base_model)
        elif command.path is None:
            raise InvalidRequestError("name a base_model or a model_path to sample from")
        sampling = SamplingSession(sampling_session_id=sampling_id)
        if command.path is not None:
            adapter_id, folder = await self._pin(command.path)
            sampling = replace(sampling, adapter_id=adapter_id, folder=folder, path=command.path)
        self._sessions.add_sampling_session(session, sampling)
        return sampling_id

    def open_unnamed(self, command: SaveForSampling, folder: Path) -> str:
        """Open the sampling session of weights that were just written.

        An inflight one shares its weights with all others of its model: they take the new ones
        for every request that comes from now on. The adapter's id is a new one, so what was
        computed under earlier weights is not used again.

        Args:
            command: The request that they were written for.
            folder: Where they lie; its name is unique.

        Returns:
            The sampling session's id.

        Raises:
            NotFoundError: The model's session has ended.
        """
        session = self._sessions.session_of_model(command.model_id)
        before = self._sessions.adapters_in_use()
        sampling = SamplingSession(
            sampling_session_id=_sampling_id(session, command.sampling_session_seq_id),
            adapter_id=folder.name,
            folder=folder,
            inflight=command.model_id if command.inflight else None,
        )
        if command.inflight:
            folders = {each.adapter_id: each.folder for each in session.sampling_sessions.values()}
            self._sessions.publish(session, command.model_id, folder.name, folder)
            for adapter_id in before - self._sessions.adapters_in_use():
                self._retired[adapter_id] = folders[adapter_id]
        self._sessions.add_sampling_session(session, sampling)
        return sampling.sampling_session_id

    def sample(self, command: Sample) -> str:
        """Queue a sampling request.

        Returns:
            The id of the request.

        Raises:
            ContextLengthError: The prompt is longer than the context.
            InvalidRequestError: The sampler does not have one of the controls.
            NotFoundError: There is no such sampling session.
            EngineBusyError: Too many requests wait.
        """
        sampling = self._sessions.sampling_session(command.sampling_session_id)
        request, base = command.request, self._base_model
        if request.prompt.size > base.max_context_length:
            raise ContextLengthError(
                f"the prompt has {request.prompt.size} tokens; the context of {base.name} is "
                f"{base.max_context_length}"
            )
        if command.ends_as_the_model_does:
            params = replace(request.params, stop_token_ids=base.eos_token_ids)
            request = replace(request, params=params)
        request_id = f"{command.sampling_session_id}:{command.seq_id}"
        self._queue.submit(
            SamplingJob(
                request_id=request_id,
                group=sampling_group(
                    command.sampling_session_id, command.seq_id // _SEQ_IDS_PER_CLONE
                ),
                sampling_session_id=command.sampling_session_id,
                request=replace(request, adapter_id=sampling.adapter_id),
                folder=sampling.folder,
                prompt_logprobs_last_n=command.prompt_logprobs_last_n,
                target_layout=command.target_layout,
            )
        )
        return request_id

    def cancel(self, request_id: str) -> None:
        """Drop a sampling request, waiting or running; others run to their end."""
        self._queue.cancel(request_id)

    def abandon(self, request_id: str) -> None:
        """Note that the client that waited for a request has hung up.

        Unless somebody waits for it again within ten seconds, a sampling request is cancelled. A
        training request runs to its end: later ones of its model build on it.
        """

        def cancel_unless_awaited() -> None:
            if not self._futures.is_awaited(request_id):
                self._queue.cancel(request_id)

        asyncio.get_running_loop().call_later(_ABANDONED_AFTER_S, cancel_unless_awaited)

    def cancel_all(self, session: Session) -> None:
        """Drop every sampling request of a session."""
        self._queue.cancel_sessions(session.sampling_sessions.keys())

    async def release(self, session: Session) -> None:
        """Free the weights that only a session, which has ended, could see."""
        in_use = self._sessions.adapters_in_use()
        for sampling in session.sampling_sessions.values():
            if sampling.adapter_id is not None and sampling.adapter_id not in in_use:
                # From now on the checkpoint is pinned anew for who asks for it.
                self._pinned.pop(sampling.adapter_id, None)
                self._retired[sampling.adapter_id] = sampling.folder
        await self.free_retired()

    async def free_retired(self) -> None:
        """Free the adapters that nobody will ask for again and no request uses."""
        for adapter_id in list(self._retired):
            if adapter_id in self._queue.adapters_in_use():
                continue
            folder = self._retired.pop(adapter_id, None)
            await self._queue.forget_adapter(adapter_id)
            if folder is not None:
                await asyncio.to_thread(self._store.delete_unnamed, folder)

    async def _pin(self, path: CheckpointPath) -> tuple[str, Path]:
        """Pin a checkpoint to sample from, once for all sampling sessions of its version."""
        checkpoint, _ = await asyncio.to_thread(self._store.read, path)
        check_base_model(checkpoint.run.base_model, self._base_model)
        checkpoint, pinned = await asyncio.to_thread(self._store.pin, path)
        kept = self._pinned.setdefault(checkpoint.version, pinned)
        if kept != pinned:
            await asyncio.to_thread(self._store.delete_unnamed, pinned)
        return checkpoint.version, kept


def check_base_model(name: str, base_model: BaseModelInfo) -> None:
    """Refuse a base model that is not the one in memory.

    Raises:
        UnknownBaseModelError: It is another.
    """
    if name != base_model.name:
        raise UnknownBaseModelError(
            f"this server has the base model {base_model.name!r}, not {name!r}; "
            "ask for the one it has, or start an engine with the other"
        )


def sampling_group(sampling_session_id: str, clone: int) -> str:
    """The key under which the results of one copy of a sampling session are found."""
    return f"{sampling_session_id}#{clone}"


def _sampling_id(session: Session, seq_id: int) -> str:
    return f"{session.session_id}:sample:{seq_id}"
