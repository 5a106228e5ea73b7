"""Families of other distributions: found and listed, without harm to art's own families."""

import json
from pathlib import Path
from textwrap import dedent

import pytest

from .conftest import Site

BUILT_IN_QUESTIONS = """
    from art.megatron.model_support import (
        default_target_modules_for_model, is_model_support_registered, model_uses_expert_parallel,
        get_model_support_spec,
    )
    assert len(default_target_modules_for_model("Qwen/Qwen3-8B")) == 7
    assert is_model_support_registered("Qwen/Qwen3-8B")
    assert model_uses_expert_parallel("Qwen/Qwen3-30B-A3B")
    assert get_model_support_spec("Qwen/Qwen3-8B").key == "qwen3_dense"
"""
BROKEN = {
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "imports what is absent": ("import no_such_module", "No module named 'no_such_module'"),
    "has a syntax error": ("def", "SyntaxError"),
    "lacks the name": ("OTHER = 1", "has no attribute 'SPEC'"),
    "is of the wrong type": ("SPEC = {'key': 'acme_dense'}", "is a dict; it must be a Model"),
}


def spec_with(**changes: str) -> str:
    """The source of a module with a malformed spec."""
    fields = {
        "handler": "HandlerMeta(key='acme_dense', handler_name='acme.handler:HANDLER')",
        "default_target_modules": "('q_proj',)",
    }
    arguments = ", ".join(f"{name}={value}" for name, value in (fields | changes).items())
    return (
        "from art.megatron.model_support.spec import HandlerMeta, ModelSupportSpec\n"
        f"SPEC = ModelSupportSpec({arguments})\n"
    )


MALFORMED = {
    "another key": (
        spec_with(handler="HandlerMeta(key='other', handler_name='a:B')"),
        "has the key 'other'",
    ),
    "a handler without a module": (
        spec_with(handler="HandlerMeta(key='acme_dense', handler_name='HANDLER')"),
        "it must be 'module:NAME'",
    ),
    "no handler": (spec_with(handler="None"), "must be a HandlerMeta"),
    "target modules as text": (spec_with(default_target_modules="'q_proj'"), "a tuple of names"),
    "no target modules": (spec_with(default_target_modules="()"), "a tuple of names"),
    "models as a list": (spec_with(model_names="['a/b']"), "model_names must be a tuple"),
    "model types as text": (spec_with(model_types="'acme'"), "model_types must be a tuple"),
    "a version as a floor": (spec_with(dependency_floor="'1.0'"), "must be a DependencyFloor"),
    "an unknown mode": (spec_with(default_rollout_weights_mode="'full'"), "weights_mode must be"),
}


def test_a_plugin_family_answers_every_question(site: Site, tmp_path: Path) -> None:
    site.install_family(
        "acme-art", key="acme_dense", models=("acme/one", "acme/two"), model_types=("acme",)
    )
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "acme"}')
    printed = site.python(
        """
        import os, sys
        from art.megatron.model_support import (
            default_target_modules_for_model, get_model_support_spec, is_model_support_registered,
            list_model_support_plugins, list_model_support_specs, model_uses_expert_parallel,
        )
        assert is_model_support_registered("acme/two")
        assert get_model_support_spec("acme/one").key == "acme_dense"
        assert get_model_support_spec(os.environ["MODEL"]).key == "acme_dense"
        assert default_target_modules_for_model("acme/one") == ["q_proj", "o_proj"]
        assert model_uses_expert_parallel("acme/one") is False
        assert [spec.key for spec in list_model_support_specs()][-1] == "acme_dense"
        (plugin,) = list_model_support_plugins()
        assert "acme_art_handler" not in sys.modules and "torch" not in sys.modules
        print(plugin.distribution, plugin.key, plugin.error)
        """,
        environment={"MODEL": str(tmp_path / "model")},
    )
    assert printed == "acme-art 1.0 acme_dense None\n"


def test_a_question_about_arts_own_models_looks_for_no_plugin(site: Site) -> None:
    site.install("acme-art", {"acme.py": "print('loaded')"}, {"acme_dense": "acme:SPEC"})
    printed = site.python(
        BUILT_IN_QUESTIONS
        + """
    import sys
    print("importlib.metadata" in sys.modules)
    """
    )
    assert printed == "False\n"


@pytest.mark.parametrize(("module", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_named_and_breaks_nothing(site: Site, module: str, reason: str) -> None:
    site.install("broken-art", {"broken.py": module}, {"acme_dense": "broken:SPEC"})
    site.install_family("good-art", key="good_dense", models=("good/one",))
    result = site.run("-W", "always", "-c", _listing())
    assert result.returncode == 0, result.stderr
    keys, error = result.stdout.splitlines()[:2]
    assert keys.split()[-1] == "good_dense"
    assert "qwen3_dense" in keys.split()
    assert "acme_dense" not in keys.split()
    for text in (error, result.stderr):
        assert "broken-art 1.0: the plug-in acme_dense = 'broken:SPEC'" in text
        assert reason in text
    assert "ModelSupportPluginWarning" in result.stderr
    assert result.stderr.count("broken-art 1.0") == 1, "warned more than once"


@pytest.mark.parametrize(("module", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_spec_is_refused(site: Site, module: str, reason: str) -> None:
    site.install("broken-art", {"broken.py": module}, {"acme_dense": "broken:SPEC"})
    result = site.run("-c", _listing())
    assert result.returncode == 0, result.stderr
    keys, error = result.stdout.splitlines()[:2]
    assert "acme_dense" not in keys.split()
    assert reason in error
    assert reason in result.stderr


@pytest.mark.parametrize(
    ("key", "models", "model_types", "claim"),
    [
        ("qwen3_dense", ("acme/one",), (), "the key 'qwen3_dense', which art has"),
        ("default_dense", ("acme/one",), (), "the key 'default_dense', which art has"),
        ("acme_dense", ("Qwen/Qwen3-8B",), (), "the model 'Qwen/Qwen3-8B', which art has"),
        (
            "acme_dense",
            ("acme/one",),
            ("acme", "qwen3"),
            "the model_type 'qwen3', which art has",
        ),
    ],
)
def test_a_plugin_cannot_replace_arts_own_families(
    site: Site, key: str, models: tuple[str, ...], model_types: tuple[str, ...], claim: str
) -> None:
    site.install_family("acme-art", key=key, models=models, model_types=model_types)
    site.python(BUILT_IN_QUESTIONS)
    result = site.run("-c", _listing())
    assert claim in result.stderr
    assert "acme/one" not in result.stdout
    assert "acme-art 1.0: the plug-in" in result.stderr


@pytest.mark.parametrize(
    ("key", "models", "model_types", "claim"),
    [
        ("a_dense", ("b/one",), ("b",), "the key 'a_dense'"),
        ("b_dense", ("a/one",), ("b",), "the model 'a/one'"),
        ("b_dense", ("b/one",), ("a",), "the model_type 'a'"),
    ],
)
def test_of_two_plugins_the_first_by_name_has_what_both_claim(
    site: Site, key: str, models: tuple[str, ...], model_types: tuple[str, ...], claim: str
) -> None:
    site.install_family("b-art", key=key, models=models, model_types=model_types)
    site.install_family("a-art", key="a_dense", models=("a/one",), model_types=("a",))
    result = site.run("-c", _listing())
    keys, _, names = result.stdout.splitlines()
    assert "a/one" in names.split()
    assert "b/one" not in names.split()
    assert "b_dense" not in keys.split()
    said = f"b-art 1.0: the plug-in {key!r} claims {claim}, which a-art 1.0 has"
    assert said in result.stderr


def test_a_plugin_may_claim_a_model_type_that_only_the_default_family_reads(
    site: Site, tmp_path: Path
) -> None:
    site.install_family("acme-art", key="acme_dense", model_types=("qwen2",))
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    printed = site.python(
        """
        import os
        from art.megatron.model_support import get_model_support_spec
        for allow in (False, True):
            print(get_model_support_spec(os.environ["MODEL"], allow_unvalidated_arch=allow).key)
        """,
        environment={"MODEL": str(tmp_path)},
    )
    assert printed.split() == ["acme_dense", "acme_dense"]


def test_the_error_for_an_unknown_model_names_near_models_and_refused_plugins(site: Site) -> None:
    site.install_family("acme-art", key="acme_dense", models=("acme/great-model",))
    site.install("broken-art", {"broken.py": "1 / 0"}, {"broken_dense": "broken:SPEC"})
    printed = site.python(
        """
        from art.megatron.model_support import (
            UnsupportedModelArchitectureError, get_model_support_spec,
        )
        try:
            get_model_support_spec("acme/Great-Model")
        except UnsupportedModelArchitectureError as error:
            print(error)
        """,
        expect_stderr=True,
    )
    assert "'acme/great-model'" in printed
    assert "left out, which may have it: broken-art 1.0" in printed


HANDLER = """
    from acme_art import SPEC

    class Handler:
        meta = SPEC.handler
        key = property(lambda self: self.meta.key)
        is_moe = property(lambda self: self.meta.is_moe)
        native_vllm_lora_status = property(lambda self: self.meta.native_vllm_lora_status)
"""
LOAD = """
    from art.megatron.model_support import ModelSupportHandler, get_model_support_handler
    try:
        print(type(get_model_support_handler("acme/one")).__name__)
    except Exception as error:
        print(type(error).__name__, error, type(error.__cause__).__name__)
"""


@pytest.mark.parametrize(
    ("handler", "outcome"),
    [
        ("import no_such_module", ("ModelSupportPluginError", "No module named 'no_such_module'")),
        ("OTHER = 1", ("ModelSupportPluginError", "has no attribute 'HANDLER'")),
        (HANDLER + "\n    HANDLER = Handler()", ("ModelSupportPluginError", "not a handler")),
    ],
)
def test_a_broken_handler_names_its_distribution(
    site: Site, handler: str, outcome: tuple[str, str]
) -> None:
    site.install_family("acme-art", key="acme_dense", models=("acme/one",))
    (site.folder / "acme_art_handler.py").write_text(dedent(handler))
    printed = site.python(LOAD)
    assert printed.startswith(outcome[0])
    assert "acme-art 1.0" in printed
    assert outcome[1] in printed


def test_a_complete_handler_loads(site: Site) -> None:
    site.install_family("acme-art", key="acme_dense", models=("acme/one",))
    methods = "\n".join(
        f"        def {name}(self): ..."
        for name in json.loads(
            site.python(
                """
                import json
                from art.megatron.model_support import ModelSupportHandler as P
                print(json.dumps([n for n in vars(P) if not n.startswith("_")]))
                """
            )
        )
        if name not in ("meta", "key", "is_moe", "native_vllm_lora_status")
    )
    (site.folder / "acme_art_handler.py").write_text(
        dedent(HANDLER + methods + "\n    HANDLER = Handler()")
    )
    assert site.python(LOAD) == "Handler\n"


def test_a_version_below_a_plugins_minimum_is_refused_by_name(site: Site) -> None:
    site.install_family(
        "acme-art",
        key="acme_dense",
        models=("acme/one",),
        minimum_versions="vllm='0.9', transformers=None",
    )
    site.install("vllm", {}, {})  # its dist-info says 1.0
    site.install_family(
        "next-art", key="next_dense", models=("acme/two",), minimum_versions="vllm='1.1'"
    )
    assert "DependencyFloorError" not in site.python(LOAD)
    printed = site.python(LOAD.replace("acme/one", "acme/two"))
    assert printed.startswith("DependencyFloorError the family 'next_dense' of next-art 1.0 needs")
    assert 'vllm>=1.1, but 1.0 is installed. Upgrade with: pip install "vllm>=1.1"' in printed


def _listing() -> str:
    return (
        "from art.megatron.model_support import *\n"
        "from art.megatron.model_support import list_model_support_specs as specs\n"
        "print(*(spec.key for spec in specs()))\n"
        "print(*(plugin.error for plugin in list_model_support_plugins() if plugin.error))\n"
        "print(*(name for spec in specs() for name in spec.model_names))\n"
    )
