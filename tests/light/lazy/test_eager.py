"""``ART_EAGER_IMPORT=1``: everything that is installed is loaded at once."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from .conftest import AddModule, Run

COUNT = "import sys, shop; print(len([name for name in sys.modules if name.startswith('shop.')]))"


@pytest.mark.parametrize("value", ["1", "true", "yes", "ON"])
def test_the_switch_loads_every_module(shop: Path, run: Run, value: str) -> None:
    assert run(COUNT, shop, env={"ART_EAGER_IMPORT": value}) == "4"


@pytest.mark.parametrize("value", ["", "0", "false", "False", "no", "off"])
def test_the_switch_is_off_by_the_usual_words(shop: Path, run: Run, value: str) -> None:
    assert run(COUNT, shop, env={"ART_EAGER_IMPORT": value}) == "0"


def test_an_eager_package_behaves_as_a_lazy_one(shop: Path, run: Run) -> None:
    code = """
        import sys
        import shop.tools
        from shop import *
        print(sorted(shop.__all__), Basket.fruit is shop.Apple, tools.HAMMER, shop.fruit.Pear)
        print(hasattr(shop, "Aple"), "Pear" in dir(shop))
        """
    assert run(code, shop, env={"ART_EAGER_IMPORT": "1"}) == run(code, shop)


def test_a_broken_module_fails_at_once(shop: Path, add: AddModule, run: Run) -> None:
    add("torn", "Torn = undefined")
    stderr = run("import shop", shop, env={"ART_EAGER_IMPORT": "1"}, fails=True)
    assert stderr.splitlines()[-1] == "NameError: name 'undefined' is not defined"
    assert run("import shop", shop) == ""


def test_packages_that_no_stub_names_are_loaded_too(shop: Path, run: Run) -> None:
    stub = shop / "shop" / "__init__.pyi"
    stub.write_text(stub.read_text().replace("from . import tools as tools\n", ""))
    assert run(COUNT, shop, env={"ART_EAGER_IMPORT": "1"}) == "4"


def test_lazy_loaders_own_switch_loads_nothing_here(shop: Path, add: AddModule, run: Run) -> None:
    add("torn", "Torn = undefined")
    assert run(COUNT, shop, env={"EAGER_IMPORT": "1"}) == "0"
    assert run("import shop; print(shop.Apple)", shop, env={"EAGER_IMPORT": "1"})


def test_art_loads_every_public_name_that_is_installed(run: Run) -> None:
    out = run(
        """
        from importlib import import_module
        from pathlib import Path
        import art
        from art._lazy import read_stub
        from art.errors import MissingExtraError

        root = Path(art.__file__).parent.parent
        stubs = Path(art.__file__).parent.rglob("__init__.pyi")
        packages = [
            import_module(".".join(stub.parent.relative_to(root).parts)) for stub in stubs
        ]
        absent = set()
        for package in packages:
            for name in read_stub(package):
                if name not in vars(package):
                    try:
                        getattr(package, name)
                    except MissingExtraError as error:
                        absent.add(error.extra)
                    else:
                        raise AssertionError(f"{package.__name__}.{name} was not loaded")
        print(len(packages), *sorted(absent))
        """,
        env={"ART_EAGER_IMPORT": "1"},
    )
    count, *absent = out.splitlines()[-1].split()
    assert int(count) >= 9
    engines = {
        "langgraph": ["langchain_openai"],
        "local": ["torch"],
        "mcp": ["mcp"],
        "megatron": ["megatron", "torch"],
        "tinker": ["tinker"],
    }
    assert set(absent) <= {
        extra for extra, roots in engines.items() if not all(map(find_spec, roots))
    }
