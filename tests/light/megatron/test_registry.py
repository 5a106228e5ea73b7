"""The registry answers from data, and the data is frozen."""

import copy
import pickle
from collections.abc import Callable

import pytest

from art import errors
from art.megatron.model_support import (
    DEFAULT_DENSE_SPEC,
    GPT_OSS_MODELS,
    GPT_OSS_SPEC,
    LLAMA3_DENSE_MODELS,
    LLAMA3_DENSE_SPEC,
    PROBE_ONLY_MODEL_SUPPORT_SPECS,
    QWEN3_5_DENSE_MODELS,
    QWEN3_5_DENSE_SPEC,
    QWEN3_5_MODELS,
    QWEN3_5_MOE_MODELS,
    QWEN3_5_MOE_SPEC,
    QWEN3_DENSE_MODELS,
    QWEN3_DENSE_SPEC,
    QWEN3_MOE_MODELS,
    QWEN3_MOE_SPEC,
    VALIDATED_MODEL_SUPPORT_SPECS,
    DependencyFloor,
    HandlerMeta,
    LayerFamilyInstance,
    LoraTarget,
    ModelSupportSpec,
    UnsupportedModelArchitectureError,
    default_target_modules_for_model,
    get_model_support_spec,
    is_model_support_registered,
    list_model_support_specs,
    model_requires_merged_rollout,
    model_uses_expert_parallel,
    native_vllm_lora_status_for_model,
    registry,
)
from art.megatron.model_support.spec import Record

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
DENSE = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
GATED_DELTA_NET = ["in_proj_qkv", "in_proj_z", "out_proj"]

# The answers for a published model of each of ART's families, written apart from the registry:
# the family, its target modules in any order, True if it has experts.
ANSWERS = {
    "meta-llama/Llama-3.3-70B-Instruct": ("llama3_dense", DENSE, False),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ("llama3_dense", DENSE, False),
    "Qwen/Qwen3-4B-Instruct-2507": ("qwen3_dense", DENSE, False),
    "Qwen/Qwen3-30B-A3B-Instruct-2507": ("qwen3_moe", [*DENSE, "experts"], True),
    "Qwen/Qwen3.5-27B": ("qwen3_5_dense", [*DENSE, *GATED_DELTA_NET], False),
    "Qwen/Qwen3.5-35B-A3B": ("qwen3_5_moe", [*DENSE, *GATED_DELTA_NET, "experts"], True),
    "openai/gpt-oss-20b": ("gpt_oss", [*ATTENTION, "experts"], True),
}

# The models that openpipe-art 0.5.18 registers: code that names them must go on working.
ART_MODELS = [
    "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen3-30B-A3B-Base",
    "Qwen/Qwen3-30B-A3B-Instruct-2507",
    "Qwen/Qwen3-235B-A22B-Instruct-2507",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-0.6B-Base",
    "Qwen/Qwen3-1.7B",
    "Qwen/Qwen3-1.7B-Base",
    "Qwen/Qwen3-4B",
    "Qwen/Qwen3-4B-Base",
    "Qwen/Qwen3-4B-Instruct-2507",
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-8B-Base",
    "Qwen/Qwen3-14B",
    "Qwen/Qwen3-14B-Base",
    "OpenPipe/Qwen3-14B-Instruct",
    "Qwen/Qwen3-32B",
    "Qwen/Qwen3-32B-Base",
    "Qwen/Qwen3.5-4B",
    "Qwen/Qwen3.5-27B",
    "Qwen/Qwen3.6-27B",
    "Qwen/Qwen3.5-35B-A3B",
    "Qwen/Qwen3.5-397B-A17B",
    "Qwen/Qwen3.6-35B-A3B",
]

ALL_SPECS = [DEFAULT_DENSE_SPEC, *VALIDATED_MODEL_SUPPORT_SPECS]
PUBLISHED = [(name, spec) for spec in ALL_SPECS for name in spec.model_names]


@pytest.mark.parametrize("model", ANSWERS)
def test_a_published_model_is_answered_as_its_family_is(model: str) -> None:
    key, target_modules, is_moe = ANSWERS[model]
    assert get_model_support_spec(model).key == key
    assert sorted(default_target_modules_for_model(model)) == sorted(target_modules)
    assert model_uses_expert_parallel(model) is is_moe
    assert native_vllm_lora_status_for_model(model) == "validated"
    assert model_requires_merged_rollout(model) is False


def test_the_order_of_target_modules_is_that_of_art() -> None:
    assert default_target_modules_for_model("Qwen/Qwen3-4B-Instruct-2507") == DENSE
    moe = default_target_modules_for_model("Qwen/Qwen3-30B-A3B-Instruct-2507")
    assert moe == [*DENSE, "experts"]


def test_target_modules_are_the_callers_own_list() -> None:
    default_target_modules_for_model("Qwen/Qwen3-8B").append("lm_head")
    assert default_target_modules_for_model("Qwen/Qwen3-8B") == DENSE


@pytest.mark.parametrize(("model", "spec"), PUBLISHED, ids=[name for name, _ in PUBLISHED])
def test_every_published_model_is_registered_once(model: str, spec: ModelSupportSpec) -> None:
    assert is_model_support_registered(model)
    assert get_model_support_spec(model) is spec
    assert [name for name, _ in PUBLISHED].count(model) == 1


@pytest.mark.parametrize("model", ART_MODELS)
def test_a_model_that_art_registers_is_registered(model: str) -> None:
    assert is_model_support_registered(model)


# ART's names for its families. A family that art adds has none.
ART_NAMES = [
    ("llama3_dense", LLAMA3_DENSE_SPEC, LLAMA3_DENSE_MODELS),
    ("qwen3_dense", QWEN3_DENSE_SPEC, QWEN3_DENSE_MODELS),
    ("qwen3_moe", QWEN3_MOE_SPEC, QWEN3_MOE_MODELS),
    ("qwen3_5_dense", QWEN3_5_DENSE_SPEC, QWEN3_5_DENSE_MODELS),
    ("qwen3_5_moe", QWEN3_5_MOE_SPEC, QWEN3_5_MOE_MODELS),
    ("gpt_oss", GPT_OSS_SPEC, GPT_OSS_MODELS),
]


@pytest.mark.parametrize(("key", "spec", "models"), ART_NAMES, ids=[key for key, *_ in ART_NAMES])
def test_arts_constants_are_those_of_the_family(
    key: str, spec: ModelSupportSpec, models: frozenset[str]
) -> None:
    assert spec.key == key
    assert spec in VALIDATED_MODEL_SUPPORT_SPECS
    assert isinstance(models, frozenset)
    assert sorted(models) == sorted(spec.model_names)
    assert getattr(registry, f"{key.upper()}_SPEC") is spec
    assert getattr(registry, f"{key.upper()}_MODELS") is models


def test_the_models_of_both_qwen3_5_families_have_a_name() -> None:
    assert QWEN3_5_MODELS == QWEN3_5_DENSE_MODELS | QWEN3_5_MOE_MODELS


def test_list_of_specs_is_the_callers_own_list() -> None:
    list_model_support_specs().clear()
    assert list_model_support_specs() == list(VALIDATED_MODEL_SUPPORT_SPECS)
    assert DEFAULT_DENSE_SPEC not in list_model_support_specs()
    assert PROBE_ONLY_MODEL_SUPPORT_SPECS == ()


@pytest.mark.parametrize("spec", ALL_SPECS, ids=lambda spec: spec.key)
def test_a_spec_agrees_with_its_handler_meta(spec: ModelSupportSpec) -> None:
    assert spec.key == spec.handler_key == spec.handler.key
    assert spec.is_moe is spec.handler.is_moe
    assert spec.native_vllm_lora_status == spec.handler.native_vllm_lora_status
    assert ("experts" in spec.default_target_modules) is spec.is_moe
    assert [each.key for each in ALL_SPECS].count(spec.key) == 1


@pytest.mark.parametrize(
    ("question", "dense"),
    [
        (get_model_support_spec, DEFAULT_DENSE_SPEC),
        (default_target_modules_for_model, DENSE),
        (model_uses_expert_parallel, False),
        (model_requires_merged_rollout, False),
        (native_vllm_lora_status_for_model, "disabled"),
    ],
)
def test_an_unregistered_model_is_refused_or_treated_as_dense(
    question: Callable[..., object], dense: object
) -> None:
    with pytest.raises(UnsupportedModelArchitectureError, match="acme/model"):
        question("acme/model")
    assert question("acme/model", allow_unvalidated_arch=True) == dense
    assert not is_model_support_registered("acme/model")


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("Qwen/Qwen3-8b", "Qwen/Qwen3-8B"),
        ("qwen/qwen3-30b-a3b-instruct", "Qwen/Qwen3-30B-A3B-Instruct-2507"),
        ("Qwen3-4B-Instruct-2507", "Qwen/Qwen3-4B-Instruct-2507"),
        ("HuggingFaceTB/SmolLM-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ],
)
def test_a_near_name_is_suggested(wrong: str, meant: str) -> None:
    with pytest.raises(UnsupportedModelArchitectureError) as raised:
        get_model_support_spec(wrong)
    assert "Did you mean" in str(raised.value)
    assert repr(meant) in str(raised.value)


def test_a_far_name_says_where_the_list_is() -> None:
    with pytest.raises(UnsupportedModelArchitectureError, match="list_model_support_specs"):
        get_model_support_spec("x")


def test_the_error_has_one_identity_at_all_addresses() -> None:
    assert UnsupportedModelArchitectureError is errors.UnsupportedModelArchitectureError
    assert registry.UnsupportedModelArchitectureError is errors.UnsupportedModelArchitectureError
    assert issubclass(UnsupportedModelArchitectureError, ValueError)


RECORDS: list[Record] = [
    *ALL_SPECS,
    DependencyFloor(transformers="5.6.2"),
    HandlerMeta(key="k", handler_name="K_HANDLER", is_moe=True, native_vllm_lora_status="wip"),
    LayerFamilyInstance(
        key="dense_mlp", layer_indices=(1, 3), module_path="mlp", module_type="MLP"
    ),
    LoraTarget(module_path="m", target_modules=("o_proj",), adapter_modules=("h.o_proj",)),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_are_frozen_values(record: Record) -> None:
    field = record.__slots__[0]
    with pytest.raises(AttributeError, match="frozen"):
        setattr(record, field, "changed")
    with pytest.raises(AttributeError, match="frozen"):
        delattr(record, field)
    with pytest.raises(AttributeError):
        setattr(record, "no_such_field", 1)  # noqa: B010 - type checkers know that it is absent
    for twin in (
        pickle.loads(pickle.dumps(record)),
        copy.copy(record),
        copy.deepcopy(record),
        eval(repr(record)),
    ):
        assert twin == record
        assert hash(twin) == hash(record)
        assert repr(twin) == repr(record)
    assert record != object()
    assert record != record._values()


def test_records_that_differ_are_unequal() -> None:
    assert DependencyFloor(vllm="1") != DependencyFloor(vllm="2")
    assert DependencyFloor(vllm="1") != DependencyFloor(transformers="1")
    assert len(set(ALL_SPECS)) == len(ALL_SPECS)


def test_layer_family_counts_its_layers() -> None:
    family = LayerFamilyInstance(
        key="dense_mlp", layer_indices=(1, 3), module_path="mlp", module_type="MLP"
    )
    assert (family.count, family.layer_index) == (2, 1)
