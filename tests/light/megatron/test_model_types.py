"""Families known by architecture: by the ``model_type`` in a model's ``config.json`` on disk."""

import json
from pathlib import Path

import pytest

from art.errors import CheckpointError, UnsupportedModelArchitectureError
from art.megatron.model_support import (
    DEFAULT_DENSE_SPEC,
    ModelSupportSpec,
    default_target_modules_for_model,
    get_model_support_spec,
    is_model_support_registered,
    list_model_support_specs,
    model_requires_merged_rollout,
    model_uses_expert_parallel,
    native_vllm_lora_status_for_model,
)

from .conftest import Site

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL_TYPES = [
    (model_type, spec) for spec in list_model_support_specs() for model_type in spec.model_types
]


def save_config(folder: Path, config: object) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def cache_config(hub: Path, name: str, config: object, *, commit: str = COMMIT) -> Path:
    """Write a config as huggingface_hub caches it; return its folder."""
    repository = hub / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    save_config(snapshot, config)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    return snapshot


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize(("model_type", "spec"), MODEL_TYPES, ids=[name for name, _ in MODEL_TYPES])
def test_a_local_folder_answers_every_question_as_its_family_does(
    tmp_path: Path, model_type: str, spec: ModelSupportSpec
) -> None:
    folder = save_config(tmp_path, {"model_type": model_type, "architectures": ["Whatever"]})
    assert get_model_support_spec(folder) is spec
    assert get_model_support_spec(folder, allow_unvalidated_arch=True) is spec
    assert is_model_support_registered(folder)
    assert default_target_modules_for_model(folder) == list(spec.default_target_modules)
    assert model_uses_expert_parallel(folder) is spec.is_moe
    assert native_vllm_lora_status_for_model(folder) == spec.native_vllm_lora_status
    assert model_requires_merged_rollout(folder) is False


def test_the_vision_config_of_a_checkpoint_does_not_hide_its_family(tmp_path: Path) -> None:
    config = {
        "model_type": "qwen3_5_moe",
        "text_config": {"model_type": "qwen3_5_moe_text"},
        "vision_config": {"model_type": "qwen3_5_moe"},
    }
    assert get_model_support_spec(save_config(tmp_path, config)).key == "qwen3_5_moe"


def test_no_two_families_read_the_same_model_type() -> None:
    assert len(dict(MODEL_TYPES)) == len(MODEL_TYPES)


def test_a_folder_may_be_relative_or_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_config(tmp_path / "my" / "fine-tune", {"model_type": "gpt_oss"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for name in ("my/fine-tune", "./my/fine-tune", "~/my/fine-tune"):
        assert get_model_support_spec(name).key == "gpt_oss"


def test_a_registered_name_needs_no_file(hub: Path) -> None:
    cache_config(hub, "Qwen/Qwen3-8B", {"model_type": "gpt_oss"})
    assert get_model_support_spec("Qwen/Qwen3-8B").key == "qwen3_dense"


def test_a_fine_tune_in_the_hubs_cache_is_known_by_its_config(hub: Path) -> None:
    cache_config(hub, "acme/my-qwen", {"model_type": "qwen3"})
    assert get_model_support_spec("acme/my-qwen").key == "qwen3_dense"
    assert is_model_support_registered("acme/my-qwen")


def test_the_main_branch_of_the_hubs_cache_takes_precedence(hub: Path) -> None:
    cache_config(hub, "acme/model", {"model_type": "qwen3"}, commit="b" * 40)
    cache_config(hub, "acme/model", {"model_type": "llama"}, commit="c" * 40)
    assert get_model_support_spec("acme/model").key == "llama3_dense"


def test_a_model_that_was_downloaded_by_its_commit_is_known(hub: Path) -> None:
    snapshot = cache_config(hub, "acme/model", {"model_type": "llama"})
    (snapshot.parents[1] / "refs" / "main").unlink()
    assert get_model_support_spec("acme/model").key == "llama3_dense"


@pytest.mark.parametrize("fault", ["no config", "a link to nothing", "no snapshot"])
def test_a_download_without_a_config_is_as_if_it_were_not_there(hub: Path, fault: str) -> None:
    config = cache_config(hub, "acme/model", {"model_type": "llama"}) / "config.json"
    config.unlink()
    if fault == "a link to nothing":
        config.symlink_to(config.with_name("absent"))
    if fault == "no snapshot":
        config.parent.rmdir()
    assert not is_model_support_registered("acme/model")
    with pytest.raises(UnsupportedModelArchitectureError, match="not a model that"):
        get_model_support_spec("acme/model")
    assert get_model_support_spec("acme/model", allow_unvalidated_arch=True) is DEFAULT_DENSE_SPEC


CACHES: dict[str, dict[str, str]] = {
    "by default": {},
    "HF_HUB_CACHE": {"HF_HUB_CACHE": "{0}/a"},
    "HUGGINGFACE_HUB_CACHE": {"HUGGINGFACE_HUB_CACHE": "{0}/b", "HF_HOME": "{0}/c"},
    "HF_HOME": {"HF_HOME": "{0}/d", "XDG_CACHE_HOME": "{0}/e"},
    "XDG_CACHE_HOME": {"XDG_CACHE_HOME": "{0}/f"},
    "a variable inside": {"ROOT": "{0}/g", "HF_HOME": "$ROOT/h"},
    "the home inside": {"HF_HUB_CACHE": "~/i"},
}


@pytest.mark.parametrize("variables", CACHES.values(), ids=CACHES)
def test_the_cache_is_where_huggingface_hub_has_it(
    site: Site, tmp_path: Path, variables: dict[str, str]
) -> None:
    pytest.importorskip("huggingface_hub")
    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
    environment = {name: value.format(tmp_path) for name, value in variables.items()}
    # The reference is huggingface_hub itself, which finds the file that was cached.
    printed = site.python(
        f"""
        import os
        for name in {names!r}:
            if name not in {environment!r}:
                os.environ.pop(name, None)
        from huggingface_hub import constants, try_to_load_from_cache
        from tests.light.megatron.test_model_types import cache_config
        from pathlib import Path
        cache_config(Path(constants.HF_HUB_CACHE), "acme/model", {{"model_type": "qwen3"}})
        print(try_to_load_from_cache("acme/model", "config.json"))
        from art.megatron.model_support.config_json import find_config
        print(find_config("acme/model"))
        """,
        environment={**environment, "HOME": str(tmp_path / "home")},
    )
    theirs, ours = printed.splitlines()
    assert theirs == ours


@pytest.mark.parametrize("name", ["", "/", "acme/../model", "a/b/c", "acme/model\0", "\\", "."])
def test_odd_names_are_refused_as_unknown(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UnsupportedModelArchitectureError, CheckpointError)):
        get_model_support_spec(name)


@pytest.mark.parametrize(
    ("model_type", "near"),
    [
        ("qwen4", "'qwen3' (qwen3_dense)"),
        ("Qwen3_MoE", "'qwen3_moe' (qwen3_moe)"),
        ("qwen3_next_moe", "'qwen3_moe' (qwen3_moe)"),
        ("llama4", "'llama' (llama3_dense)"),
        ("deepseek_v3", "'gpt_oss' (gpt_oss)"),  # nothing is near, so that all are listed
    ],
)
def test_an_unknown_architecture_is_refused_with_the_nearest_families(
    tmp_path: Path, model_type: str, near: str
) -> None:
    folder = save_config(tmp_path, {"model_type": model_type})
    with pytest.raises(UnsupportedModelArchitectureError) as raised:
        get_model_support_spec(folder)
    message = str(raised.value)
    assert f"has the model_type {model_type!r} ({folder}" in message
    assert near in message
    assert "docs/add-a-model-family.md" in message
    assert not is_model_support_registered(folder)
    assert get_model_support_spec(folder, allow_unvalidated_arch=True) is DEFAULT_DENSE_SPEC


@pytest.mark.parametrize(
    "model_type", sorted(set(DEFAULT_DENSE_SPEC.model_types) - dict(MODEL_TYPES).keys())
)
def test_an_architecture_that_the_default_reads_is_used_only_when_asked_for(
    tmp_path: Path, model_type: str
) -> None:
    folder = save_config(tmp_path, {"model_type": model_type})
    with pytest.raises(UnsupportedModelArchitectureError, match="pass allow_unvalidated_arch=True"):
        get_model_support_spec(folder)
    assert get_model_support_spec(folder, allow_unvalidated_arch=True) is DEFAULT_DENSE_SPEC


DAMAGED: dict[str, tuple[bytes, str]] = {
    "cut short": (b'{"model_type": "qw', "is damaged: it is not JSON"),
    "empty": (b"", "is damaged: it is not JSON"),
    "no text": (b"\xff\xfe\x00", "is damaged: it is not JSON"),
    "nested without end": (b"[" * 100_000, "is damaged: it is not JSON"),
    "a list": (b"[]", "holds a list; it must be a JSON object"),
    "without a model_type": (b'{"hidden_size": 8}', "has model_type None; it must name"),
    "with a number": (b'{"model_type": 3}', "has model_type 3; it must name"),
    "with an empty name": (b'{"model_type": ""}', "has model_type ''; it must name"),
}


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_config_is_an_error_that_names_the_file(
    tmp_path: Path, content: bytes, message: str, allow: bool
) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError) as raised:
        get_model_support_spec(str(tmp_path), allow_unvalidated_arch=allow)
    assert str(tmp_path / "config.json") in str(raised.value)
    assert message in str(raised.value)


def test_a_folder_without_a_config_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a folder without config\.json") as raised:
        get_model_support_spec(str(tmp_path))
    assert str(tmp_path) in str(raised.value)
