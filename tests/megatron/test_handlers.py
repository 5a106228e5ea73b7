"""Handlers read what the registry says, and offer what the protocol asks."""

import pickle

import pytest

from art.megatron.model_support import (
    DEFAULT_DENSE_SPEC,
    VALIDATED_MODEL_SUPPORT_SPECS,
    ModelSupportHandler,
    get_model_support_handler,
    get_model_support_handler_for_spec,
    handlers,
)

ALL_SPECS = [DEFAULT_DENSE_SPEC, *VALIDATED_MODEL_SUPPORT_SPECS]


@pytest.mark.parametrize("spec", ALL_SPECS, ids=lambda spec: spec.key)
def test_handler_reads_the_meta_of_its_spec(spec: ModelSupportSpec) -> None:
    handler = get_model_support_handler_for_spec(spec)
    assert handler is getattr(handlers, spec.handler.handler_name)
    assert handler.meta is spec.handler
    assert handler.key == spec.key
    assert handler.is_moe is spec.is_moe
    assert handler.native_vllm_lora_status == spec.native_vllm_lora_status
    assert isinstance(handler, ModelSupportHandler)
    with pytest.raises(AttributeError):
        handler.key = "another"


@pytest.mark.parametrize("spec", VALIDATED_MODEL_SUPPORT_SPECS, ids=lambda spec: spec.key)
def test_models_of_a_family_share_its_handler(spec: ModelSupportSpec) -> None:
    found = {get_model_support_handler(name) for name in spec.model_names}
    assert found == {get_model_support_handler_for_spec(spec)}


def test_handlers_cross_processes() -> None:
    for spec in ALL_SPECS:
        handler = get_model_support_handler_for_spec(spec)
        assert pickle.loads(pickle.dumps(handler)).meta == spec.handler


def test_an_unregistered_model_can_be_probed_as_dense() -> None:
    handler = get_model_support_handler("acme/model", allow_unvalidated_arch=True)
    assert handler is handlers.DEFAULT_DENSE_HANDLER
