"""Models that are sharded over processes: one launch for each number of them, many checks."""

import re

import pytest
import torch
from safetensors.torch import load_file

from .conftest import Measure
from .mesh_launch import MeshRuns
from .meshes import REFUSED, RUNS, TRAINED, Run
from .test_weights import assert_same, tensors


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_logits_equal_those_of_transformers(
    mesh_runs: MeshRuns, measure: Measure, run: Run
) -> None:
    measured = mesh_runs.measured(run)
    measure(run.case, "logits", measured["logits"])
    assert measured["logits"] <= 1e-5
    assert measured["logprobs"] <= 1e-5


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_an_unchanged_model_is_saved_bit_for_bit(mesh_runs: MeshRuns, run: Run) -> None:
    saved = mesh_runs.output(run) / "saved"
    assert_same(tensors(saved), tensors(mesh_runs.case(run.case) / "base"))


@pytest.mark.parametrize("run", TRAINED, ids=str)
def test_new_adapters_do_not_change_the_logits(mesh_runs: MeshRuns, run: Run) -> None:
    assert mesh_runs.measured(run)["unchanged"] is True


@pytest.mark.parametrize("run", TRAINED, ids=str)
def test_only_adapters_are_trained_and_weights_keep_their_memory(
    mesh_runs: MeshRuns, run: Run
) -> None:
    assert mesh_runs.measured(run)["only adapters trained"] is True
    assert mesh_runs.measured(run)["base kept"] is True


@pytest.mark.parametrize("run", TRAINED, ids=str)
def test_adapted_logits_equal_those_of_peft(
    mesh_runs: MeshRuns, measure: Measure, run: Run
) -> None:
    difference = mesh_runs.measured(run)["adapted logits"]
    measure(run.case, "adapted logits", difference)
    assert difference <= 1e-5


@pytest.mark.parametrize("run", TRAINED, ids=str)
def test_gradients_equal_those_of_peft(mesh_runs: MeshRuns, measure: Measure, run: Run) -> None:
    difference = mesh_runs.measured(run)["gradients"]
    measure(run.case, "gradients", difference)
    assert difference <= 1e-5


@pytest.mark.parametrize("run", TRAINED, ids=str)
def test_ranks_that_hold_the_same_matrix_hold_the_same_gradient(
    mesh_runs: MeshRuns, run: Run
) -> None:
    assert mesh_runs.measured(run)["spread"] == 0.0


@pytest.mark.parametrize("run", TRAINED, ids=str)
def test_training_equals_that_of_peft(mesh_runs: MeshRuns, measure: Measure, run: Run) -> None:
    """Steps of Adam on gradients of two microbatches, through megatron's own schedules."""
    measured = mesh_runs.measured(run)
    measure(run.case, "losses", measured["losses"])
    measure(run.case, "trained logits", measured["trained logits"])
    assert measured["losses"] <= 1e-5
    assert measured["trained logits"] <= 1e-4


@pytest.mark.parametrize("case", dict.fromkeys(run.case for run in TRAINED))
def test_training_with_peft_changes_the_logits(mesh_runs: MeshRuns, case: str) -> None:
    """Otherwise the test above would show nothing."""
    reference = load_file(mesh_runs.case(case) / "peft.safetensors")
    assert (reference["trained logits"] - reference["logits"]).abs().max() > 0.05
    assert torch.all(reference["losses"].diff() < 0)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_a_mesh_cannot_shard_is_refused(mesh_runs: MeshRuns, name: str) -> None:
    message = mesh_runs.of(4)["refused"][name]
    assert re.search(REFUSED[name].message, message), message
