"""The server without HTTP: sessions, models, samplers and checkpoints.

:class:`Engine` takes :mod:`art.engine.commands` and gives the ids of requests, whose results can
be fetched from its futures. It belongs to the event loop's thread. What it hands to a lane is a
call that holds a snapshot of all it needs: sessions are read before, and changed after.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from art.engine.checkpoint_metadata import Checkpoint, TrainingRun
from art.engine.checkpoints import CheckpointStore
from art.engine.commands import (
    CreateModel,
    CreateModelFrom,
    CreateSamplingSession,
    ForwardBackward,
    LoadWeights,
    OptimStep,
    Refused,
    Sample,
    SaveForSampling,
    SaveWeights,
    Sequenced,
)
from art.engine.futures import FutureStore
from art.engine.lane import Lane
from art.engine.outcomes import Encode, Outcomes
from art.engine.results import (
    ModelCreated,
    OptimStepped,
    Result,
    SavedForSampling,
    WeightsLoaded,
    WeightsSaved,
)
from art.engine.sampling_queue import SamplingJob, SamplingQueue
from art.engine.sessions import LiveModel, SamplingSession, Session, Sessions
from art.engine.training_queue import TrainingQueue
from art.errors import (
    ContextLengthError,
    InvalidRequestError,
    NotFoundError,
    SessionEndedError,
    UnknownBaseModelError,
)
from art.executors.protocol import Sampler, Trainer
from art.executors.types import BaseModelInfo
from art.formats.checkpoint_paths import CheckpointPath

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SWEEP_EVERY_S = 30.0
_CLOSE_S = 5.0
_ABANDONED_AFTER_S = 10.0
# Copies of one sampling session in several processes number their requests from blocks of their
# own.
_SEQ_IDS_PER_CLONE = 1_000_000_000


class Engine:
    """One base model, served.

    Args:
        trainer: Trains adapters; called on the training lane.
        sampler: Samples; called on the sampling lane. It may be the same object.
        root: The folder for checkpoints.
        encode: Makes a result ready for the wire; called on neither lane.
        sessions: The sessions that are alive.
        futures: Where results wait.

    Raises:
        CheckpointError: ``root`` cannot be used.
    """

    def __init__(
        self,
        trainer: Trainer,
        sampler: Sampler,
        root: Path,
        *,
        encode: Encode,
        sessions: Sessions | None = None,
        futures: FutureStore | None = None,
    ) -> None:
        self.store = CheckpointStore(root)
        self.sessions = sessions or Sessions()
        self.futures = futures or FutureStore()
        self._trainer = trainer
        self._lanes = {"training": Lane("training"), "sampling": Lane("sampling")}
        self._outcomes = Outcomes(self.futures, encode)
        self._training = TrainingQueue(self._lanes["training"], self.futures, self._outcomes)
        self._sampling = SamplingQueue(
            sampler, self._lanes["sampling"], self.futures, self._outcomes
        )
        # The folders of the checkpoints that are sampled from, by version.
        self._pinned: dict[str, Path] = {}
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def base_model(self) -> BaseModelInfo:
        """The model in memory."""
        return self._trainer.base_model

    @property
    def sampling_controls(self) -> frozenset[str]:
        """The fields of :class:`~art.formats.sampling_controls.SamplingControls` it honours."""
        return self._sampling.controls

    @property
    def busy(self) -> bool:
        """True while a lane computes."""
        return any(lane.busy for lane in self._lanes.values())

    async def start(self) -> None:
        """Begin to work."""
        self._training.start()
        self._sampling.start()
        self._sweeper = asyncio.create_task(self._sweep(), name="sweeper")

    async def close(self) -> bool:
        """Stop working, and give what runs some time to end.

        Returns:
            Whether both lanes are idle.
        """
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        await self._training.close()
        await self._sampling.close()
        idle = await asyncio.gather(*(lane.close(_CLOSE_S) for lane in self._lanes.values()))
        await self._outcomes.close()
        await asyncio.to_thread(self.store.close)
        return all(idle)

    async def end_session(self, session_id: str) -> None:
        """End a session, stop what it was computing, and free what it held."""
        session = self.sessions.end(session_id)
        self._sampling.cancel_sessions(session.sampling_sessions.keys())
        for model_id in session.models:
            await self._training.remove_model(model_id, self._unloader(model_id))
        in_use = self.sessions.adapters_in_use()
        unused = {
            sampling.adapter_id: sampling.folder
            for sampling in session.sampling_sessions.values()
            if sampling.adapter_id is not None and sampling.adapter_id not in in_use
        }
        for adapter_id in unused:
            # From now on the checkpoint is pinned anew for who asks for it.
            self._pinned.pop(adapter_id, None)
        for adapter_id, folder in unused.items():
            await self._sampling.forget_adapter(adapter_id)
            if folder is not None:
                await asyncio.to_thread(self.store.delete_unnamed, folder)

    def create_model(self, command: CreateModel) -> str:
        """Queue the creation of a model.

        Returns:
            The id of the request.

        Raises:
            UnknownBaseModelError: The base model is not the one in memory.
            SessionEndedError: The session is not alive.
        """
        self._check_base_model(command.base_model)
        session = self.sessions.get(command.session_id)
        model_id = _model_id(session, command.model_seq_id)
        run = TrainingRun(
            run_id=model_id,
            base_model=self.base_model.name,
            lora=command.lora,
            user_metadata=command.user_metadata,
        )

        async def create() -> Result:
            await self._train(lambda: self._trainer.create_model(model_id, command.lora))
            return ModelCreated(model_id)

        return self._add_model(session, LiveModel(model_id=model_id, run=run), create)

    def create_model_from(self, command: CreateModelFrom) -> str:
        """Queue the creation of a model from a checkpoint.

        Returns:
            The id of the request.

        Raises:
            UnknownBaseModelError: Another base model is asked for.
            SessionEndedError: The session is not alive.
        """
        if command.base_model is not None:
            self._check_base_model(command.base_model)
        session = self.sessions.get(command.session_id)
        model_id = _model_id(session, command.model_seq_id)
        model = LiveModel(model_id=model_id)

        def compute() -> TrainingRun:
            folder = self._checkpoint_folder(command.path, optimizer=command.optimizer)
            lora = self._trainer.lora_config_of(folder)
            self._trainer.create_model(model_id, lora)
            try:
                self._trainer.load_weights(model_id, folder, optimizer=command.optimizer)
            except BaseException:
                self._trainer.unload_model(model_id)
                raise
            return TrainingRun(
                run_id=model_id,
                base_model=self.base_model.name,
                lora=lora,
                user_metadata=command.user_metadata,
            )

        async def create() -> Result:
            model.run = await self._train(compute)
            return WeightsLoaded(model_id, command.path)

        return self._add_model(session, model, create)

    def submit(self, command: Sequenced) -> str:
        """Queue a command at its place in its model's order.

        Returns:
            The id of the request.

        Raises:
            NotFoundError: The model is not in a session that is alive.
            EngineBusyError: Too much waits.
        """
        self.sessions.model(command.model_id).last_request = datetime.now(UTC)
        request_id = f"{command.model_id}:{command.seq_id}"
        self._training.submit(
            command.model_id,
            command.seq_id,
            request_id,
            lambda: self._run(command),
            size=command.size if isinstance(command, ForwardBackward) else 0,
        )
        return request_id

    async def create_sampling_session(self, command: CreateSamplingSession) -> str:
        """Open a sampling session, of a checkpoint or of the base model.

        Returns:
            Its id.

        Raises:
            UnknownBaseModelError: The base model is not the one in memory.
            NotFoundError: There is no such checkpoint.
            InvalidRequestError: Neither a base model nor a checkpoint is named.
            SessionEndedError: The session is not alive.
        """
        session = self.sessions.get(command.session_id)
        sampling_id = _sampling_id(session, command.sampling_session_seq_id)
        if sampling_id in session.sampling_sessions:
            return sampling_id
        if command.base_model is not None:
            self._check_base_model(command.base_model)
        elif command.path is None:
            raise InvalidRequestError("name a base_model or a model_path to sample from")
        sampling = SamplingSession(sampling_session_id=sampling_id)
        if command.path is not None:
            adapter_id, folder = await self._pin(command.path)
            sampling = replace(sampling, adapter_id=adapter_id, folder=folder, path=command.path)
        self.sessions.add_sampling_session(session, sampling)
        return sampling_id

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
        sampling = self.sessions.sampling_session(command.sampling_session_id)
        request, base = command.request, self.base_model
        if request.prompt.size > base.max_context_length:
            raise ContextLengthError(
                f"the prompt has {request.prompt.size} tokens; the context of {base.name} is "
                f"{base.max_context_length}"
            )
        if command.ends_as_the_model_does:
            params = replace(request.params, stop_token_ids=base.eos_token_ids)
            request = replace(request, params=params)
        request_id = f"{command.sampling_session_id}:{command.seq_id}"
        self._sampling.submit(
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
        self._sampling.cancel(request_id)

    async def _run(self, command: Sequenced) -> Result:
        """Run a command whose turn has come."""
        match command:
            case ForwardBackward():
                return await self._forward_backward(command)
            case OptimStep(model_id=model_id, adam=adam):
                step = await self._train(lambda: self._trainer.optim_step(model_id, adam))
                return OptimStepped(step)
            case SaveWeights():
                return await self._save_weights(command)
            case SaveForSampling():
                return await self._save_for_sampling(command)
            case LoadWeights():
                return await self._load_weights(command)
            case Refused(error=error):
                raise error

    async def _forward_backward(self, command: ForwardBackward) -> Result:
        limit = self.base_model.max_context_length
        for index, datum in enumerate(command.data):
            if datum.tokens.size > limit:
                raise ContextLengthError(
                    f"datum {index} has {datum.tokens.size} tokens; "
                    f"the context of {self.base_model.name} is {limit}"
                )
        return await self._train(
            lambda: self._trainer.forward_backward(
                command.model_id, command.data, command.loss, backward=command.backward
            )
        )

    async def _save_weights(self, command: SaveWeights) -> Result:
        path = command.path
        run = self.sessions.model(command.model_id).run
        if run is None:
            raise NotFoundError(f"model {command.model_id} could not be created")
        fill = self._saver(command.model_id, optimizer=path.kind == "weights")
        await self._train(
            lambda: self.store.write(
                path,
                run,
                fill,
                overwrite=command.overwrite,
                user_metadata=command.user_metadata,
                ttl_seconds=command.ttl_seconds,
            )
        )
        return WeightsSaved(path)

    async def _save_for_sampling(self, command: SaveForSampling) -> Result:
        session = self.sessions.session_of_model(command.model_id)
        fill = self._saver(command.model_id, optimizer=False)
        folder = await self._train(lambda: self.store.write_unnamed(fill))
        sampling = SamplingSession(
            sampling_session_id=_sampling_id(session, command.sampling_session_seq_id),
            adapter_id=folder.name,
            folder=folder,
        )
        self.sessions.add_sampling_session(session, sampling)
        return SavedForSampling(sampling.sampling_session_id)

    async def _load_weights(self, command: LoadWeights) -> Result:
        def load() -> None:
            folder = self._checkpoint_folder(command.path, optimizer=command.optimizer)
            self._trainer.load_weights(command.model_id, folder, optimizer=command.optimizer)

        await self._train(load)
        return WeightsLoaded(command.model_id, command.path)

    def abandon(self, request_id: str) -> None:
        """Note that the client that waited for a request has hung up.

        Unless somebody waits for it again within ten seconds, a sampling request is cancelled. A
        training request runs to its end: later ones of its model build on it.
        """

        def cancel_unless_awaited() -> None:
            if not self.futures.is_awaited(request_id):
                self._sampling.cancel(request_id)

        asyncio.get_running_loop().call_later(_ABANDONED_AFTER_S, cancel_unless_awaited)

    async def _train(self, call: Callable[[], T]) -> T:
        return await self._lanes["training"].run(call)

    def _add_model(
        self, session: Session, model: LiveModel, create: Callable[[], Awaitable[Result]]
    ) -> str:
        request_id = f"{model.model_id}:0"

        async def create_or_forget() -> Result:
            try:
                return await create()
            except Exception:
                self.sessions.remove_model(model.model_id)
                raise

        if self.futures.create(request_id):
            self.sessions.add_model(session, model)
            self._training.add_model(model.model_id, request_id, create_or_forget)
        return request_id

    async def _pin(self, path: CheckpointPath) -> tuple[str, Path]:
        """Pin a checkpoint to sample from, once for all sampling sessions of its version."""
        checkpoint, _ = await asyncio.to_thread(self.store.read, path)
        self._check_base_model(checkpoint.run.base_model)
        checkpoint, pinned = await asyncio.to_thread(self.store.pin, path)
        kept = self._pinned.setdefault(checkpoint.version, pinned)
        if kept != pinned:
            await asyncio.to_thread(self.store.delete_unnamed, pinned)
        return checkpoint.version, kept

    def _checkpoint_folder(self, path: CheckpointPath, *, optimizer: bool) -> Path:
        """Find a checkpoint to load. Blocks; belongs to the training lane."""
        checkpoint, folder = self.store.read(path)
        self._check_base_model(checkpoint.run.base_model)
        _check_optimizer(checkpoint, optimizer=optimizer)
        return folder

    def _saver(self, model_id: str, *, optimizer: bool) -> Callable[[Path], None]:
        return lambda folder: self._trainer.save_weights(model_id, folder, optimizer=optimizer)

    def _unloader(self, model_id: str) -> Callable[[], None]:
        return lambda: self._trainer.unload_model(model_id)

    def _check_base_model(self, name: str) -> None:
        if name != self.base_model.name:
            raise UnknownBaseModelError(
                f"this server has the base model {self.base_model.name!r}, not {name!r}; "
                "ask for the one it has, or start an engine with the other"
            )

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            try:
                self._training.fail_gaps()
                for session_id in self.sessions.silent():
                    logger.info("session %s sent no heartbeat for too long; it ends", session_id)
                    with contextlib.suppress(SessionEndedError):  # its client was faster
                        await self.end_session(session_id)
                await asyncio.to_thread(self.store.delete_expired)
            except Exception:
                logger.exception("could not clean up; it is tried again in %s s", _SWEEP_EVERY_S)


def sampling_group(sampling_session_id: str, clone: int) -> str:
    """The key under which the results of one copy of a sampling session are found."""
    return f"{sampling_session_id}#{clone}"


def _model_id(session: Session, seq_id: int) -> str:
    return f"{session.session_id}:train:{seq_id}"


def _sampling_id(session: Session, seq_id: int) -> str:
    return f"{session.session_id}:sample:{seq_id}"


def _check_optimizer(checkpoint: Checkpoint, *, optimizer: bool) -> None:
    if optimizer and not checkpoint.has_optimizer:
        raise InvalidRequestError(
            f"{checkpoint.path} holds no optimizer state; load a checkpoint that save_state "
            "wrote, or load the weights alone"
        )
