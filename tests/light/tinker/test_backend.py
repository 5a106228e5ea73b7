"""TinkerBackend before it reaches a server."""

import os
from pathlib import Path

import lazy_loader
import pytest

import art
from art.errors import CheckpointError, ConfigurationError, MissingAPIKeyError, ModelInUseError
from art.tinker import Connection, TinkerBackend, TinkerService
from tests.processes import run_python

BASE_MODEL = "Qwen/Qwen3-4B-Instruct-2507"


def model(name: str = "agent") -> art.TrainableModel[None]:
    return art.TrainableModel(name=name, project="p", base_model=BASE_MODEL)


def test_making_a_backend_loads_nothing_heavy() -> None:
    code = """
        import sys
        before = set(sys.modules)
        from art.tinker import TinkerBackend
        TinkerBackend()
        print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
    """
    loaded = set(run_python(code).stdout.split())
    assert "art" in loaded
    heavy = {"tinker", "openai", "pydantic", "numpy", "transformers", "fastapi", "typing", "yaml"}
    assert not loaded & heavy


def test_a_missing_sdk_names_its_extra(tmp_path: Path) -> None:
    # Without site-packages, and with lazy_loader alone: the SDK is not hidden but absent.
    (tmp_path / "lazy_loader").symlink_to(Path(lazy_loader.__file__).parent)
    code = """
        import art.tinker
        try:
            art.tinker.TinkerService
        except art.errors.MissingExtraError as error:
            print(error)
    """
    root = Path(art.__file__).parent.parent
    search_path = os.pathsep.join([str(root), str(tmp_path)])
    result = run_python(code, flags=("-S",), env={"PYTHONPATH": search_path}, inherit_env=False)
    assert 'pip install "art-rl[tinker]"' in result.stdout


async def test_a_service_is_made_without_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TINKER_API_KEY", raising=False)
    async with TinkerBackend(path=tmp_path) as backend:
        service = await backend._get_service(model())
        assert isinstance(service, TinkerService)
        assert await backend._get_service(model()) is service
        assert await backend._get_service(model("other")) is not service
        assert await backend.get_step(model()) == 0
        with pytest.raises(MissingAPIKeyError, match=r"TINKER_API_KEY.*LocalBackend"):
            await service.start_openai_server(None)


async def test_a_given_key_and_address_precede_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "tml-from-environment")
    assert await TinkerBackend()._connect("m") == Connection(None, "tml-from-environment")
    given = TinkerBackend(tinker_api_key="tml-given", base_url="http://x")
    connection = await given._connect("m")
    assert connection == Connection("http://x", "tml-given")
    assert os.environ["TINKER_API_KEY"] == "tml-from-environment"
    assert "tml-given" not in repr(connection)


async def test_registering_writes_model_json_without_keys(tmp_path: Path) -> None:
    prompted = art.Model(
        name="gpt", project="p", inference_api_key="sk-x", inference_base_url="http://x"
    )
    backend = TinkerBackend(path=tmp_path)
    await prompted.register(backend)
    text = (tmp_path / "p" / "models" / "gpt" / "model.json").read_text()
    assert '"name": "gpt"' in text
    assert "sk-x" not in text
    assert prompted.base_path == str(tmp_path)
    assert prompted.get_inference_name() == "gpt"


def test_the_adapter_comes_from_the_completed_config() -> None:
    from art.dev.get_model_config import get_model_config
    from art.tinker.adapter_config import training_client_args

    config = get_model_config(
        BASE_MODEL,
        "",
        {
            "peft_args": {"r": 16, "random_state": 1},
            "tinker_args": {"training_client_args": {"train_mlp": False}},
        },
    )
    assert training_client_args(config) == {
        "rank": 16,
        "seed": 1,
        "train_attn": True,
        "train_mlp": False,
        "train_unembed": False,
    }
    with pytest.raises(ConfigurationError, match="get_model_config"):
        training_client_args({"peft_args": {"r": 4}})


async def test_the_names_that_art_gave_the_methods_of_a_backend_work(tmp_path: Path) -> None:
    async with TinkerBackend(path=tmp_path) as backend:
        assert await backend._get_step(model()) == 0
        assert backend._model_inference_name(model()) == "agent@0"


async def test_a_model_that_another_backend_trains_is_refused_before_its_files_change(
    tmp_path: Path,
) -> None:
    async with TinkerBackend(path=tmp_path) as first, TinkerBackend(path=tmp_path) as second:
        await first.register(model())
        await first.register(model())
        text = (tmp_path / "p" / "models" / "agent" / "model.json").read_text()
        other = art.TrainableModel(name="agent", project="p", base_model="another")
        with pytest.raises(ModelInUseError, match="another backend of this process"):
            await second.register(other)
        assert (tmp_path / "p" / "models" / "agent" / "model.json").read_text() == text
        await second.register(model("other"))
        assert await second.get_step(model()) == 0
        await first.close()
        await second.register(other)


async def test_a_prompted_model_is_nobodys_own(tmp_path: Path) -> None:
    prompted = art.Model(name="gpt", project="p")
    async with TinkerBackend(path=tmp_path) as first, TinkerBackend(path=tmp_path) as second:
        await prompted.register(first)
        await prompted.register(second)


async def test_a_registration_that_fails_leaves_the_model_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TINKER_API_KEY", raising=False)
    failed = TinkerBackend(path=tmp_path)
    with pytest.raises(MissingAPIKeyError):
        await model().register(failed)
    async with TinkerBackend(path=tmp_path) as backend:
        await backend.register(model())


async def test_leftovers_of_a_killed_process_are_removed_when_the_model_is_taken_on(
    tmp_path: Path,
) -> None:
    checkpoints = tmp_path / "p" / "models" / "agent" / "checkpoints"
    for name in (".tmp-0123", "0001", "notes"):
        (checkpoints / name).mkdir(parents=True)
        (checkpoints / name / "info.yaml").write_text("x")
    async with TinkerBackend(path=tmp_path) as backend:
        assert await backend.get_step(model()) == 1
        assert (checkpoints / ".tmp-0123").exists()
        await backend.register(model())
    assert sorted(os.listdir(checkpoints)) == ["0001", "notes"]


async def test_a_model_folder_that_cannot_be_written_to_is_an_error_of_art(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("a file")
    async with TinkerBackend(path=tmp_path) as backend:
        for each in (model(), art.Model(name="gpt", project="p")):
            with pytest.raises(CheckpointError, match="folder"):
                await backend.register(each)
