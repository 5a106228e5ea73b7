"""Loading and saving of checkpoints, and every fault that is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from art.errors import CheckpointError
from art.megatron.weights.checkpoint import CheckpointReader

from .file_size import no_file_larger_than
from .tiny_models import CASES, hf_config, save

if TYPE_CHECKING:
    from megatron.core.models.gpt import GPTModel

    from art.megatron.weights.mapping import WeightMapping


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Saves the checkpoint of a case, of several files."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def of(name: str) -> Path:
        if not (folder / name).exists():
            save(name, folder / name)
        return folder / name

    return of


def tensors(folder: Path) -> dict[str, Tensor]:
    read: dict[str, Tensor] = {}
    for path in folder.glob("*.safetensors"):
        read |= load_file(path)
    return read


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype, name
        assert torch.equal(ours[name], theirs[name]), name


def built(name: str, dtype: torch.dtype = torch.float32) -> tuple["GPTModel", "WeightMapping"]:
    """Build an uninitialised model of a case, and its mapping."""
    from art.megatron.models.build import build_model, transformer_config

    handler = CASES[name].handler
    architecture = handler.read_config(hf_config(name))
    model = build_model(architecture, transformer_config(architecture, dtype=dtype))
    return model, handler.weight_mapping(architecture)


def load(
    name: str, folder: Path, dtype: torch.dtype = torch.float32
) -> tuple["GPTModel", "WeightMapping"]:
    from art.megatron.weights.load import load_weights

    model, mapping = built(name, dtype)
    load_weights(model, mapping, folder)
    return model, mapping


def round_trip(name: str, source: Path, target: Path, **options: int) -> dict[str, Tensor]:
    from art.megatron.weights.save import save_checkpoint

    model, mapping = load(name, source)
    save_checkpoint(model, mapping, target, source=source, **options)
    return tensors(target)


@pytest.mark.parametrize("name", CASES)
def test_an_unchanged_model_is_saved_bit_for_bit(
    checkpoints: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    source = checkpoints(name)
    assert_same(round_trip(name, source, tmp_path / "out"), tensors(source))
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == json.loads(
        (source / "config.json").read_text()
    )
    model = CASES[name].model_class.from_pretrained(tmp_path / "out")
    assert_same(model.state_dict(), CASES[name].model_class.from_pretrained(source).state_dict())


@pytest.mark.parametrize("limit", [1, 30_000, 10**9])
def test_files_stay_below_the_maximum_size(
    checkpoints: Callable[[str], Path], tmp_path: Path, limit: int
) -> None:
    source, target = checkpoints("qwen3_dense"), tmp_path / "out"
    assert_same(round_trip("qwen3_dense", source, target, max_file_bytes=limit), tensors(source))
    files = list(target.glob("*.safetensors"))
    assert all(
        sum(tensor.nbytes for tensor in held.values()) <= limit or len(held) == 1
        for held in map(load_file, files)
    )
    if limit == 10**9:
        assert [file.name for file in files] == ["model.safetensors"]
    else:
        index = json.loads((target / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == {file.name for file in files}
        total = sum(tensor.nbytes for tensor in tensors(source).values())
        assert index["metadata"]["total_size"] == total


@pytest.mark.parametrize("name", ["qwen3_moe", "qwen3_5_moe"])
@pytest.mark.parametrize("stacked", [True, False])
def test_experts_are_read_stacked_or_one_by_one(
    checkpoints: Callable[[str], Path], tmp_path: Path, name: str, stacked: bool
) -> None:
    """Both are published; a model is saved in the layout of its source."""
    one_by_one = tensors(checkpoints(name))
    source = tmp_path / "source"
    shutil.copytree(checkpoints(name), source, ignore=shutil.ignore_patterns("model*"))
    model = CASES[name].model_class.from_pretrained(checkpoints(name))
    together = dict(model.state_dict())
    assert any(key.endswith("experts.gate_up_proj") for key in together)
    save_file(together if stacked else one_by_one, source / "model.safetensors")
    target = round_trip(name, source, tmp_path / "out")
    assert_same(target, together if stacked else one_by_one)


def test_a_tied_checkpoint_may_also_have_the_output_layer(
    checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    """As Qwen3-0.6B's does."""
    source = tmp_path / "source"
    shutil.copytree(checkpoints("qwen3_dense_tied"), source, ignore=shutil.ignore_patterns("mod*"))
    held = tensors(checkpoints("qwen3_dense_tied"))
    held["lm_head.weight"] = held["model.embed_tokens.weight"].clone()
    save_file(held, source / "model.safetensors")
    assert_same(round_trip("qwen3_dense_tied", source, tmp_path / "out"), held)
    held["lm_head.weight"][96, 0] += 1
    save_file(held, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs"):
        load("qwen3_dense_tied", source)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_float32_model_is_saved_in_the_dtype_of_its_source(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    source = tmp_path / "source"
    save("llama3_dense", source)
    halves = {name: tensor.to(dtype) for name, tensor in tensors(source).items()}
    for path in source.glob("model*"):
        path.unlink()
    save_file(halves, source / "model.safetensors")
    assert_same(round_trip("llama3_dense", source, tmp_path / "out"), halves)


def without(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda held: held.pop(name)


def changed(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], object]:
    return lambda held: held.__setitem__(name, change(held[name]))


Q = "model.layers.1.self_attn.q_proj.weight"
BAD_TENSORS: list[tuple[Callable[[dict[str, Tensor]], object], str]] = [
    (without(Q), f"lacks tensors.*{Q}"),
    (lambda held: held.__setitem__("model.layers.2.mlp.extra", torch.ones(1)), "mlp.extra"),
    (changed(Q, lambda q: q[:-10].contiguous()), rf"{Q} is \[74, 60\].*calls for \[84, 60\]"),
    (changed(Q, lambda q: q.T.contiguous()), rf"{Q} is \[60, 84\]"),
    (changed(Q, lambda q: q.to(torch.int8)), "dtype I8"),
    (changed(Q, lambda q: q.to(torch.float8_e4m3fn)), "dtype F8_E4M3"),
]


@pytest.mark.parametrize(("break_it", "message"), BAD_TENSORS)
def test_tensors_that_do_not_fit_are_named(
    checkpoints: Callable[[str], Path],
    tmp_path: Path,
    break_it: Callable[[dict[str, Tensor]], object],
    message: str,
) -> None:
    held = tensors(checkpoints("qwen3_dense"))
    break_it(held)
    save_file(held, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load("qwen3_dense", tmp_path)


def test_many_missing_tensors_are_counted(
    checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    save_file({"model.norm.weight": torch.ones(60)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks tensors.* and \d+ more"):
        load("qwen3_dense", tmp_path)


def test_the_checkpoint_of_another_family_is_refused(checkpoints: Callable[[str], Path]) -> None:
    with pytest.raises(CheckpointError, match="lacks tensors"):
        load("qwen3_dense", checkpoints("qwen3_moe"))


def truncate(folder: Path) -> None:
    file = max(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-100])


def remove_a_file(folder: Path) -> None:
    next(folder.glob("*.safetensors")).unlink()


def rewrite_index(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(text)


def send_in_index(folder: Path, tensor: str, *, file: str | None = None) -> None:
    """Let the index name another file for a tensor: by default one that does not hold it."""
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    others = sorted(set(index["weight_map"].values()) - {index["weight_map"][tensor]})
    index["weight_map"][tensor] = file or others[0]
    path.write_text(json.dumps(index))


def test_the_index_says_which_file_holds_a_tensor(
    checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    """A copy that the index does not name, such as the one before an overlay, is not read."""
    folder, name = tmp_path / "overlaid", "model.norm.weight"
    shutil.copytree(checkpoints("qwen3_dense"), folder)
    with CheckpointReader(folder) as reader:
        old = reader.read(name)
    save_file({name: old + 1, "stale": old}, folder / "overlay.safetensors")
    send_in_index(folder, name, file="overlay.safetensors")
    with CheckpointReader(folder) as reader:
        assert torch.equal(reader.read(name), old + 1)
        assert "stale" not in reader.names


BAD_FILES: list[tuple[Callable[[Path], object], str]] = [
    (truncate, "cut short"),
    (lambda folder: next(folder.glob("*.safetensors")).write_bytes(b""), "cut short"),
    (remove_a_file, "is missing"),
    (lambda folder: (folder / "model.safetensors.index.json").unlink(), "neither"),
    (rewrite_index("{"), "not an index"),
    (rewrite_index("{}"), "not an index"),
    (rewrite_index('{"weight_map": {"a": "../model.safetensors"}}'), "outside"),
    (rewrite_index('{"weight_map": {}}'), "names no files"),
    (lambda folder: send_in_index(folder, "model.norm.weight"), "has no model.norm.weight"),
]


@pytest.mark.parametrize(("break_it", "message"), BAD_FILES)
def test_broken_files_are_named(
    checkpoints: Callable[[str], Path],
    tmp_path: Path,
    break_it: Callable[[Path], object],
    message: str,
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(checkpoints("qwen3_dense"), folder)
    break_it(folder)
    with pytest.raises(CheckpointError, match=message):
        load("qwen3_dense", folder)


def test_a_folder_that_exists_is_not_overwritten(
    checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    source = checkpoints("qwen3_dense")
    with pytest.raises(CheckpointError, match="exists already"):
        round_trip("qwen3_dense", source, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [1000, 60_000])
def test_a_save_that_fails_leaves_nothing(
    checkpoints: Callable[[str], Path], tmp_path: Path, limit: int
) -> None:
    """Neither in its first file nor in a later one."""
    from art.megatron.weights.save import save_checkpoint

    source = checkpoints("qwen3_dense")
    model, mapping = load("qwen3_dense", source)
    with no_file_larger_than(limit), pytest.raises(CheckpointError, match=r"not written: .*large"):
        save_checkpoint(
            model, mapping, tmp_path / "out", source=source, max_file_bytes=limit + 20_000
        )
    assert list(tmp_path.iterdir()) == []


def test_read_only_files_of_the_source_are_copied(
    checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(checkpoints("qwen3_dense"), source)
    for path in source.iterdir():
        path.chmod(0o444)
    round_trip("qwen3_dense", source, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_bytes() == (source / "config.json").read_bytes()
