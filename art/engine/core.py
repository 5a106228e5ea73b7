"""The server without HTTP: sessions, models, samplers and checkpoints.

:class:`Engine` takes :mod:`art.engine.commands` and gives the ids of requests, whose results can
be fetched from its futures. It belongs to the event loop's thread. What it hands to a lane is a
call that holds a snapshot of all it needs: sessions are read before, and changed after.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from art.engine.checkpoint_metadata import Checkpoint, TrainingRun
from art.engine.checkpoints import CheckpointStore
from art.engine.commands import (
    CreateModel,
    CreateModelFrom,
    ForwardBackward,
    LoadWeights,
    OptimStep,
    Refused,
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
from art.engine.samplers import Samplers, check_base_model
from art.engine.sampling_queue import SamplingQueue
from art.engine.sessions import Finish, LiveModel, Session, Sessions
from art.engine.training_queue import TrainingQueue
from art.errors import (
    ContextLengthError,
    InvalidRequestError,
    NotFoundError,
    SessionEndedError,
)
from art.executors.protocol import Sampler, Trainer
from art.executors.types import BaseModelInfo
from art.formats.checkpoint_paths import CheckpointPath

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SWEEP_EVERY_S = 30.0
_CLOSE_S = 5.0


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
        self.samplers = Samplers(
            self._sampling, self.base_model, self.store, self.sessions, self.futures
        )
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

    async def end_session(self, session_id: str, finish: Finish | None = None) -> None:
        """End a session, stop what it was computing, and free what it held.

        Args:
            session_id: The session.
            finish: What its client says of its end; ``None`` if it went silent.

        Raises:
            SessionEndedError: The session is not alive.
        """
        session = self.sessions.end(session_id, finish)
        self.samplers.cancel_all(session)
        for model_id in session.models:
            await self._training.remove_model(model_id, self._unloader(model_id))
        await self.samplers.release(session)

    def create_model(self, command: CreateModel) -> str:
        """Queue the creation of a model.

        Returns:
            The id of the request.

        Raises:
            UnknownBaseModelError: The base model is not the one in memory.
            SessionEndedError: The session is not alive.
        """
        check_base_model(command.base_model, self.base_model)
        session = self.sessions.get(command.session_id)
        model_id = _model_id(session, command.model_seq_id)
        run = TrainingRun(
            run_id=model_id,
            base_model=self.base_model.name,
            lora=command.lora,
            user_metadata=command.user_metadata,
            project_id=session.project_id,
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
            check_base_model(command.base_model, self.base_model)
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
                project_id=session.project_id,
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
        fill = self._saver(command.model_id, optimizer=False)
        folder = await self._train(lambda: self.store.write_unnamed(fill))
        try:
            return SavedForSampling(self.samplers.open_unnamed(command, folder))
        except NotFoundError:  # the session has ended meanwhile
            await asyncio.to_thread(self.store.delete_unnamed, folder)
            raise

    async def _load_weights(self, command: LoadWeights) -> Result:
        def load() -> None:
            folder = self._checkpoint_folder(command.path, optimizer=command.optimizer)
            self._trainer.load_weights(command.model_id, folder, optimizer=command.optimizer)

        await self._train(load)
        return WeightsLoaded(command.model_id, command.path)

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

    def _checkpoint_folder(self, path: CheckpointPath, *, optimizer: bool) -> Path:
        """Find a checkpoint to load. Blocks; belongs to the training lane."""
        checkpoint, folder = self.store.read(path)
        check_base_model(checkpoint.run.base_model, self.base_model)
        _check_optimizer(checkpoint, optimizer=optimizer)
        return folder

    def _saver(self, model_id: str, *, optimizer: bool) -> Callable[[Path], None]:
        return lambda folder: self._trainer.save_weights(model_id, folder, optimizer=optimizer)

    def _unloader(self, model_id: str) -> Callable[[], None]:
        return lambda: self._trainer.unload_model(model_id)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            try:
                self._training.fail_gaps()
                for session_id in self.sessions.silent():
                    logger.info("session %s sent no heartbeat for too long; it ends", session_id)
                    with contextlib.suppress(SessionEndedError):  # its client was faster
                        await self.end_session(session_id)
                await self.samplers.free_retired()
                await asyncio.to_thread(self.store.delete_expired)
            except Exception:
                logger.exception("could not clean up; it is tried again in %s s", _SWEEP_EVERY_S)


def _model_id(session: Session, seq_id: int) -> str:
    return f"{session.session_id}:train:{seq_id}"


def _check_optimizer(checkpoint: Checkpoint, *, optimizer: bool) -> None:
    if optimizer and not checkpoint.has_optimizer:
        raise InvalidRequestError(
            f"{checkpoint.path} holds no optimizer state; load a checkpoint that save_state "
            "wrote, or load the weights alone"
        )
