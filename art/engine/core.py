"""What the server does, without HTTP: sessions, models, samplers and checkpoints.

:class:`Engine` turns the wire's requests into work for the scheduler. It belongs to the event
loop's thread; the ``work`` functions that it makes run on the executor's thread.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tinker.proto.tinker_public_pb2 import ForwardBackwardRequest

from art.engine.checkpoints import Checkpoint, CheckpointStore, TrainingRun
from art.engine.futures import JSON, FutureStore, Payload
from art.engine.scheduler import SamplingJob, Scheduler, Work
from art.engine.sessions import Model, Sampler, Session, Sessions
from art.engine.wire import protobuf as wire
from art.engine.wire.bodies import (
    CreateModelBody,
    CreateSamplingSessionBody,
    LoadWeightsBody,
    OptimStepBody,
    SampleBody,
    SaveSamplerBody,
    SaveWeightsBody,
)
from art.errors import (
    ArtError,
    ContextLengthError,
    InvalidRequestError,
    NotFoundError,
    UnknownBaseModelError,
)
from art.executors.protocol import Executor
from art.executors.types import BaseModelInfo
from art.formats.checkpoint_paths import CheckpointPath

logger = logging.getLogger(__name__)

_SWEEP_EVERY_S = 30.0
# Copies of one sampler in several processes number their requests from a block of their own.
_SEQ_IDS_PER_CLONE = 1_000_000_000


def json_payload(fields: Mapping[str, object]) -> Payload:
    """A JSON result."""
    return Payload(JSON, json.dumps(fields).encode())


class Engine:
    """One base model, served.

    Args:
        executor: What computes. It is used from one thread, which the engine makes.
        root: The folder for checkpoints.
        sessions: Who is connected.
        futures: Where results wait.
        scheduler: Who computes next; made for ``executor`` and ``futures`` where not given.

    Raises:
        CheckpointError: ``root`` cannot be used.
    """

    def __init__(
        self,
        executor: Executor,
        root: Path,
        *,
        sessions: Sessions | None = None,
        futures: FutureStore | None = None,
        scheduler: Scheduler | None = None,
    ) -> None:
        self.store = CheckpointStore(root)
        self.sessions = sessions or Sessions()
        self.futures = futures or FutureStore()
        self.scheduler = scheduler or Scheduler(executor, self.futures)
        self._executor = executor
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def base_model(self) -> BaseModelInfo:
        """The model in memory."""
        return self._executor.base_model

    async def start(self) -> None:
        """Begin to work."""
        self.scheduler.start()
        self._sweeper = asyncio.create_task(self._sweep(), name="sweeper")

    async def close(self) -> bool:
        """Stop working; see :meth:`Scheduler.close`."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        idle = await self.scheduler.close()
        await asyncio.to_thread(self.store.close)
        return idle

    async def end_session(self, session_id: str) -> None:
        """End a session and free what it held."""
        session = self.sessions.end(session_id)
        for model_id in session.models:
            await self.scheduler.remove_model(model_id)
        in_use = self.sessions.weights_in_use()
        for sampler in session.samplers.values():
            if sampler.weights_id is not None and sampler.weights_id not in in_use:
                await self.scheduler.remove_sampler(sampler.weights_id)
            if sampler.path is None and sampler.folder is not None:
                await asyncio.to_thread(self.store.delete_unnamed, sampler.folder)

    def create_model(self, body: CreateModelBody) -> str:
        """Queue the creation of a model.

        Returns:
            The id of the request.

        Raises:
            UnknownBaseModelError: The base model is not the one in memory.
            InvalidRequestError: The adapter is not one that this server can train.
            SessionEndedError: The session is not alive.
        """
        self._check_base_model(body.base_model)
        lora = body.to_lora()
        session = self.sessions.get(body.session_id)
        model_id = f"{session.session_id}:train:{body.model_seq_id}"
        run = TrainingRun(
            run_id=model_id,
            base_model=self.base_model.name,
            lora=lora,
            user_metadata=body.user_metadata,
        )

        def create() -> Payload:
            self._executor.create_model(model_id, lora)
            return json_payload({"model_id": model_id, "type": "create_model"})

        return self._add_model(session, Model(model_id=model_id, run=run), create)

    def load_weights(self, body: LoadWeightsBody) -> str:
        """Queue the loading of a checkpoint, into a model or as a new one.

        Returns:
            The id of the request.

        Raises:
            InvalidRequestError: It is not said into which model, or something is asked for that
                this server does not do.
            UnknownBaseModelError: Another base model is asked for.
            NotFoundError: The model is not there.
            SessionEndedError: The session is not alive.
        """
        if body.model_id is not None and body.seq_id is not None:
            model_id = body.model_id
            return self._submit(model_id, body.seq_id, lambda: self._load(model_id, body))
        if body.session_id is None or body.model_seq_id is None:
            raise InvalidRequestError("send model_id and seq_id, or session_id and model_seq_id")
        if body.base_model is not None:
            self._check_base_model(body.base_model)
        session = self.sessions.get(body.session_id)
        model = Model(model_id=f"{session.session_id}:train:{body.model_seq_id}")
        return self._add_model(session, model, lambda: self._create_from(model, body))

    def forward_backward(self, message: ForwardBackwardRequest) -> str:
        """Queue a forward, or forward and backward, pass; returns the id of the request."""
        model_id = message.model_id

        def work() -> Payload:
            call = wire.decode_forward_backward(message)
            limit = self.base_model.max_context_length
            for index, datum in enumerate(call.data):
                if datum.tokens.size > limit:
                    raise ContextLengthError(
                        f"datum {index} has {datum.tokens.size} tokens; "
                        f"the context of {self.base_model.name} is {limit}"
                    )
            result = self._executor.forward_backward(
                model_id, call.data, call.loss, backward=call.backward
            )
            return Payload(wire.PROTOBUF, wire.encode_forward_backward(result))

        return self._submit(model_id, message.seq_id, work)

    def optim_step(self, body: OptimStepBody) -> str:
        """Queue an optimizer step; returns the id of the request."""

        def work() -> Payload:
            metrics = self._executor.optim_step(body.model_id, body.to_adam())
            return json_payload({"metrics": metrics})

        return self._submit(body.model_id, body.seq_id, work)

    def save_weights(self, body: SaveWeightsBody) -> str:
        """Queue a checkpoint with the optimizer's state; returns the id of the request."""

        def work() -> Payload:
            path = CheckpointPath(body.model_id, "weights", body.path or f"{body.seq_id:06d}")
            self._write(
                path,
                overwrite=body.overwrite,
                user_metadata=body.user_metadata,
                ttl_seconds=body.ttl_seconds,
            )
            return json_payload({"path": str(path), "type": "save_weights"})

        return self._submit(body.model_id, body.seq_id, work)

    def save_weights_for_sampler(self, body: SaveSamplerBody) -> str:
        """Queue a checkpoint to sample from, named or not; returns the id of the request."""
        session = self.sessions.session_of_model(body.model_id)
        loop = asyncio.get_running_loop()

        def work() -> Payload:
            if body.kind != "snapshot":
                raise InvalidRequestError(
                    "this server has no inflight samplers; save a snapshot after each step"
                )
            if body.sampling_session_seq_id is None:
                name = body.path or f"{body.seq_id:06d}"
                path = CheckpointPath(body.model_id, "sampler_weights", name)
                self._write(
                    path,
                    overwrite=True,
                    user_metadata=body.user_metadata,
                    ttl_seconds=body.ttl_seconds,
                )
                return json_payload({"path": str(path), "type": "save_weights_for_sampler"})
            sampler_id = _sampler_id(session, body.sampling_session_seq_id)
            folder = self.store.write_unnamed(self._saver(body.model_id, optimizer=False))
            sampler = Sampler(sampler_id=sampler_id, weights_id=folder.name, folder=folder)
            loop.call_soon_threadsafe(self.sessions.add_sampler, session, sampler)
            return json_payload(
                {"sampling_session_id": sampler_id, "type": "save_weights_for_sampler"}
            )

        return self._submit(body.model_id, body.seq_id, work)

    async def create_sampling_session(self, body: CreateSamplingSessionBody) -> str:
        """Give a session a sampler, of a checkpoint or of the base model.

        Returns:
            The sampler's id.

        Raises:
            UnknownBaseModelError: The base model is not the one in memory.
            NotFoundError: There is no such checkpoint.
            InvalidRequestError: Neither a base model nor a checkpoint is named.
            SessionEndedError: The session is not alive.
        """
        session = self.sessions.get(body.session_id)
        sampler_id = _sampler_id(session, body.sampling_session_seq_id)
        if sampler_id in session.samplers:
            return sampler_id
        if body.base_model is not None:
            self._check_base_model(body.base_model)
        elif body.model_path is None:
            raise InvalidRequestError("name a base_model or a model_path to sample from")
        sampler = Sampler(sampler_id=sampler_id)
        if body.model_path is not None:
            path = CheckpointPath.parse(body.model_path)
            checkpoint, folder = await asyncio.to_thread(self.store.read, path)
            self._check_base_model(checkpoint.run.base_model)
            sampler = replace(sampler, weights_id=checkpoint.version, folder=folder, path=path)
        self.sessions.add_sampler(session, sampler)
        return sampler_id

    def sample(self, body: SampleBody) -> str:
        """Queue a sampling request.

        Returns:
            The id of the request.

        Raises:
            InvalidRequestError: It asks for what this server does not do.
            ContextLengthError: The prompt is longer than the context.
            NotFoundError: There is no such sampler.
            EngineBusyError: Too many requests wait.
        """
        if body.sampling_session_id is None or body.seq_id is None:
            raise InvalidRequestError(
                "send sampling_session_id and seq_id (create_sampling_session gives the id)"
            )
        sampler = self.sessions.sampler(body.sampling_session_id)
        request = body.to_request(sampler.weights_id, self.base_model.eos_token_ids)
        if request.prompt.size > self.base_model.max_context_length:
            raise ContextLengthError(
                f"the prompt has {request.prompt.size} tokens; the context of "
                f"{self.base_model.name} is {self.base_model.max_context_length}"
            )
        request_id = f"{sampler.sampler_id}:{body.seq_id}"
        self.scheduler.submit_sample(
            SamplingJob(
                request_id=request_id,
                group=sampler_group(sampler.sampler_id, body.seq_id // _SEQ_IDS_PER_CLONE),
                request=request,
                folder=sampler.folder,
                encode=lambda result: Payload(
                    wire.PROTOBUF,
                    wire.encode_sample(result, prompt_logprobs_last_n=body.prompt_logprobs_last_n),
                ),
            )
        )
        return request_id

    def _submit(self, model_id: str, seq_id: int, work: Work) -> str:
        self.sessions.model(model_id).last_request = datetime.now(UTC)
        request_id = f"{model_id}:{seq_id}"
        self.scheduler.submit(model_id, seq_id, request_id, work)
        return request_id

    def _add_model(self, session: Session, model: Model, create: Work) -> str:
        request_id = f"{model.model_id}:0"
        loop = asyncio.get_running_loop()

        def create_or_forget() -> Payload:
            try:
                return create()
            except Exception:
                loop.call_soon_threadsafe(self.sessions.remove_model, model.model_id)
                raise

        if self.futures.create(request_id):
            self.sessions.add_model(session, model)
            self.scheduler.add_model(model.model_id, request_id, create_or_forget)
        return request_id

    def _create_from(self, model: Model, body: LoadWeightsBody) -> Payload:
        """Create a model from a checkpoint. On the executor's thread."""
        _, folder = self._find(body)
        lora = self._executor.lora_config_of(folder)
        self._executor.create_model(model.model_id, lora)
        try:
            payload = self._load(model.model_id, body)
        except ArtError:
            self._executor.unload_model(model.model_id)
            raise
        model.run = TrainingRun(
            run_id=model.model_id,
            base_model=self.base_model.name,
            lora=lora,
            user_metadata=body.user_metadata,
        )
        return payload

    def _load(self, model_id: str, body: LoadWeightsBody) -> Payload:
        """Load a checkpoint into a model. On the executor's thread."""
        checkpoint, folder = self._find(body)
        if body.optimizer and not checkpoint.has_optimizer:
            raise InvalidRequestError(
                f"{checkpoint.path} holds no optimizer state; load a checkpoint that save_state "
                "wrote, or load the weights alone"
            )
        self._executor.load_weights(model_id, folder, optimizer=body.optimizer)
        return json_payload({"path": body.path, "model_id": model_id, "type": "load_weights"})

    def _find(self, body: LoadWeightsBody) -> tuple[Checkpoint, Path]:
        body.check()
        checkpoint, folder = self.store.read(CheckpointPath.parse(body.path))
        self._check_base_model(checkpoint.run.base_model)
        return checkpoint, folder

    def _write(
        self,
        path: CheckpointPath,
        *,
        overwrite: bool,
        user_metadata: Mapping[str, object] | None,
        ttl_seconds: int | None,
    ) -> None:
        """Write a checkpoint of a model. On the executor's thread."""
        run = self.sessions.model(path.run_id).run
        if run is None:
            raise NotFoundError(f"model {path.run_id} could not be created")
        self.store.write(
            path,
            run,
            self._saver(path.run_id, optimizer=path.kind == "weights"),
            overwrite=overwrite,
            user_metadata=user_metadata,
            ttl_seconds=ttl_seconds,
        )

    def _saver(self, model_id: str, *, optimizer: bool) -> Callable[[Path], None]:
        return lambda folder: self._executor.save_weights(model_id, folder, optimizer=optimizer)

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
                self.scheduler.fail_gaps()
                for session_id in self.sessions.silent():
                    logger.info("session %s sent no heartbeat for too long; it ends", session_id)
                    await self.end_session(session_id)
                await asyncio.to_thread(self.store.delete_expired)
            except Exception:
                logger.exception("could not clean up; it is tried again in %s s", _SWEEP_EVERY_S)


def sampler_group(sampler_id: str, clone: int) -> str:
    """What the results of one copy of a sampler are found under."""
    return f"{sampler_id}#{clone}"


def _sampler_id(session: Session, seq_id: int) -> str:
    return f"{session.session_id}:sample:{seq_id}"
