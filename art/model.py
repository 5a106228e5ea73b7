"""Models: prompted ones, which a rollout can ask, and trainable ones."""

import asyncio
import importlib
import logging
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from contextvars import Token
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self

from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator
from typing_extensions import TypeVar

# At run time too, so that `typing.get_type_hints` finds the names.
from art._internal.proxies import is_loopback_url
from art._internal.refused_names import drop_neutral, find_way
from art.backend import Backend
from art.capture.rollout_endpoint import RolloutEndpoint, open_rollout
from art.dev.model import InternalModelConfig
from art.dev.openai_server import OpenAIServerConfig
from art.dev.validate import validate_model_config, validate_server_config
from art.errors import ConfigurationError, NotRegisteredError
from art.metrics import MetricsBuilder
from art.runs.history import HISTORY, best_step, read_history
from art.runs.log import FileLogger, RunLogger, as_groups
from art.runs.metrics import split_metrics, step_metrics
from art.runs.paths import model_dir, path_component
from art.runs.state import merge_state, read_state, write_state
from art.trajectories import Trajectory, TrajectoryGroup
from art.types import TrainResult, TrainSFTConfig

logger = logging.getLogger(__name__)

# A plain `art.Model` in a signature takes a model of any config.
ConfigT = TypeVar("ConfigT", bound=BaseModel | None, default=Any)

OptionT = TypeVar("OptionT")

# Where `state.json` keeps the totals of costs, times and data.
_METRICS_STATE = "_metrics_builder_state"

# A rollout may wait long for its turn. A server that does not accept is not there; but a thousand
# connections that are opened at once, on a busy machine, hold each other up for seconds.
_REQUEST_SECONDS = 1200.0
_CONNECT_SECONDS = 30.0


class Model(BaseModel, Generic[ConfigT]):
    """A model that a rollout can ask, and whose results can be logged.

    A prompted model, to compare with::

        art.Model(
            name="gpt-4.1",
            project="my-project",
            inference_api_key=os.environ["OPENAI_API_KEY"],
            inference_base_url="https://api.openai.com/v1/",
        )

    State lies under ``<base_path>/<project>/models/<name>/``.

    Attributes:
        name: Name of the model; a folder's name too.
        project: Name of the project; a folder's name too.
        config: The user's own settings, such as a system prompt.
        trainable: Whether this is a :class:`TrainableModel`.
        inference_api_key: Key of the OpenAI-compatible endpoint.
        inference_base_url: Base URL of the endpoint, ending in ``/v1``.
        inference_model_name: The model's name at the endpoint, where that is not ``name``.
        base_path: Root of all state.

    Raises:
        art.errors.ConfigurationError: ``name`` or ``project`` cannot be a folder's name.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    project: str
    config: ConfigT
    trainable: bool = False
    inference_api_key: str | None = Field(default=None, repr=False)
    inference_base_url: str | None = None
    inference_model_name: str | None = None
    base_path: str = ".art"

    _backend: Backend | None = PrivateAttr(default=None)
    _client: tuple[tuple[object, ...], AsyncOpenAI] | None = PrivateAttr(default=None)
    _created: float = PrivateAttr(default_factory=time.time)
    _metrics: MetricsBuilder | None = PrivateAttr(default=None)

    def __init__(
        self,
        *,
        name: str,
        project: str,
        config: ConfigT | None = None,
        inference_api_key: str | None = None,
        inference_base_url: str | None = None,
        inference_model_name: str | None = None,
        base_path: str | os.PathLike[str] = ".art",
        **fields: Any,
    ) -> None:
        path_component("model", name)
        path_component("project", project)
        fields = drop_neutral("art.Model", fields)
        super().__init__(
            name=name,
            project=project,
            config=config,
            inference_api_key=inference_api_key,
            inference_base_url=inference_base_url,
            inference_model_name=inference_model_name,
            base_path=os.fspath(base_path),
            **fields,
        )

    @field_validator("config")
    @classmethod
    def _check_config(cls, config: object) -> object:
        if config is not None and not isinstance(config, BaseModel):
            raise ValueError(
                f"config must be a pydantic model or None, not {type(config).__name__}; to "
                f"validate it from a dict, name its class: {cls.__name__}[MyConfig]"
            )
        return config

    if not TYPE_CHECKING:  # a type checker would take it that every name is there

        def __getattr__(self, name: str) -> Any:
            if way := find_way(f"art.{type(self).__name__}.{name}"):
                raise AttributeError(f"{type(self).__name__} has no {name}: {way}")
            return super().__getattr__(name)

    def get_output_dir(self) -> Path:
        """Build the path of the folder of the model's state. It need not exist."""
        return model_dir(self.base_path, self.project, self.name)

    def describe(self) -> dict[str, Any]:
        """Describe the model as JSON values, without its API key."""
        return self.model_dump(mode="json", exclude={"inference_api_key"})

    def backend(self) -> Backend:
        """Return the backend that the model is registered with.

        Raises:
            art.errors.NotRegisteredError: There is none yet.
        """
        if self._backend is None:
            raise NotRegisteredError(
                f"Model {self.name!r} has no backend. Call `await model.register(backend)` first."
            )
        return self._backend

    async def register(self, backend: Backend) -> None:
        """Hand the model to a backend.

        Args:
            backend: Takes the model on.

        Raises:
            art.errors.ConfigurationError: ``config`` cannot become JSON.
        """
        if self.config is not None:
            try:
                self.config.model_dump_json()
            except ValueError as error:
                raise ConfigurationError(
                    f"The config of model {self.name!r} cannot become JSON: {error}"
                ) from error
        await backend.register(self)
        self._backend = backend

    def __reduce__(self) -> tuple[Any, ...]:
        # `Model[MyConfig]` is made where it is written, and has no name to be imported by.
        generic = type(self).__pydantic_generic_metadata__
        return _blank, (generic["origin"] or type(self), generic["args"]), self.__getstate__()

    def __getstate__(self) -> dict[Any, Any]:
        # To another process go the endpoint's address and its key, not connections. The name is
        # resolved here: there is no backend there that could look up the latest step.
        state = super().__getstate__()
        fields = state["__dict__"] | {"inference_model_name": self._copied_inference_name()}
        private = (state["__pydantic_private__"] or {}) | {"_backend": None, "_client": None}
        return state | {"__dict__": fields, "__pydantic_private__": private}

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._client = None
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # A backend and a client have locks, and belong to this process: the copy shares the one,
        # and makes a client of its own.
        memo = {} if memo is None else memo
        memo[id(self._backend)] = self._backend
        memo[id(self._client)] = None
        return super().__deepcopy__(memo)

    def _copied_inference_name(self) -> str | None:
        return self.inference_model_name if self._backend is None else self.get_inference_name()

    def openai_client(self) -> AsyncOpenAI:
        """Return a client of the model's endpoint, the same one at every call in an event loop.

        It waits up to 20 minutes for an answer, and opens as many connections as there are
        requests. Pass :meth:`get_inference_name` as ``model``.

        Raises:
            art.errors.NotRegisteredError: A trainable model was not registered yet.
            art.errors.ConfigurationError: A prompted model has no URL or key.
        """
        url, key = self.inference_base_url, self.inference_api_key
        if url is None or key is None:
            raise self._no_endpoint()
        try:
            loop: object = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        # Connections belong to the event loop that opened them.
        identity = (url, key, loop)
        if self._client is None or self._client[0] != identity:
            self._client = (identity, _unlimited_client(url, key))
        return self._client[1]

    def _no_endpoint(self) -> Exception:
        return ConfigurationError(
            f"Model {self.name!r} has no endpoint. Give it inference_base_url and "
            "inference_api_key."
        )

    def get_inference_name(self, step: int | None = None) -> str:
        """Name the model as its endpoint serves it.

        Args:
            step: The checkpoint that is wanted; ``None`` is the latest.
        """
        if self._backend is not None:
            return self._backend.inference_name(self, step=step)
        name = self.inference_model_name or self.name
        return name if step is None else f"{name}@{step}"

    def litellm_completion_params(self, step: int | None = None) -> dict[str, Any]:
        """Build the arguments for ``litellm.completion`` that reach the model.

        Args:
            step: The checkpoint that is wanted; ``None`` is the latest.
        """
        name = self.get_inference_name(step)
        return {
            # litellm's name for a server that speaks OpenAI's protocol and takes more.
            "model": f"hosted_vllm/{name}" if self.trainable else name,
            "base_url": self.inference_base_url,
            "api_key": self.inference_api_key,
            "temperature": 1,
        }

    async def get_step(self) -> int:
        """Count the training steps that the model has taken; 0 for one that is not trainable."""
        return 0

    async def log(
        self,
        trajectories: Iterable[Trajectory | BaseException]
        | Iterable[TrajectoryGroup]
        | None = None,
        split: str = "val",
        *,
        metrics: Mapping[str, float] | None = None,
        step: int | None = None,
    ) -> None:
        """Log trajectories, metrics, or both.

        One row goes to ``history.jsonl``: the means of :func:`art.runs.metrics.step_metrics`, then
        ``metrics``, then what :meth:`metrics_builder` holds; ``costs/…`` are summed up and get
        totals. Trajectories go to ``trajectories/<split>/<step>.jsonl``, one group a line,
        after what was logged of the same split and step. (ART 0.5 writes parquet there; JSON
        lines need no pyarrow, and keep a Choice's token ids.)

        Args:
            trajectories: Groups, or one; or trajectories and exceptions, which become one group.
            split: ``"train"``, ``"val"``, ``"test"`` or a name of your own.
            metrics: Further numbers, such as those that ``backend.train`` returned. JSON has no
                NaN and no infinity: such values are left out.
            step: The step that this belongs to; ``None`` is the current one.

        Raises:
            art.errors.ConfigurationError: ``split`` cannot be a folder's name.
            TypeError: ``trajectories`` mixes groups with something else.
            OSError: A file cannot be written.
        """
        path_component("split", split)
        groups = None if trajectories is None else as_groups(trajectories)
        if step is None:
            step = await self.get_step()
        run_logger: RunLogger = FileLogger(self.get_output_dir())
        row: dict[str, float] = {}
        if groups is not None:
            await asyncio.to_thread(run_logger.log_trajectories, groups, split=split, step=step)
            row |= step_metrics(groups)
        row |= metrics or {}
        row |= await self._take_costs(split, row)
        if row:
            named = split_metrics(row, split)
            named |= {"training_step": step, "time/wall_clock_sec": time.time() - self._created}
            await asyncio.to_thread(run_logger.log_metrics, named, step=step)

    def metrics_builder(self, cost_context: str | None = None) -> MetricsBuilder:
        """Return the builder of metrics that :meth:`log` writes, with the model's totals.

        Args:
            cost_context: The part of the run that responses are charged to: ``"train"``, which
                ``log(split="train")`` writes; ``"eval"``, which ``val`` and ``test`` write; or
                another split. ``None`` is ``"train"``.

        Raises:
            art.errors.CheckpointError: ``state.json`` is damaged.
        """
        if self._metrics is None:
            self._metrics = MetricsBuilder("train")
            self._metrics.load_state_dict((self.read_state() or {}).get(_METRICS_STATE, {}))
        return self._metrics.for_cost_context(cost_context or "train")

    def activate_metrics_context(self, cost_context: str) -> Token[MetricsBuilder]:
        """Charge what is asked of other models, such as a judge, to a part of the run.

        Args:
            cost_context: As for :meth:`metrics_builder`.

        Returns:
            The token that takes it back: ``token.var.reset(token)``.
        """
        return self.metrics_builder(cost_context).activate()

    async def _take_costs(self, split: str, row: dict[str, float]) -> dict[str, float]:
        """Take the costs out of a row, and give them back summed up, with all that is pending."""
        costs = [name for name in row if name.startswith("costs/")]
        if self._metrics is None and not costs:
            return {}
        builder = self.metrics_builder("eval" if split in ("val", "test") else split)
        for name in costs:
            builder.add_metric(name, row.pop(name))
        if not builder.has_pending:
            return {}
        metrics = await builder.flush()
        await asyncio.to_thread(self.merge_state, {_METRICS_STATE: builder.state_dict()})
        return metrics

    def overwrite_state(self, state: Mapping[str, Any]) -> None:
        """Replace the model's ``state.json``, where a run keeps what it must remember.

        Args:
            state: Values that JSON can hold.
        """
        write_state(self.get_output_dir(), state)

    # ART's earlier name.
    write_state = overwrite_state

    def merge_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Merge into the model's ``state.json``; dicts within are merged too.

        Args:
            state: Values that JSON can hold.

        Returns:
            The whole state, as it was written.
        """
        return merge_state(self.get_output_dir(), state)

    def read_state(self) -> dict[str, Any] | None:
        """Read the model's ``state.json``.

        Returns:
            The state, or ``None`` where none was written.

        Raises:
            art.errors.CheckpointError: The file is damaged.
        """
        return read_state(self.get_output_dir())


class TrainableModel(Model[ConfigT], Generic[ConfigT]):
    """A model that a backend trains.

    ::

        model = art.TrainableModel(
            name="agent-001", project="my-project", base_model="Qwen/Qwen3-4B-Instruct-2507"
        )
        await model.register(backend)

    Attributes:
        base_model: Name or folder of the model that training starts from.

    Args:
        internal_config: Settings of the adapter and the chat template: see ``docs/options.md``.
        _internal_config: ART's name of ``internal_config``.

    Raises:
        art.errors.ConfigurationError: ``name`` or ``project`` cannot be a folder's name, or an
            option of ``internal_config`` has no effect.
    """

    base_model: str
    trainable: bool = True

    _internal_config: InternalModelConfig | None = PrivateAttr(default=None)

    def __init__(
        self,
        *,
        name: str,
        project: str,
        base_model: str,
        config: ConfigT | None = None,
        base_path: str | os.PathLike[str] = ".art",
        internal_config: InternalModelConfig | None = None,
        _internal_config: InternalModelConfig | None = None,
        **fields: Any,
    ) -> None:
        internal_config = _one_of(
            internal_config=internal_config, _internal_config=_internal_config
        )
        if internal_config is not None:
            validate_model_config(internal_config)
        super().__init__(
            name=name,
            project=project,
            config=config,
            base_path=base_path,
            base_model=base_model,
            **fields,
        )
        self._internal_config = internal_config

    @property
    def internal_config(self) -> InternalModelConfig | None:
        """The settings of the adapter and the chat template; ``None`` is the defaults."""
        return self._internal_config

    def _no_endpoint(self) -> Exception:
        return NotRegisteredError(
            f"Model {self.name!r} has no endpoint yet. Call `await model.register(backend)` first."
        )

    async def register(
        self,
        backend: Backend,
        endpoint_config: OpenAIServerConfig | None = None,
        *,
        _openai_client_config: OpenAIServerConfig | None = None,
    ) -> None:
        """Hand the model to a backend, which serves its latest step.

        Args:
            backend: Trains the model and serves its completions.
            endpoint_config: Settings of the OpenAI-compatible endpoint; ``None`` is the defaults.
            _openai_client_config: ART's name of ``endpoint_config``.

        Raises:
            art.errors.ConfigurationError: ``config`` cannot become JSON, or an option of
                ``endpoint_config`` has no effect.
            art.errors.UnknownBaseModelError: The backend has no such base model.
        """
        endpoint_config = _one_of(
            endpoint_config=endpoint_config, _openai_client_config=_openai_client_config
        )
        if endpoint_config is not None:
            validate_server_config(endpoint_config)
        previous = self._backend
        await super().register(backend)
        try:
            url, key = await backend.prepare_for_training(self, endpoint_config)
        except BaseException:
            self._backend = previous
            raise
        self.inference_base_url, self.inference_api_key = url, key
        self.inference_model_name = backend.inference_name(self)

    @asynccontextmanager
    async def rollout_endpoint(self) -> AsyncIterator[RolloutEndpoint]:
        """Open a base URL for one rollout, for an agent in any process, container or language.

        ::

            async with model.rollout_endpoint() as rollout:
                await run_my_agent(env={**os.environ, **rollout.env}, model=rollout.model_name)
                trajectory = await rollout.trajectory()
            trajectory.reward = ...

        The trajectory has the agent's turns with their exact tokens, whatever dialect it speaks;
        a request that continues no earlier conversation begins one of ``additional_histories``.
        Inside one process :func:`art.capture.context.capture_auto_trajectory` needs no URL.

        Yields:
            The URL, its key and the model's name. When the block ends, the URL is closed.

        Raises:
            art.errors.NotRegisteredError: The model was not registered yet.
            openai.OpenAIError: The endpoint cannot be reached.
        """
        async with open_rollout(self.openai_client(), self.get_inference_name()) as rollout:
            yield rollout

    async def get_step(self) -> int:
        """Count the training steps that the model has taken.

        Raises:
            art.errors.NotRegisteredError: The model was not registered yet.
        """
        return await self.backend().get_step(self)

    async def train(self, *args: object, **options: object) -> NoReturn:
        """Refuse ART's earlier way to train; a backend trains a model.

        Raises:
            art.errors.ConfigurationError: Always; says what to write instead.
        """
        raise ConfigurationError(
            "model.train(groups, config=…) is of ART before 0.5. Write "
            "`result = await backend.train(model, groups, learning_rate=…)`, then "
            '`await model.log(groups, split="train", metrics=result.metrics)`'
        )

    async def train_sft(
        self,
        trajectories: Iterable[Trajectory],
        config: TrainSFTConfig | None = None,
        _config: Mapping[str, object] | None = None,
        verbose: bool = False,
    ) -> TrainResult:
        """Imitate the assistant turns of trajectories, and log one row of metrics.

        ::

            await model.train_sft(examples, art.TrainSFTConfig(learning_rate=2e-4, batch_size=4))

        Args:
            trajectories: The examples. One that cannot be trained on is dropped with a warning.
            config: Batch size and learning rates; ``None`` is the defaults.
            _config: ART's experimental options, of which it has none.
            verbose: Log the metrics at level info too.

        Returns:
            The model's step afterwards, one more than before, and means over the batches.

        Raises:
            art.errors.NotRegisteredError: The model was not registered yet.
            art.errors.TrainingDataError: Nothing can be trained on.
            art.errors.ConfigurationError: An option cannot be used.
            art.errors.EngineError: The engine failed; the last checkpoint is intact.
        """
        if _config:
            raise ConfigurationError(
                f"train_sft takes no experimental options, and _config has {', '.join(_config)}"
            )
        result = await self.backend().train_sft(self, trajectories, config)
        if verbose:
            logger.info("%s: step %d by SFT: %s", self.name, result.step, result.metrics)
        await self.log(split="train", metrics=result.metrics, step=result.step)
        return result

    async def delete_checkpoints(self, best_checkpoint_metric: str = "val/reward") -> None:
        """Delete all checkpoints but the latest and the best.

        Args:
            best_checkpoint_metric: Its mean over a step's rows of ``history.jsonl`` says how good
                the step is; greater is better. Where no row has it, only the latest is kept.

        Raises:
            art.errors.NotRegisteredError: The model was not registered yet.
        """
        keep = [await self.get_step()]
        rows = await asyncio.to_thread(read_history, self.get_output_dir())
        best = best_step(rows, best_checkpoint_metric)
        if best is None:
            logger.warning(
                "No row of %s has %r: only the checkpoint of step %d is kept",
                self.get_output_dir() / HISTORY,
                best_checkpoint_metric,
                keep[0],
            )
        elif best not in keep:
            keep.append(best)
        await self.backend().delete_checkpoints(self, keep)


def _blank(kind: Any, arguments: tuple[Any, ...]) -> Any:
    """Make the object whose state is about to be unpickled."""
    if arguments:
        kind = kind[arguments]
    return kind.__new__(kind)


def _unlimited_client(url: str, key: str) -> AsyncOpenAI:
    # httpx or httpx2, whichever this openai is built on: it exports all of it but `Limits`.
    http = importlib.import_module(DefaultAsyncHttpxClient.__base__.__module__.partition(".")[0])
    limits = http.Limits(max_connections=None, max_keepalive_connections=None)
    timeout = Timeout(_REQUEST_SECONDS, connect=_CONNECT_SECONDS)
    return AsyncOpenAI(
        base_url=url,
        api_key=key,
        http_client=DefaultAsyncHttpxClient(
            timeout=timeout,
            limits=limits,
            # Of the environment a client of loopback needs nothing, least of all a proxy.
            trust_env=not is_loopback_url(url),
        ),
    )


def _one_of(**spellings: OptionT | None) -> OptionT | None:
    """Take an option that has two names; given under both it is refused."""
    given = {name: value for name, value in spellings.items() if value is not None}
    if len(given) > 1:
        raise ConfigurationError(f"{' and '.join(given)} are one option; pass only one of them")
    return next(iter(given.values()), None)
