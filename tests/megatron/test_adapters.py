"""Export and import of adapters as PEFT folders, from any ranks to any others."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from art.errors import AdapterFormatError, CheckpointError
from art.megatron.model_support import ModelSupportHandler, handlers

from .adapter_models import adapted_model
from .adapter_reference import BASE_MODEL, RANK, as_exported, peft_logits, peft_model
from .conftest import Measure
from .file_size import no_file_larger_than
from .mesh_launch import MeshRuns
from .meshes import TRAINED, Run, runs_of
from .tiny_models import CASES, hf_config, hf_model, save

if TYPE_CHECKING:
    from megatron.core.models.gpt import GPTModel

ADAPTED = [name for name, case in CASES.items() if case.adapted]


def _tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def _config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text())


@pytest.mark.parametrize("run", TRAINED, ids=str)
def test_what_was_imported_is_exported_bit_for_bit(mesh_runs: MeshRuns, run: Run) -> None:
    """So an adapter can move from any ranks to any others."""
    imported = as_exported(_tensors(mesh_runs.case(run.case) / "peft"), run.case)
    assert _same(_tensors(mesh_runs.output(run) / "imported"), imported)


@pytest.mark.parametrize("run", TRAINED, ids=str)
def test_peft_loads_a_trained_adapter_and_computes_the_same(
    mesh_runs: MeshRuns, measure: Measure, run: Run
) -> None:
    folder, output = mesh_runs.case(run.case), mesh_runs.output(run)
    megatron = load_file(output / "trained_logits.safetensors")["logits"]
    before = load_file(folder / "base.safetensors")
    peft = peft_logits(hf_model(run.case), output / "trained", before["tokens"])
    assert (peft - before["logits"]).abs().max() > 0.03
    difference = (peft - megatron[..., : peft.shape[-1]]).abs().max().item()
    measure(run.case, "exported", difference)
    assert difference <= 1e-5


@pytest.mark.parametrize("case", ADAPTED)
def test_adapters_start_the_same_on_any_ranks(mesh_runs: MeshRuns, case: str) -> None:
    first, *others = [_tensors(mesh_runs.output(run) / "fresh") for run in runs_of(case)]
    assert len(others) > 3
    assert all(_same(other, first) for other in others)


@pytest.mark.parametrize("case", ADAPTED)
def test_adapters_start_as_those_of_peft_do(mesh_runs: MeshRuns, case: str) -> None:
    fresh = _tensors(mesh_runs.output(runs_of(case)[0]) / "fresh")
    for name, tensor in fresh.items():
        assert tensor.dtype is torch.float32
        if name.endswith("lora_B.weight"):
            assert not tensor.any()
        else:
            # Uniform between the bounds: of so many numbers, some are near to both.
            bound = tensor.shape[1] ** -0.5
            assert 0.9 * bound < tensor.abs().max() <= bound
            assert tensor.std() == pytest.approx(bound / 3**0.5, rel=0.25)
    of_a = [tensor for name, tensor in fresh.items() if name.endswith("lora_A.weight")]
    assert len({tuple(tensor.flatten().tolist()) for tensor in of_a}) == len(of_a)


@pytest.mark.parametrize("case", ADAPTED)
def test_vllm_tensors_are_those_of_peft_and_can_be_converted_back(
    mesh_runs: MeshRuns, case: str
) -> None:
    """vLLM's names differ from PEFT's only if it serves the decoder of a vision model."""
    output = mesh_runs.output(runs_of(case)[0])
    trained = load_file(output / "as_trained.safetensors")
    exported = _tensors(output / "imported")
    handler = CASES[case].handler
    heads = {key: getattr(hf_config(case), key) for key in _HEADS}
    config = _config(output / "imported") | heads
    vllm, vllm_config = handler.to_vllm_lora_tensors(trained, adapter_config=config)
    assert vllm_config["r"] == RANK
    if "qwen3_5" in case:
        exported = {
            name.replace(".model.layers.", ".model.language_model.layers."): tensor
            for name, tensor in exported.items()
        }
    assert _same(vllm, exported)
    assert _same(handler.from_vllm_lora_tensors(vllm, adapter_config=vllm_config), trained)


_HEADS = ("num_attention_heads", "num_key_value_heads")


def _same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[name], tensor) for name, tensor in right.items()
    )


def test_an_adapter_whose_experts_share_the_a_of_gate_and_up_is_imported(tmp_path: Path) -> None:
    reference = save("qwen3_moe", tmp_path / "base")
    model = adapted_model("qwen3_moe", ("q_proj", "v_proj", "experts"), base=tmp_path / "base")
    peft = peft_model(reference, "qwen3_moe", shared=True)
    peft.save_pretrained(str(tmp_path / "adapter"))
    _load(model, tmp_path / "adapter", handlers.QWEN3_MOE_HANDLER)
    tokens = torch.randint(97, (2, 7))
    with torch.no_grad():
        ours = model(tokens, torch.arange(7).expand(2, -1), None)
        assert (ours - peft(input_ids=tokens).logits).abs().max() <= 1e-5
        with peft.disable_adapter():
            assert (ours - peft(input_ids=tokens).logits).abs().max() > 0.01


def test_experts_that_mix_gate_and_up_are_refused(mesh_runs: MeshRuns, tmp_path: Path) -> None:
    shutil.copytree(mesh_runs.case("qwen3_moe") / "peft", tmp_path / "adapter")
    name = "base_model.model.model.layers.1.mlp.experts.base_layer.lora_B.weight"
    _change_tensors(tmp_path / "adapter", lambda tensors: tensors[name].fill_(1.0))
    with pytest.raises(AdapterFormatError, match=r"layers.1.mlp.experts.*mixes gate and up"):
        _load(adapted_model("qwen3_moe"), tmp_path / "adapter", handlers.QWEN3_MOE_HANDLER)


@pytest.fixture
def folder(mesh_runs: MeshRuns, tmp_path: Path) -> Path:
    """A copy of the PEFT folder of ``qwen3_dense``, which a test may damage."""
    copy = tmp_path / "adapter"
    shutil.copytree(mesh_runs.case("qwen3_dense") / "peft", copy)
    return copy


@pytest.fixture
def adapted() -> "GPTModel":
    """A model of ``qwen3_dense`` with an adapter, on this process alone."""
    return adapted_model("qwen3_dense")


_Q = "base_model.model.model.layers.1.self_attn.q_proj.lora_{}.weight"


def _load(model: "GPTModel", folder: Path, handler: ModelSupportHandler | None = None) -> None:
    from art.megatron.adapters.peft import import_adapter

    handler = handler or handlers.QWEN3_DENSE_HANDLER
    import_adapter(model, handler, folder, base_model=BASE_MODEL)


def _trained(model: "GPTModel") -> dict[str, Tensor]:
    return {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}


def _change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = _tensors(folder)
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


def _change_config(folder: Path, **changes: object) -> None:
    config = _config(folder) | changes
    (folder / "adapter_config.json").write_text(json.dumps(config))


BAD_TENSORS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (lambda t: t.pop(_Q.format("B")), "lacks tensors.*layers.1.self_attn.q_proj.lora_B"),
    "extra": (
        lambda t: t.update({"base_model.model.lm_head.lora_A.weight": torch.zeros(3, 60)}),
        "has tensors.*lm_head.lora_A",
    ),
    "wide": (
        lambda t: t.update({_Q.format("A"): torch.zeros(3, 61)}),
        r"layers.1.self_attn.q_proj.lora_A.weight is \[3, 61\].*\[3, 60\]",
    ),
    "rank": (
        lambda t: t.update({_Q.format("B"): torch.zeros(84, 4)}),
        r"layers.1.self_attn.q_proj.lora_B.weight is \[84, 4\].*\[84, 3\]",
    ),
    "vector": (lambda t: t.update({_Q.format("A"): torch.zeros(180)}), r"is \[180\]"),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_tensors_that_do_not_fit_are_named(adapted: "GPTModel", folder: Path, name: str) -> None:
    change, message = BAD_TENSORS[name]
    _change_tensors(folder, change)
    before = _trained(adapted)
    with pytest.raises(AdapterFormatError, match=message):
        _load(adapted, folder)
    assert all(torch.equal(before[key], value) for key, value in _trained(adapted).items())


BAD_CONFIGS: list[tuple[dict[str, object], str]] = [
    ({"r": 8}, "rank 8"),
    ({"r": None}, "rank None"),
    ({"lora_alpha": 6}, "alpha 6"),
    ({"base_model_name_or_path": "tiny/other"}, "'tiny/other', but the model is 'tiny/base'"),
    ({"use_rslora": True}, "use_rslora"),
    ({"use_dora": True}, "use_dora"),
    ({"bias": "all"}, "bias"),
    ({"peft_type": "IA3"}, "peft_type"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
    ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern"),
    ({"a_later_option": 1}, "a_later_option"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_CONFIGS)
def test_an_adapter_of_another_kind_is_refused(
    adapted: "GPTModel", folder: Path, changes: dict[str, object], message: str
) -> None:
    _change_config(folder, **changes)
    with pytest.raises(AdapterFormatError, match=message):
        _load(adapted, folder)


def test_an_adapter_of_another_model_is_refused(folder: Path) -> None:
    with pytest.raises(AdapterFormatError, match=r"self_attn.\w_proj.lora_.*is \[\d+, \d+\], but"):
        _load(adapted_model("llama3_dense"), folder, handlers.LLAMA3_DENSE_HANDLER)


def test_an_adapter_of_fewer_modules_is_refused(folder: Path) -> None:
    with pytest.raises(AdapterFormatError, match="has tensors that the model has no adapter for"):
        _load(adapted_model("qwen3_dense", ("q_proj", "v_proj")), folder)


def _cut_short(folder: Path) -> None:
    tensors = folder / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-10])


BROKEN: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "tensors cut short": (_cut_short, CheckpointError, "cut short"),
    "no tensors": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        CheckpointError,
        r"adapter_model\.safetensors is missing",
    ),
    "a list for a config": (
        lambda folder: (folder / "adapter_config.json").write_text("[]"),
        AdapterFormatError,
        "not a JSON object",
    ),
    "a config that is not JSON": (
        lambda folder: (folder / "adapter_config.json").write_text("{"),
        AdapterFormatError,
        "not JSON",
    ),
    "no config": (
        lambda folder: (folder / "adapter_config.json").unlink(),
        CheckpointError,
        "cannot be read",
    ),
}


@pytest.mark.parametrize(("break_it", "error", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_folder_is_refused(
    adapted: "GPTModel",
    folder: Path,
    break_it: Callable[[Path], object],
    error: type[Exception],
    message: str,
) -> None:
    break_it(folder)
    with pytest.raises(error, match=message):
        _load(adapted, folder)


def test_a_folder_that_cannot_be_written_is_an_error(adapted: "GPTModel", tmp_path: Path) -> None:
    from art.megatron.adapters.peft import export_adapter

    (tmp_path / "file").write_text("")
    handler, folder = handlers.QWEN3_DENSE_HANDLER, tmp_path / "file" / "adapter"
    with pytest.raises(CheckpointError, match="cannot be written"):
        export_adapter(adapted, handler, folder, base_model=BASE_MODEL)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_that_fails_leaves_no_folder(adapted: "GPTModel", tmp_path: Path) -> None:
    from art.megatron.adapters.peft import export_adapter

    handler = handlers.QWEN3_DENSE_HANDLER
    with no_file_larger_than(1000), pytest.raises(CheckpointError, match="cannot be written"):
        export_adapter(adapted, handler, tmp_path / "adapter", base_model=BASE_MODEL)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_the_adapter_that_was_there(
    adapted: "GPTModel", folder: Path
) -> None:
    from art.megatron.adapters.peft import export_adapter

    before = _files(folder)
    handler = handlers.QWEN3_DENSE_HANDLER
    with no_file_larger_than(1000), pytest.raises(CheckpointError, match="cannot be written"):
        export_adapter(adapted, handler, folder, base_model=BASE_MODEL)
    assert _files(folder) == before


def test_an_export_replaces_an_adapter_and_keeps_other_files(
    adapted: "GPTModel", folder: Path
) -> None:
    from art.megatron.adapters.peft import export_adapter

    (folder / "README.md").write_text("mine")
    before = _files(folder)
    handler = handlers.QWEN3_DENSE_HANDLER
    export_adapter(adapted, handler, folder, base_model=BASE_MODEL)
    after = _files(folder)
    assert after.keys() == before.keys()
    assert after["README.md"] == b"mine"
    assert after["adapter_model.safetensors"] != before["adapter_model.safetensors"]
    _load(adapted, folder)


def test_some_modules_can_be_adapted_and_others_not(tmp_path: Path) -> None:
    """With PEFT as the judge of what a partial adapter of fused modules means."""
    from art.megatron.adapters.peft import export_adapter

    reference = save("qwen3_dense", tmp_path / "base")
    model = adapted_model("qwen3_dense", ("v_proj", "up_proj"), base=tmp_path / "base")
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.3, generator=generator)
    handler, folder = handlers.QWEN3_DENSE_HANDLER, tmp_path / "adapter"
    export_adapter(model, handler, folder, base_model=BASE_MODEL)
    assert {name.split(".")[-3] for name in _tensors(tmp_path / "adapter")} == {"v_proj", "up_proj"}
    tokens = torch.randint(97, (2, 7))
    with torch.no_grad():
        ours = model(tokens, torch.arange(7).expand(2, -1), None)
    theirs = peft_logits(reference, tmp_path / "adapter", tokens)
    assert (ours - theirs).abs().max() <= 1e-5
