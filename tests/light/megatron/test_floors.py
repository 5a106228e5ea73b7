"""The versions that art's own families need: true ones, and held to whatever way a handler loads.

An installed version is simulated by what pip leaves of it: a ``dist-info`` folder, before all
others on the path of a fresh interpreter.
"""

from importlib.util import find_spec

import pytest
from packaging.version import Version

from art.megatron.model_support import (
    DEFAULT_DENSE_SPEC,
    QWEN3_5_DENSE_SPEC,
    VALIDATED_MODEL_SUPPORT_SPECS,
    DependencyFloor,
)
from art.megatron.model_support.floors import InstalledFloor, installed_floors

from .conftest import Site

ALL_SPECS = [DEFAULT_DENSE_SPEC, *VALIDATED_MODEL_SUPPORT_SPECS]
ENGINE = find_spec("megatron") is not None

# Every way to a handler of art's, and to what lies beside it.
WAYS = {
    "by model": "model_support.get_model_support_handler('Qwen/Qwen3.5-4B')",
    "by spec": "model_support.get_model_support_handler_for_spec(model_support.QWEN3_5_DENSE_SPEC)",
    "by name": "handlers.QWEN3_5_DENSE_HANDLER",
    "by class": "handlers.Qwen35DenseHandler",
    "by module": "handlers.qwen3_5_dense",
    "by a question": "hasattr(handlers, 'QWEN3_5_DENSE_HANDLER')",
}
# megatron-core as it was before gated delta nets, as far as the handlers' imports see.
OLD_ENGINE = "raise ImportError('cannot import gated_delta_net')"


def touch(site: Site, expression: str) -> str:
    """Evaluate an expression in a fresh interpreter; say what it is, or what it raised."""
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


def install_at_the_floors(site: Site, **changes: str) -> None:
    versions = {
        entry.distribution: entry.floor
        for entry in installed_floors(QWEN3_5_DENSE_SPEC.dependency_floor)
    }
    for distribution, version in (versions | changes).items():
        site.install(distribution, {}, {}, version=version)


@pytest.mark.parametrize("expression", WAYS.values(), ids=WAYS)
def test_an_engine_below_the_floor_is_refused_whatever_the_way(site: Site, expression) -> None:
    site.install("megatron-core", {}, {}, version="0.15.3")
    (site.folder / "megatron" / "core").mkdir(parents=True)
    (site.folder / "megatron" / "core" / "__init__.py").write_text(OLD_ENGINE)
    assert touch(site, expression) == (
        "DependencyFloorError the family 'qwen3_5_dense' of art needs megatron-core>=0.16.0, but "
        '0.15.3 is installed. Upgrade with: pip install "art-rl[megatron]" '
        '"megatron-core>=0.16.0"\n'
    )


def test_all_that_is_too_old_is_named_at_once(site: Site) -> None:
    site.install("megatron-core", {}, {}, version="0.15.3")
    site.install("transformers", {}, {}, version="5.5.4")
    printed = touch(site, WAYS["by name"])
    assert "transformers>=5.6.0, but 5.5.4 is installed, and megatron-core>=0.16.0, but" in printed
    assert 'pip install "art-rl[megatron]" "transformers>=5.6.0" "megatron-core>=0.16.0"' in printed


def test_a_floor_of_one_family_is_none_of_another(site: Site) -> None:
    install_at_the_floors(site, transformers="5.5.4")
    assert "'qwen3_5_dense' of art needs" in touch(site, "handlers.QWEN3_5_DENSE_HANDLER")
    assert "'qwen3_5_moe' of art needs" in touch(site, "handlers.Qwen35MoeHandler")
    assert "DependencyFloorError" not in touch(site, "handlers.QWEN3_DENSE_HANDLER")


@pytest.mark.parametrize("expression", WAYS.values(), ids=WAYS)
def test_a_version_at_the_floor_will_do(site: Site, expression: str) -> None:
    install_at_the_floors(site)
    # Where there is no engine, it is the engine that is missing, not a version.
    assert touch(site, expression).startswith("loaded" if ENGINE else "MissingExtraError")


def test_an_engine_that_is_absent_is_missing_not_too_old(site: Site) -> None:
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


def test_the_handler_of_a_plugin_that_builds_on_arts_is_told_the_same(site: Site) -> None:
    """Not that the plug-in is broken."""
    site.install("megatron-core", {}, {}, version="0.15.3")
    site.install_family("acme-art", key="acme_dense", models=("acme/one",))
    (site.folder / "acme_art_handler.py").write_text(
        "from art.megatron.model_support.handlers import DefaultDenseHandler\n"
    )
    printed = touch(site, "model_support.get_model_support_handler('acme/one')")
    assert printed.startswith("DependencyFloorError the family 'default_dense' of art needs")


@pytest.mark.parametrize("spec", ALL_SPECS, ids=lambda spec: spec.key)
def test_floors_of_arts_own_families_can_be_compared(spec) -> None:
    """A commit cannot: it would hold nobody to anything."""
    floors = installed_floors(spec.dependency_floor)
    assert {"transformers", "megatron-core"} <= {entry.distribution for entry in floors}
    for entry in floors:
        assert Version(entry.floor)
        assert entry.status in ("satisfied", "absent")


def test_every_field_of_the_record_is_held_to() -> None:
    fields = DependencyFloor.__slots__
    floors = installed_floors(DependencyFloor(**dict.fromkeys(fields, "1")))
    assert len(floors) == len(fields)
    assert {entry.distribution.replace("-", "_") for entry in floors} == set(fields)


@pytest.mark.parametrize(
    ("floor", "installed", "status"),
    [
        ("1.10", "1.9", "below"),
        ("1.10", "1.10", "satisfied"),
        ("1.10", "2.0.dev1+cpu", "satisfied"),
        ("1.10", "1.10rc1", "below"),
        ("1.10", None, "absent"),
        ("e049cc00c24d03e2ae45d2608c7a44e2d2364e3d", "1.9", "unknown"),
    ],
)
def test_versions_are_compared_as_versions(floor: str, installed: str | None, status: str) -> None:
    entry = InstalledFloor(distribution="acme", floor=floor, installed=installed)
    assert entry.status == status
