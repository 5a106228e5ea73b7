"""Minimum versions of art's own families: valid, and enforced however a handler is loaded.

An installed version is simulated by a ``dist-info`` folder, as pip writes it, before all others on
the path of a fresh interpreter.
"""

from importlib.util import find_spec

import pytest
from packaging.version import Version

from art.megatron.model_support import (
    DEFAULT_DENSE_SPEC,
    QWEN3_5_DENSE_SPEC,
    VALIDATED_MODEL_SUPPORT_SPECS,
    DependencyFloor,
    ModelSupportSpec,
)
from art.megatron.model_support.minimum_versions import VersionCheck, check_versions

from .conftest import Site

ALL_SPECS = [DEFAULT_DENSE_SPEC, *VALIDATED_MODEL_SUPPORT_SPECS]
ENGINE = find_spec("megatron") is not None

# Every way to load a handler of art's, or what is in its module.
WAYS = {
    "by model": "model_support.get_model_support_handler('Qwen/Qwen3.5-4B')",
    "by spec": "model_support.get_model_support_handler_for_spec(model_support.QWEN3_5_DENSE_SPEC)",
    "by name": "handlers.QWEN3_5_DENSE_HANDLER",
    "by class": "handlers.Qwen35DenseHandler",
    "by module": "handlers.qwen3_5_dense",
    "by a question": "hasattr(handlers, 'QWEN3_5_DENSE_HANDLER')",
}
# megatron-core before gated delta nets, as far as the handlers' imports see.
OLD_ENGINE = "raise ImportError('cannot import gated_delta_net')"


def touch(site: Site, expression: str) -> str:
    """Evaluate an expression in a fresh interpreter; return its value, or the error, as text."""
    return site.python(
        f"""
        import warnings
        warnings.simplefilter("ignore")
        from art.megatron import model_support
        from art.megatron.model_support import handlers
        try:
            print("loaded", {expression})
        except Exception as error:
            print(type(error).__name__, error)
        """,
        expect_stderr=True,
    )


def install_minimum_versions(site: Site, **changes: str) -> None:
    versions = {
        check.distribution: check.minimum
        for check in check_versions(QWEN3_5_DENSE_SPEC.dependency_floor)
    }
    for distribution, version in (versions | changes).items():
        site.install(distribution, {}, {}, version=version)


@pytest.mark.parametrize("expression", WAYS.values(), ids=WAYS)
def test_an_engine_below_the_minimum_is_refused_however_a_handler_is_loaded(
    site: Site, expression: str
) -> None:
    site.install("megatron-core", {}, {}, version="0.15.3")
    (site.folder / "megatron" / "core").mkdir(parents=True)
    (site.folder / "megatron" / "core" / "__init__.py").write_text(OLD_ENGINE)
    assert touch(site, expression) == (
        "DependencyFloorError the family 'qwen3_5_dense' of art needs megatron-core>=0.16.0, but "
        '0.15.3 is installed. Upgrade with: pip install "art-rl[megatron]" '
        '"megatron-core>=0.16.0"\n'
    )


def test_the_error_names_every_engine_that_is_too_old(site: Site) -> None:
    site.install("megatron-core", {}, {}, version="0.15.3")
    site.install("transformers", {}, {}, version="5.5.4")
    printed = touch(site, WAYS["by name"])
    assert "transformers>=5.6.0, but 5.5.4 is installed, and megatron-core>=0.16.0, but" in printed
    assert 'pip install "art-rl[megatron]" "transformers>=5.6.0" "megatron-core>=0.16.0"' in printed


def test_the_minimum_of_one_family_does_not_apply_to_another(site: Site) -> None:
    install_minimum_versions(site, transformers="5.5.4")
    assert "'qwen3_5_dense' of art needs" in touch(site, "handlers.QWEN3_5_DENSE_HANDLER")
    assert "'qwen3_5_moe' of art needs" in touch(site, "handlers.Qwen35MoeHandler")
    assert "DependencyFloorError" not in touch(site, "handlers.QWEN3_DENSE_HANDLER")


@pytest.mark.parametrize("expression", WAYS.values(), ids=WAYS)
def test_the_minimum_version_itself_is_accepted(site: Site, expression: str) -> None:
    install_minimum_versions(site)
    # Without an engine, the error is about the engine, not about a version.
    assert touch(site, expression).startswith("loaded" if ENGINE else "MissingExtraError")


def test_an_absent_engine_is_reported_as_missing_not_as_too_old(site: Site) -> None:
    printed = site.python(
        """
        import sys
        sys.modules["megatron"] = None  # an import of it fails as if it were not there
        from art.errors import MissingExtraError
        from art.megatron.model_support import handlers
        try:
            handlers.QWEN3_5_DENSE_HANDLER
        except MissingExtraError as error:
            print(error.extra)
        """,
        expect_stderr=True,
    )
    assert printed == "megatron\n"


def test_a_plugin_handler_derived_from_arts_reports_the_version_not_a_broken_plugin(
    site: Site,
) -> None:
    site.install("megatron-core", {}, {}, version="0.15.3")
    site.install_family("acme-art", key="acme_dense", models=("acme/one",))
    (site.folder / "acme_art_handler.py").write_text(
        "from art.megatron.model_support.handlers import DefaultDenseHandler\n"
    )
    printed = touch(site, "model_support.get_model_support_handler('acme/one')")
    assert printed.startswith("DependencyFloorError the family 'default_dense' of art needs")


@pytest.mark.parametrize("spec", ALL_SPECS, ids=lambda spec: spec.key)
def test_minimum_versions_of_arts_own_families_can_be_compared(spec: ModelSupportSpec) -> None:
    """A commit cannot be compared, so it would enforce nothing."""
    checks = check_versions(spec.dependency_floor)
    assert {"transformers", "megatron-core"} <= {check.distribution for check in checks}
    for check in checks:
        assert str(Version(check.minimum)) == check.minimum
        assert check.status in ("satisfied", "absent")


def test_every_field_of_the_record_is_checked() -> None:
    fields = DependencyFloor.__slots__
    checks = check_versions(DependencyFloor(**dict.fromkeys(fields, "1")))
    assert len(checks) == len(fields)
    assert {check.distribution.replace("-", "_") for check in checks} == set(fields)


@pytest.mark.parametrize(
    ("minimum", "installed", "status"),
    [
        ("1.10", "1.9", "below"),
        ("1.10", "1.10", "satisfied"),
        ("1.10", "2.0.dev1+cpu", "satisfied"),
        ("1.10", "1.10rc1", "below"),
        ("1.10", None, "absent"),
        ("e049cc00c24d03e2ae45d2608c7a44e2d2364e3d", "1.9", "unknown"),
    ],
)
def test_versions_are_ordered_as_versions(minimum: str, installed: str | None, status: str) -> None:
    check = VersionCheck(distribution="acme", minimum=minimum, installed=installed)
    assert check.status == status
