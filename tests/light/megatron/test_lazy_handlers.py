"""Lazy loading: the modules that a registry question imports, and those that a handler does."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from art.megatron import model_support
from art.megatron.model_support import (
    DEFAULT_DENSE_SPEC,
    VALIDATED_MODEL_SUPPORT_SPECS,
    ModelSupportSpec,
    handlers,
)
from art.megatron.model_support import protocol as protocol_module
from art.megatron.model_support import spec as spec_module

from .conftest import Site

ALL_SPECS = [DEFAULT_DENSE_SPEC, *VALIDATED_MODEL_SUPPORT_SPECS]


HEAVY = {"typing", "dataclasses", "inspect", "ast", "enum", "re", "difflib", "pydantic", "numpy"}
ENGINES = {"torch", "megatron", "transformer_engine", "transformers", "huggingface_hub"}


def test_questions_load_no_handler_and_nothing_heavy(site: Site) -> None:
    loaded = site.python(
        """
        import sys
        before = set(sys.modules)
        from art.megatron.model_support import (
            VALIDATED_MODEL_SUPPORT_SPECS,
            UnsupportedModelArchitectureError,
            default_target_modules_for_model,
            get_model_support_spec,
            handlers,
            is_model_support_registered,
            model_requires_merged_rollout,
            model_uses_expert_parallel,
            native_vllm_lora_status_for_model,
        )
        for spec in VALIDATED_MODEL_SUPPORT_SPECS:
            for name in spec.model_names:
                default_target_modules_for_model(name)
                native_vllm_lora_status_for_model(name)
                model_uses_expert_parallel(name)
                model_requires_merged_rollout(name)
                is_model_support_registered(name)
                hash(get_model_support_spec(name))
        dir(handlers)
        repr(VALIDATED_MODEL_SUPPORT_SPECS)
        print(*sorted(set(sys.modules) - before))
        """
    ).split()
    ours = [name for name in loaded if name.partition(".")[0] == "art"]
    assert ours == [
        "art",
        "art._lazy",
        "art.errors",
        "art.megatron",
        "art.megatron.model_support",
        "art.megatron.model_support.families",
        "art.megatron.model_support.handlers",
        "art.megatron.model_support.registry",
        "art.megatron.model_support.spec",
    ]
    assert not {name.partition(".")[0] for name in loaded} & (HEAVY | ENGINES)


def test_a_question_about_a_folder_loads_json_and_looks_for_no_plugin(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_moe"}')
    loaded = site.python(
        """
        import os, sys
        from art.megatron.model_support import model_uses_expert_parallel
        before = set(sys.modules)
        assert model_uses_expert_parallel(os.environ["MODEL"])
        print(*sorted(set(sys.modules) - before))
        """,
        environment={"MODEL": str(tmp_path)},
    ).split()
    assert "json" in loaded
    assert not {name.partition(".")[0] for name in loaded} & ENGINES
    assert "importlib.metadata" not in loaded


@pytest.mark.parametrize(
    "name", ["ModelSupportHandler", "NativeVllmLoraStatus", "RolloutWeightsMode"]
)
def test_types_of_the_data_are_also_at_arts_address(name: str) -> None:
    assert getattr(spec_module, name) is getattr(model_support, name)


def test_an_unknown_name_of_the_spec_module_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(spec_module, "no_such_name")  # noqa: B009 - type checkers know that it is absent


def test_every_member_of_the_protocol_is_written_and_documented() -> None:
    """Read with ast, since the handlers' own module needs the engine."""
    protocol = model_support.ModelSupportHandler
    promised = {name for name in vars(protocol) if not name.startswith("_")}
    assert promised >= {"meta", "key", "is_moe", "native_vllm_lora_status"}
    source = Path(str(protocol_module.__file__)).with_name("handlers") / "family.py"
    (family,) = [
        node
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == "FamilyHandler"
    ]
    methods = {node.name: node for node in family.body if isinstance(node, ast.FunctionDef)}
    assert promised - {"meta"} <= methods.keys()
    assert [name for name in promised if not vars(protocol)[name].__doc__] == []
    assert [name for name in promised - {"meta"} if not ast.get_docstring(methods[name])] == []


@pytest.mark.parametrize("spec", ALL_SPECS, ids=lambda spec: spec.key)
def test_every_handler_name_is_exported(spec: ModelSupportSpec) -> None:
    assert spec.handler.handler_name in dir(handlers)


def test_every_exported_handler_has_a_spec() -> None:
    exported = {name for name in dir(handlers) if name.endswith("_HANDLER")}
    assert exported == {spec.handler.handler_name for spec in ALL_SPECS}


@pytest.mark.skipif(find_spec("megatron") is not None, reason="megatron-core is installed here")
def test_a_handler_without_its_engine_names_the_extra(site: Site) -> None:
    printed = site.python(
        """
        from art.errors import MissingExtraError
        from art.megatron.model_support import get_model_support_handler, handlers
        for touch in (
            lambda: get_model_support_handler("Qwen/Qwen3-8B"),
            lambda: handlers.QWEN3_DENSE_HANDLER,
            lambda: hasattr(handlers, "Qwen3MoeHandler"),
        ):
            try:
                touch()
            except MissingExtraError as error:
                print(error.extra, error.module, type(error.__cause__).__name__)
                assert 'pip install "art-rl[megatron]"' in str(error), error
        """
    )
    # The engine's first missing package may be torch or megatron itself.
    lines = printed.splitlines()
    assert len(lines) == 3, printed
    for line in lines:
        extra, module, cause = line.split()
        assert (extra, cause) == ("megatron", "ModuleNotFoundError")
        assert module in ("megatron", "torch")


@pytest.mark.skipif(find_spec("megatron") is None, reason="megatron-core is not installed here")
def test_a_handler_with_its_engine_loads(site: Site) -> None:
    printed = site.python(
        """
        import sys
        from art.megatron.model_support import get_model_support_handler
        handler = get_model_support_handler("Qwen/Qwen3-8B")
        assert "megatron.core" in sys.modules
        assert "art.megatron.model_support.handlers.qwen3_moe" not in sys.modules
        print(handler.key)
        """,
        expect_stderr=True,
    )
    assert printed.splitlines()[-1] == "qwen3_dense"
