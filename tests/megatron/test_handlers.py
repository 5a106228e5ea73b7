"""Handlers agree with the registry, and have the members of the protocol."""

import pickle
from pathlib import Path

import pytest

from art.megatron.model_support import (
    VALIDATED_MODEL_SUPPORT_SPECS,
    ModelSupportHandler,
    ModelSupportSpec,
    get_model_support_handler,
    get_model_support_handler_for_spec,
    handlers,
)

from .tiny_models import CASES, FAMILIES, SPECS, hf_config


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_handler_has_the_meta_of_its_spec(spec: ModelSupportSpec) -> None:
    handler = get_model_support_handler_for_spec(spec)
    assert handler is getattr(handlers, spec.handler.handler_name)
    assert handler.meta is spec.handler
    assert handler.key == spec.key
    assert handler.is_moe is spec.is_moe
    assert handler.native_vllm_lora_status == spec.native_vllm_lora_status
    assert isinstance(handler, ModelSupportHandler)
    with pytest.raises(AttributeError):
        setattr(handler, "key", "another")  # noqa: B010 - type checkers know that it is read-only


@pytest.mark.parametrize("spec", VALIDATED_MODEL_SUPPORT_SPECS, ids=lambda spec: spec.key)
def test_models_of_a_family_share_its_handler(spec: ModelSupportSpec) -> None:
    found = {get_model_support_handler(name) for name in spec.model_names}
    assert found == {get_model_support_handler_for_spec(spec)}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_handler_can_be_pickled(spec: ModelSupportSpec) -> None:
    handler = get_model_support_handler_for_spec(spec)
    assert pickle.loads(pickle.dumps(handler)).meta == spec.handler


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_tiny_model(family: str) -> None:
    assert family in {case.family for case in CASES.values()}


@pytest.mark.parametrize("name", CASES)
def test_a_folder_that_transformers_wrote_is_of_its_family(tmp_path: Path, name: str) -> None:
    """By the ``config.json``, for a vision-language model too."""
    config = hf_config(name)
    config.save_pretrained(tmp_path)
    handler = get_model_support_handler(str(tmp_path), allow_unvalidated_arch=True)
    claimed = any(config.model_type in spec.model_types for spec in VALIDATED_MODEL_SUPPORT_SPECS)
    if CASES[name].family == "default_dense" and claimed:
        assert handler is not CASES[name].handler  # it has a family of its own
    else:
        assert handler is CASES[name].handler


def test_an_unregistered_model_is_treated_as_dense_when_asked_for() -> None:
    handler = get_model_support_handler("acme/model", allow_unvalidated_arch=True)
    assert handler is handlers.DEFAULT_DENSE_HANDLER
