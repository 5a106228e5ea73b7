"""Models: construction, registration, logging, state and checkpoints."""

import asyncio
import copy
import json
import math
import multiprocessing
import pickle
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Unpack

import cloudpickle
import pytest
from pydantic import BaseModel, ValidationError

from art.backend import AnyModel, AnyTrainableModel, Backend
from art.dev.openai_server import OpenAIServerConfig
from art.errors import ConfigurationError, NotRegisteredError, UnknownBaseModelError
from art.model import Model, TrainableModel
from art.runs.history import HISTORY, read_history
from art.runs.paths import checkpoint_dir, checkpoint_steps, model_dir
from art.runs.trajectories import read_trajectory_groups
from art.trajectories import Trajectory, TrajectoryGroup
from art.types import TrainConfig, TrainOptions, TrainResult, TrainSFTConfig


class RunConfig(BaseModel):
    system_prompt: str = "be brief"


def folder_of(model: AnyModel) -> Path:
    return model_dir(model.base_path, model.project, model.name)


class FolderBackend:
    """A backend whose training makes a checkpoint folder, and whose endpoint is a fixed URL."""

    def __init__(self, url: str = "http://127.0.0.1:9/v1") -> None:
        self.url = url
        self.registered: list[str] = []
        self.endpoint_config: OpenAIServerConfig | None = None

    async def register(self, model: AnyModel) -> None:
        self.registered.append(model.name)

    async def prepare_for_training(
        self, model: AnyTrainableModel, endpoint_config: OpenAIServerConfig | None = None
    ) -> tuple[str, str]:
        if model.base_model == "unknown":
            raise UnknownBaseModelError("no such model")
        self.endpoint_config = endpoint_config
        return self.url, "tml-key"

    def inference_name(self, model: AnyModel, step: int | None = None) -> str:
        return f"{model.name}@{'latest' if step is None else step}"

    async def get_step(self, model: AnyTrainableModel) -> int:
        return max(checkpoint_steps(folder_of(model)), default=0)

    async def train(
        self,
        model: AnyTrainableModel,
        trajectory_groups: Iterable[TrajectoryGroup],
        *,
        config: TrainConfig | None = None,
        **options: Unpack[TrainOptions],
    ) -> TrainResult:
        step = await self.get_step(model) + 1
        checkpoint_dir(folder_of(model), step).mkdir(parents=True)
        return TrainResult(step, {"loss": 0.5})

    async def train_sft(
        self,
        model: AnyTrainableModel,
        trajectories: Iterable[Trajectory],
        config: TrainSFTConfig | None = None,
    ) -> TrainResult:
        return await self.train(model, [])

    async def delete_checkpoints(self, model: AnyTrainableModel, steps_to_keep: list[int]) -> None:
        for step in checkpoint_steps(folder_of(model)):
            if step not in steps_to_keep:
                shutil.rmtree(checkpoint_dir(folder_of(model), step))

    async def close(self) -> None:
        pass


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., TrainableModel]:
    def make(**fields: Any) -> TrainableModel:
        return TrainableModel(
            **{
                "name": "agent",
                "project": "demo",
                "base_model": "Qwen/Qwen3-0.6B",
                "base_path": tmp_path,
                **fields,
            }
        )

    return make


class TestConstruction:
    def test_a_trainable_model_has_a_config_of_its_own_type(self, tmp_path: Path) -> None:
        model = TrainableModel(
            name="agent",
            project="demo",
            base_model="Qwen/Qwen3-0.6B",
            base_path=tmp_path,
            config=RunConfig(),
        )
        assert model.trainable
        assert model.config.system_prompt == "be brief"
        assert model.internal_config is None
        assert model.get_output_dir() == tmp_path / "demo" / "models" / "agent"

    @pytest.mark.parametrize("name", ["internal_config", "_internal_config"])
    def test_the_internal_config_has_arts_name_too(
        self, make_model: Callable[..., TrainableModel], name: str
    ) -> None:
        model = make_model(**{name: {"peft_args": {"r": 4}}})
        assert model.internal_config == {"peft_args": {"r": 4}}

    def test_an_internal_config_under_both_names_is_refused(
        self, make_model: Callable[..., TrainableModel]
    ) -> None:
        with pytest.raises(ConfigurationError, match="internal_config and _internal_config are"):
            make_model(internal_config={}, _internal_config={})

    def test_an_internal_option_without_an_effect_is_refused(
        self, make_model: Callable[..., TrainableModel]
    ) -> None:
        with pytest.raises(ConfigurationError, match=r"trainer_args\.learning_rate has no effect"):
            make_model(internal_config={"trainer_args": {"learning_rate": 1e-4}})

    def test_a_prompted_model_keeps_its_key_to_itself(self) -> None:
        model = Model(
            name="gpt", project="demo", inference_api_key="sk-secret", inference_base_url="http://x"
        )
        assert not model.trainable
        assert model.config is None
        assert model.base_path == ".art"
        assert "sk-secret" not in repr(model)
        assert "sk-secret" not in json.dumps(model.describe())
        assert model.get_inference_name() == "gpt"
        assert model.get_inference_name(step=3) == "gpt@3"
        named = Model(name="gpt", project="demo", inference_model_name="openai/gpt")
        assert named.get_inference_name() == "openai/gpt"

    def test_a_model_and_its_config_come_back_from_json(self) -> None:
        model = TrainableModel[RunConfig](
            name="agent", project="demo", base_model="b", config=RunConfig(system_prompt="x")
        )
        back = TrainableModel[RunConfig].model_validate_json(model.model_dump_json())
        assert back.model_dump() == model.model_dump()
        assert back.config == model.config

    def test_a_config_that_is_no_pydantic_model_is_refused(self) -> None:
        with pytest.raises(ValidationError, match=r"Model\[MyConfig\]"):
            Model(name="a", project="demo", config={"system_prompt": "x"})

    @pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "a\0", "x:y", "NUL"])
    def test_names_that_cannot_be_folders_are_refused(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match="model name"):
            Model(name=name, project="demo")
        with pytest.raises(ConfigurationError, match="project name"):
            TrainableModel(name="agent", project=name, base_model="b")

    def test_a_name_that_was_changed_is_checked_again(
        self, make_model: Callable[..., TrainableModel]
    ) -> None:
        model = make_model()
        model.name = "../../escape"
        with pytest.raises(ConfigurationError, match="escape"):
            model.overwrite_state({})

    def test_unknown_arguments_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="nmae"):
            Model(name="a", project="demo", nmae="b")


class TestRegister:
    async def test_a_trainable_model_gets_its_endpoint(
        self, make_model: Callable[..., TrainableModel]
    ) -> None:
        model, backend = make_model(), FolderBackend()
        protocol: Backend = backend
        await model.register(protocol)
        assert backend.registered == ["agent"]
        assert backend.endpoint_config is None
        assert model.backend() is backend
        assert (model.inference_base_url, model.inference_api_key) == (backend.url, "tml-key")
        assert model.inference_model_name == "agent@latest"
        assert model.get_inference_name(step=2) == "agent@2"
        assert model.litellm_completion_params(step=2) == {
            "model": "hosted_vllm/agent@2",
            "base_url": backend.url,
            "api_key": "tml-key",
            "temperature": 1,
        }
        assert await model.get_step() == 0

    @pytest.mark.parametrize("name", ["endpoint_config", "_openai_client_config"])
    async def test_the_endpoints_config_has_arts_name_too(
        self, make_model: Callable[..., TrainableModel], name: str
    ) -> None:
        backend = FolderBackend()
        config: Any = {"server_args": {"port": 0}}
        await make_model().register(backend, **{name: config})
        assert backend.endpoint_config == config

    async def test_an_endpoints_config_under_both_names_is_refused(
        self, make_model: Callable[..., TrainableModel]
    ) -> None:
        backend = FolderBackend()
        with pytest.raises(ConfigurationError, match="endpoint_config and _openai_client_config"):
            await make_model().register(backend, {}, _openai_client_config={})
        assert backend.registered == []

    async def test_an_endpoints_option_without_an_effect_is_refused_before_the_backend_is_asked(
        self, make_model: Callable[..., TrainableModel]
    ) -> None:
        backend = FolderBackend()
        config: Any = {"server_args": {"tool_call_parser": "hermes"}}
        with pytest.raises(ConfigurationError, match="tool_call_parser has no effect"):
            await make_model().register(backend, config)
        assert backend.registered == []

    async def test_a_prompted_model_is_registered_without_an_endpoint(self) -> None:
        model, backend = Model(name="gpt", project="demo"), FolderBackend()
        await model.register(backend)
        assert backend.registered == ["gpt"]
        assert await model.get_step() == 0

    @pytest.mark.parametrize("use", [TrainableModel.backend, TrainableModel.openai_client])
    def test_a_trainable_model_must_be_registered_before_it_is_asked(
        self, make_model: Callable[..., TrainableModel], use: Callable[[TrainableModel], object]
    ) -> None:
        with pytest.raises(NotRegisteredError, match=r"await model\.register"):
            use(make_model())

    @pytest.mark.parametrize("use", [TrainableModel.get_step, TrainableModel.delete_checkpoints])
    async def test_a_trainable_model_must_be_registered_before_it_is_counted(
        self,
        make_model: Callable[..., TrainableModel],
        use: Callable[[TrainableModel], Awaitable[object]],
    ) -> None:
        with pytest.raises(NotRegisteredError, match=r"await model\.register"):
            await use(make_model())

    def test_a_prompted_model_without_a_url_cannot_be_asked(self) -> None:
        with pytest.raises(ConfigurationError, match="inference_base_url"):
            Model(name="gpt", project="demo").openai_client()

    async def test_a_failure_leaves_the_model_unregistered(
        self, make_model: Callable[..., TrainableModel]
    ) -> None:
        model = make_model(base_model="unknown")
        with pytest.raises(UnknownBaseModelError):
            await model.register(FolderBackend())
        with pytest.raises(NotRegisteredError):
            model.backend()

    async def test_a_config_that_cannot_become_json_is_refused(
        self, make_model: Callable[..., TrainableModel]
    ) -> None:
        class Handle(BaseModel):
            value: Any

        model = make_model(config=Handle(value=threading.Lock()))
        with pytest.raises(ConfigurationError, match="cannot become JSON"):
            await model.register(FolderBackend())


class TestLog:
    @pytest.fixture
    def model(self, make_model: Callable[..., TrainableModel]) -> TrainableModel:
        return make_model()

    def groups(self) -> list[TrajectoryGroup]:
        return [
            TrajectoryGroup([Trajectory(reward=1, metrics={"turns": 2}), ValueError("x")]),
            TrajectoryGroup([Trajectory(reward=0), Trajectory(reward=1)]),
        ]

    async def test_groups_are_logged_as_means_and_as_trajectories(
        self, model: TrainableModel
    ) -> None:
        await model.register(FolderBackend())
        await model.log(self.groups(), split="train")
        (row,) = read_history(model.get_output_dir())
        assert row.pop("recorded_at")
        assert row.pop("time/wall_clock_sec") >= 0
        assert row == {
            "train/reward": pytest.approx(2 / 3),
            "train/turns": 2,
            "train/exception_rate": 0.25,
            "train/reward_std_dev": 0.5,
            "training_step": 0,
            "step": 0,
        }
        path = model.get_output_dir() / "trajectories" / "train" / "0000.jsonl"
        read = read_trajectory_groups(path)
        assert [len(group) for group in read] == [1, 2]
        assert read[0].exceptions[0].message == "x"

    async def test_metrics_alone_are_logged_without_trajectories(
        self, model: TrainableModel
    ) -> None:
        await model.log(metrics={"loss": 0.5, "data/step_num_tokens": 9, "bad": math.nan}, step=4)
        (row,) = read_history(model.get_output_dir())
        assert (row["val/loss"], row["data/step_num_tokens"], row["step"]) == (0.5, 9, 4)
        assert "val/bad" not in row
        assert not (model.get_output_dir() / "trajectories").exists()

    async def test_given_metrics_override_those_of_the_trajectories(
        self, model: TrainableModel
    ) -> None:
        await model.log(self.groups(), split="train", metrics={"loss": 0.5, "reward": 9}, step=1)
        (row,) = read_history(model.get_output_dir())
        assert (row["train/loss"], row["train/reward"], row["train/turns"]) == (0.5, 9, 2)

    async def test_trajectories_and_exceptions_are_one_group(self, model: TrainableModel) -> None:
        items: list[Trajectory | BaseException] = [Trajectory(reward=1), ValueError("x")]
        await model.log(items, step=2)
        path = model.get_output_dir() / "trajectories" / "val" / "0002.jsonl"
        (group,) = read_trajectory_groups(path)
        assert (len(group), len(group.exceptions)) == (1, 1)

    async def test_one_group_keeps_its_exceptions(self, model: TrainableModel) -> None:
        await model.log(self.groups()[0], step=2)
        (row,) = read_history(model.get_output_dir())
        assert row["val/exception_rate"] == 0.5

    async def test_a_row_is_strict_json(self, model: TrainableModel) -> None:
        await model.log([Trajectory(reward=math.nan)], metrics={"x": -math.inf}, step=1)
        line = (model.get_output_dir() / HISTORY).read_text()
        assert "NaN" not in line
        assert "Infinity" not in line
        assert json.loads(line)["val/exception_rate"] == 0

    async def test_bad_input_writes_nothing(self, model: TrainableModel) -> None:
        with pytest.raises(TypeError, match="mix"):
            await model.log([Trajectory(), TrajectoryGroup([])], step=1)  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(ConfigurationError, match="split"):
            await model.log(self.groups(), split="../val", step=1)
        with pytest.raises(NotRegisteredError):
            await model.log(self.groups())
        assert not model.get_output_dir().exists()

    async def test_logging_nothing_makes_no_file(self, model: TrainableModel) -> None:
        await model.log(step=1)
        assert not model.get_output_dir().exists()


class TestDeleteCheckpoints:
    @pytest.fixture
    async def model(self, make_model: Callable[..., TrainableModel]) -> TrainableModel:
        model, backend = make_model(), FolderBackend()
        await model.register(backend)
        for _ in range(5):
            await backend.train(model, [])
        return model

    async def test_the_latest_and_the_best_are_kept(self, model: TrainableModel) -> None:
        for step, reward in [(1, 0.5), (2, 1.0), (2, 0.0), (3, 0.75), (4, math.nan)]:
            await model.log([Trajectory(reward=reward)], step=step)
        await model.delete_checkpoints()
        assert checkpoint_steps(model.get_output_dir()) == [3, 5]

    async def test_the_best_step_by_another_metric_is_kept(self, model: TrainableModel) -> None:
        await model.log(metrics={"accuracy": 0.9}, split="test", step=2)
        await model.delete_checkpoints("test/accuracy")
        assert checkpoint_steps(model.get_output_dir()) == [2, 5]

    async def test_without_the_metric_the_latest_is_kept(
        self, model: TrainableModel, caplog: pytest.LogCaptureFixture
    ) -> None:
        await model.delete_checkpoints()
        assert checkpoint_steps(model.get_output_dir()) == [5]
        assert "'val/reward'" in caplog.text


def test_a_state_is_read_merged_and_replaced(make_model: Callable[..., TrainableModel]) -> None:
    model = make_model()
    assert model.read_state() is None
    assert model.merge_state({"data": {"offset": 1, "seed": 2}}) == {
        "data": {"offset": 1, "seed": 2}
    }
    assert model.merge_state({"data": {"offset": 5}, "x": None}) == {
        "data": {"offset": 5, "seed": 2},
        "x": None,
    }
    model.overwrite_state({"only": True})
    assert model.read_state() == {"only": True}


class TestOpenAIClient:
    def test_it_is_made_once_for_an_event_loop(self) -> None:
        model = Model(
            name="m", project="p", inference_api_key="k", inference_base_url="http://127.0.0.1:9/v1"
        )

        async def twice() -> Any:
            assert model.openai_client() is model.openai_client()
            return model.openai_client()

        first, second = asyncio.run(twice()), asyncio.run(twice())
        assert first is not second
        model.inference_base_url = "http://127.0.0.1:10/v1"
        assert str(model.openai_client().base_url) == "http://127.0.0.1:10/v1/"

    async def test_it_opens_as_many_connections_as_there_are_requests(
        self, many_files: int
    ) -> None:
        together = asyncio.Barrier(many_files)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"uthorization: Bearer tml-key" in head
            await together.wait()
            body = json.dumps({"object": "list", "data": []}).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=many_files)
        port = server.sockets[0].getsockname()[1]
        model = Model(
            name="m",
            project="p",
            inference_api_key="tml-key",
            inference_base_url=f"http://127.0.0.1:{port}/v1",
        )
        async with server, asyncio.timeout(300), model.openai_client() as client:
            pages = await asyncio.gather(*(client.models.list() for _ in range(many_files)))
        assert len(pages) == many_files


@pytest.fixture
def many_files() -> Iterator[int]:
    """More connections than an unconfigured client opens, where the system allows as many."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"only {hard} files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield 1010
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class OwnModel(TrainableModel[RunConfig]):
    """A model with a field of the user's own."""

    budget: int


def sees(model: Model[Any]) -> tuple[Any, ...]:
    client = model.openai_client()
    name = model.get_inference_name()
    return (type(model), model.describe(), name, str(client.base_url), client.api_key)


def sees_in_a_new_process(model: Model[Any]) -> tuple[Any, ...]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        return processes.submit(sees, model).result()


class TestCopies:
    """Of a model that was registered and asked: its backend and its client hold locks."""

    @pytest.fixture(params=[TrainableModel, TrainableModel[RunConfig], OwnModel])
    async def model(
        self, request: pytest.FixtureRequest, make_model: Callable[..., Any], tmp_path: Path
    ) -> Model[Any]:
        own = {"budget": 3} if request.param is OwnModel else {}
        model: TrainableModel[RunConfig] = request.param(
            name="agent",
            project="demo",
            base_model="Qwen/Qwen3-0.6B",
            base_path=tmp_path,
            config=RunConfig(system_prompt="mine"),
            **own,
        )
        backend = FolderBackend()
        backend.lock = threading.Lock()  # type: ignore[attr-defined]  # as real ones have
        await model.register(backend)
        model.openai_client()
        return model

    @pytest.mark.parametrize(
        "through",
        [
            lambda model: sees(pickle.loads(pickle.dumps(model))),
            lambda model: sees(cloudpickle.loads(cloudpickle.dumps(model))),
            sees_in_a_new_process,
        ],
        ids=["pickle", "cloudpickle", "spawn"],
    )
    async def test_a_copy_in_another_process_asks_the_same_endpoint(
        self, model: Model[Any], through: Callable[[Model[Any]], Any]
    ) -> None:
        kind, described, *endpoint = through(model)
        assert kind is type(model)
        assert endpoint == ["agent@latest", "http://127.0.0.1:9/v1/", "tml-key"]
        assert described == model.describe()
        assert described["config"] == {"system_prompt": "mine"}

    @pytest.mark.parametrize(
        "duplicate",
        [copy.copy, copy.deepcopy, lambda model: model.model_copy(deep=True)],
        ids=["copy", "deepcopy", "model_copy"],
    )
    async def test_a_copy_shares_the_backend_and_has_a_client_of_its_own(
        self, model: Model[Any], duplicate: Callable[[Model[Any]], Model[Any]]
    ) -> None:
        copied = duplicate(model)
        assert copied.describe() == model.describe()
        assert copied.backend() is model.backend()
        assert copied.openai_client() is not model.openai_client()

    async def test_a_copy_in_another_process_has_no_backend(self, model: Model[Any]) -> None:
        with pytest.raises(NotRegisteredError, match="has no backend"):
            pickle.loads(pickle.dumps(model)).backend()

    def test_a_field_of_a_subclass_is_described(self, model: Model[Any]) -> None:
        assert model.describe().get("budget") == (3 if isinstance(model, OwnModel) else None)
