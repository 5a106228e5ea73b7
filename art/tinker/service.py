"""One model on a Tinker server: its training, its checkpoints and its endpoint."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import tinker

from art.chat.template import ChatTemplate
from art.dev.get_server_args import get_server_args
from art.endpoint.served_models import ServedModels
from art.endpoint.server import OpenAIServer
from art.endpoint.types import TokenCompleter
from art.errors import (
    ConfigurationError,
    EngineDiedError,
    EngineError,
    EngineUnreachableError,
    InvalidRequestError,
)
from art.rl.sequences import TrainingSequence
from art.runs.lock import ModelLock
from art.runs.progress import ShowProgress, terminal_progress
from art.tinker.adapter_config import training_client_args
from art.tinker.connection import Connection
from art.tinker.datums import within_context
from art.tinker.model_checkpoints import CheckpointSaved, ModelCheckpoints, leave_folder
from art.tinker.renewable_completer import RenewableCompleter
from art.tinker.server_session import ServerSession
from art.tinker.supervised import supervised_data, take_supervised_steps
from art.tinker.training_step import PendingStep, StepData, step_data
from art.trajectories import Trajectory
from art.types import TrainConfig, TrainSFTConfig

if TYPE_CHECKING:
    from art.dev.model import InternalModelConfig
    from art.dev.openai_server import OpenAIServerConfig, ServerArgs

logger = logging.getLogger(__name__)

# The stages of a step that are shown: forward_backward, optim_step, checkpoint.
_NUM_STAGES = 3


class TinkerService:
    """Trains one model on a Tinker server and serves its checkpoints.

    Nothing is contacted before the first use. A step that fails leaves the model at its last
    checkpoint: the next use goes on from there, whatever the server has computed since.

    Args:
        model_name: The model's name.
        base_model: The base model's name.
        config: From ``get_model_config``.
        output_dir: The model's folder.
        connect: Connects to the server.
        checkpoint_saved: Puts further files into a checkpoint's folder before it is complete.
        show_progress: Shows the stages of each training step.
    """

    def __init__(
        self,
        model_name: str,
        base_model: str,
        config: "InternalModelConfig",
        output_dir: str,
        connect: Callable[[], Awaitable[Connection]],
        checkpoint_saved: CheckpointSaved = leave_folder,
        show_progress: ShowProgress = terminal_progress,
    ) -> None:
        self.model_name = model_name
        self.base_model = base_model
        self.config = config
        self.output_dir = output_dir
        self._connect = connect
        self._show_progress = show_progress
        self._checkpoints = ModelCheckpoints(output_dir, base_model, checkpoint_saved)
        self._folders = self._checkpoints.folders
        self._model_lock = ModelLock(output_dir)
        self._lock = asyncio.Lock()
        self._session: ServerSession | None = None
        self._client: tinker.TrainingClient | None = None
        # The loop of the trainer, where the lock is taken; the endpoint has one of its own.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._served_models = ServedModels(model_name, base_model, self._open_completer)
        self._server: OpenAIServer | None = None
        self._template: ChatTemplate | None = None

    def take_on(self) -> None:
        """Keep other backends from training this model, until :meth:`aclose`.

        Half-written checkpoints that a killed process left are removed. Called before the model's
        files are written; the second time it does nothing.

        Raises:
            ModelInUseError: Another backend, in this process or another, trains the model.
            CheckpointError: The model's folder cannot be written to.
        """
        if not self._model_lock.held:
            self._model_lock.acquire()
            self._folders.sweep()

    @property
    def step(self) -> int:
        """The last step with a complete checkpoint; 0 before the first."""
        return self._folders.last_step() or 0

    def checkpoint_dir(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self._folders.folder(step)

    @property
    def api_key(self) -> str:
        """The key of the running endpoint.

        Raises:
            EngineError: The endpoint is not running.
        """
        return self._running_server().api_key

    @property
    def base_url(self) -> str:
        """The base URL of the running endpoint, ending in ``/v1``.

        Raises:
            EngineError: The endpoint is not running.
        """
        return self._running_server().base_url

    async def start_openai_server(self, config: "OpenAIServerConfig | None") -> tuple[str, int]:
        """Serve the model's checkpoints; the first call makes the model ready for training.

        Args:
            config: ``server_args`` may name ``host`` (127.0.0.1 by default), ``port`` (a free
                one), ``api_key`` (a random one), ``chat_template`` (the model config's, or else the
                tokenizer's own) and ``strict`` (``False``).

        Returns:
            The host and port of the endpoint, the same ones if it is running already.

        Raises:
            ConfigurationError: ``config`` has something else; or the tokenizer no chat template.
            PortInUseError: Another process listens on the port.
            EngineError: The server cannot be reached, or failed.
        """
        server_args = get_server_args(config)
        try:
            await self._drop_dead_session()
            async with self._exclusively():
                session, client = await self._ready()
                if self._server is None:
                    self._server = await self._new_server(session, client, server_args)
                return self._server.host, self._server.port
        finally:
            if self._client is None and self._server is None:
                # The model was not taken on after all.
                self._model_lock.release()

    async def train(
        self, sequences: Sequence[TrainingSequence], config: TrainConfig
    ) -> dict[str, float]:
        """Take one step, save its checkpoint and serve it.

        Args:
            sequences: The training data, at least one sequence.
            config: Settings of the step.

        Returns:
            The metrics of :class:`art.tinker.training_step.PendingStep`;
            ``data/step_num_sequences_too_long``, the number of sequences that were left out since
            they do not fit the context; and ``time/step_trainer_s``, the duration in seconds.

        Raises:
            ContextLengthError: Every sequence is too long for the model. Nothing was sent.
            ConfigurationError: The config contradicts itself. Nothing was sent.
            InvalidRequestError: The server refused the loss or its config.
            EngineError: The server failed. The last checkpoint is intact. Where it was started
                again meanwhile, the step is repeated once, from that checkpoint.
        """
        return await self._take_timed(lambda: self._train_once(sequences, config))

    async def train_sft(
        self, trajectories: Sequence[Trajectory], config: TrainSFTConfig
    ) -> dict[str, float]:
        """Imitate the assistant turns of trajectories, save one checkpoint and serve it.

        Args:
            trajectories: The examples.
            config: Batch size and learning rates.

        Returns:
            The metrics of :mod:`art.tinker.supervised`, and ``time/step_trainer_s``, the duration
            in seconds.

        Raises:
            NoTrainableTokensError: Nothing can be trained on. Nothing was sent.
            ConfigurationError: There are too few learning rates. Nothing was sent.
            EngineError: The server failed; the model is as its last checkpoint has it. Where it
                was started again meanwhile, all is repeated once, from that checkpoint.
        """
        return await self._take_timed(lambda: self._train_sft_once(trajectories, config))

    async def _take_timed(
        self, once: Callable[[], Awaitable[dict[str, float]]]
    ) -> dict[str, float]:
        start = time.monotonic()
        async with self._exclusively():
            step = self.step + 1
            try:
                metrics = await once()
            except EngineUnreachableError as error:
                raise EngineUnreachableError(
                    f"{error}. Step {step} was not taken; the next call goes on from step "
                    f"{step - 1}"
                ) from error
            except (EngineError, InvalidRequestError) as error:
                if not await self._has_lost_session(error):
                    raise
                # Nothing of the step was kept: it begins with the checkpoint before it.
                logger.warning("taking step %d again, since its server began anew", step)
                metrics = await once()
        return {**metrics, "time/step_trainer_s": time.monotonic() - start}

    async def _train_sft_once(
        self, trajectories: Sequence[Trajectory], config: TrainSFTConfig
    ) -> dict[str, float]:
        session, client = await self._ready()
        template = self._template or await self._new_template(client, None)
        data = await asyncio.to_thread(
            supervised_data, trajectories, config, template, session.max_context_length
        )
        step = self.step + 1
        stages = len(data.batches) + 1
        try:
            with self._show_progress(f"step {step} training", stages) as progress:
                metrics = await take_supervised_steps(session, client, data.batches, progress)
                progress.advance(0, {"stage": "checkpoint"})
                await self._save_checkpoint(step, session, client)
                progress.advance(1)
        except BaseException:
            # The server may have updates that no checkpoint has.
            self._client = None
            raise
        return {**data.metrics, **metrics}

    async def _train_once(
        self, sequences: Sequence[TrainingSequence], config: TrainConfig
    ) -> dict[str, float]:
        session, client = await self._ready()
        # Reference logprobs are those of a prompt, and a server needs room to sample one token.
        room = 1 if config.kl_penalty_coef else 0
        fitting = within_context(sequences, session.max_context_length - room)
        data = await step_data(session, client, fitting, config)
        try:
            metrics = await self._take_step(session, client, data, config)
        except BaseException:
            # The server may have gradients, or an update, that no checkpoint has.
            self._client = None
            raise
        too_long = {"data/step_num_sequences_too_long": float(len(sequences) - len(fitting))}
        return {**too_long, **data.metrics, **metrics}

    async def delete_checkpoints(self, steps_to_keep: Collection[int]) -> None:
        """Delete checkpoints on the server and on this machine.

        Args:
            steps_to_keep: Steps to keep. The last one is always kept, since training goes on
                from it.
        """
        async with self._exclusively():
            doomed = [step for step in self._folders.steps()[:-1] if step not in steps_to_keep]
            if not doomed:
                return
            session, _ = await self._ready()
            for step in doomed:
                self._served_models.withdraw(step)
                await self._checkpoints.delete(step, session)

    async def aclose(self) -> None:
        """Stop the endpoint and end the session. Checkpoints stay."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()
        async with self._lock:
            session, self._session, self._client = self._session, None, None
            self._served_models.forget_opened()
            try:
                if session is not None:
                    await session.close()
            finally:
                self._model_lock.release()

    async def _new_server(
        self, session: ServerSession, client: tinker.TrainingClient, server_args: "ServerArgs"
    ) -> OpenAIServer:
        self._template = await self._new_template(client, server_args["chat_template"])
        server = OpenAIServer(
            self._served_models,
            self._template,
            max_context_length=session.max_context_length,
            host=server_args["host"],
            port=server_args["port"],
            api_key=server_args["api_key"],
            strict=server_args["strict"],
        )
        await server.start()
        return server

    async def _new_template(self, client: tinker.TrainingClient, text: str | None) -> ChatTemplate:
        return ChatTemplate(
            await asyncio.to_thread(client.get_tokenizer),
            template=text or self.config.get("chat_template"),
            template_kwargs=self.config.get("chat_template_kwargs"),
        )

    def _running_server(self) -> OpenAIServer:
        if self._server is None:
            raise EngineError(
                f"the endpoint of {self.model_name} is not running; register the model first"
            )
        return self._server

    async def _take_step(
        self,
        session: ServerSession,
        client: tinker.TrainingClient,
        data: StepData,
        config: TrainConfig,
    ) -> dict[str, float]:
        step = self.step + 1
        with self._show_progress(f"step {step} training", _NUM_STAGES) as progress:
            pending = PendingStep(session, client, data, config)
            progress.advance(0, {"stage": "forward_backward"})
            metrics = await pending.gradients()
            progress.advance(1, {"stage": "optim_step"})
            metrics |= await pending.update()
            progress.advance(1, {"stage": "checkpoint"})
            await self._save_checkpoint(step, session, client)
            progress.advance(1)
        return metrics

    @asynccontextmanager
    async def _exclusively(self) -> AsyncIterator[None]:
        """Hold the lock; forget a server that is gone, so that the next use connects anew."""
        async with self._lock:
            try:
                yield
            except (EngineDiedError, EngineUnreachableError):
                self._forget_session()
                raise

    async def _drop_dead_session(self) -> None:
        async with self._lock:
            if self._session is None:
                return
            try:
                if await self._session.is_lost():
                    self._forget_session()
            except (EngineDiedError, EngineUnreachableError) as error:
                logger.warning("starting anew: %s", error)
                self._forget_session()

    async def _has_lost_session(self, error: Exception) -> bool:
        """Ask whether a call failed since the server has begun anew; forget the session if so.

        The caller holds the lock.
        """
        if isinstance(error, EngineDiedError) or self._session is None:
            return False
        if not await self._session.is_lost():
            return False
        logger.warning("the Tinker server has lost the session of %s: %s", self.model_name, error)
        self._forget_session()
        return True

    def _forget_session(self) -> None:
        session, self._session, self._client = self._session, None, None
        self._served_models.forget_opened()
        if session is not None:
            session.abandon()

    async def _ready(self) -> tuple[ServerSession, tinker.TrainingClient]:
        """Connect and resume the model, unless that is done. The caller holds the lock."""
        self.take_on()
        self._loop = asyncio.get_running_loop()
        if self._session is not None and self._client is None and await self._session.is_lost():
            self._forget_session()
        if self._session is None:
            self._session = await ServerSession.open(await self._connect(), self.base_model)
        if self._client is None:
            self._client = await self._resume(self._session)
        return self._session, self._client

    async def _resume(self, session: ServerSession) -> tinker.TrainingClient:
        await self._checkpoints.sweep_server(session)
        args = training_client_args(self.config)
        step = self._folders.last_step()
        if step is None:
            client = await session.create_model(args)
            await self._save_checkpoint(0, session, client)
            return client
        info = self._folders.read(step)
        if info.base_model not in (None, self.base_model):
            raise ConfigurationError(
                f"the checkpoints in {self.output_dir} belong to {info.base_model}, and the model "
                f"{self.model_name!r} is now to train {self.base_model}; use another model name"
            )
        client = await session.resume_model(info.state_with_optimizer_path)
        rank = client.get_info().lora_rank
        if rank is not None and rank != args["rank"]:
            raise ConfigurationError(
                f"the checkpoint of step {step} has LoRA rank {rank}, and the config says "
                f"{args['rank']}; set it back, or use another model name"
            )
        for saved in self._folders.steps():
            self._served_models.publish(saved, self._folders.read(saved).sampler_weights_path)
        logger.info("resumed %s from step %d", self.model_name, step)
        return client

    async def _save_checkpoint(
        self, step: int, session: ServerSession, client: tinker.TrainingClient
    ) -> None:
        self._served_models.publish(step, await self._checkpoints.save(step, session, client))

    async def _open_completer(self, path: str | None) -> TokenCompleter:
        """Open a checkpoint for sampling.

        Called on the endpoint's event loop, where the lock cannot be taken.
        """
        return RenewableCompleter(path, self._open_session, self._renew_session)

    async def _open_session(self) -> ServerSession:
        session = self._session
        return session if session is not None else await self._renew_session(None)

    async def _renew_session(self, lost: ServerSession | None) -> ServerSession:
        """Open the session anew, unless that was done since ``lost`` was. On any event loop."""
        if self._loop is None or self._loop.is_closed():
            raise self._ended()
        renewing = asyncio.run_coroutine_threadsafe(self._renew(lost), self._loop)
        return await asyncio.wrap_future(renewing)

    async def _renew(self, lost: ServerSession | None) -> ServerSession:
        async with self._exclusively():
            if self._server is None:  # closed meanwhile
                raise self._ended()
            if self._session is lost:
                self._forget_session()
            session, _ = await self._ready()
            return session

    def _ended(self) -> EngineError:
        return EngineError(
            f"the session of {self.model_name} with its Tinker server has ended; register the "
            "model again"
        )
