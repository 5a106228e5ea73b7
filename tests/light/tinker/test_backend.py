"""TinkerBackend before it reaches a server."""

import os
from pathlib import Path

import lazy_loader
import pytest

import art
from art.errors import ConfigurationError, MissingAPIKeyError
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
