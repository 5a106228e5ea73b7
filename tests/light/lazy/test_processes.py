"""Lazy names in other processes: what they are pickled by, and children in any state."""

import sys
from pathlib import Path

import pytest

from .conftest import Run, RunFile

START_METHODS = [
    "spawn",
    pytest.param(
        "forkserver",
        marks=pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows"),
    ),
]


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_lazy_class_is_pickled_by_its_own_module(shop: Path, run: Run, protocol: int) -> None:
    data = run(f"import pickle, shop; print(pickle.dumps(shop.Apple(), {protocol}).hex())", shop)
    out = run(
        f"""
        import pickle, sys
        apple = pickle.loads(bytes.fromhex({data!r}))
        print(sorted(name for name in sys.modules if name.startswith("shop")))
        import shop
        print(type(apple) is shop.Apple)
        """,
        shop,
    )
    assert out.splitlines() == ["['shop', 'shop.fruit']", "True"]


def test_a_name_pickled_by_the_packages_address_is_found_through_the_package(
    shop: Path, run: Run
) -> None:
    """Some libraries set `__module__` to the public address: unpickling then asks the package."""
    code = "import pickle, shop; shop.Apple.__module__ = 'shop'; print(pickle.dumps(shop.Apple()))"
    data = run(code, shop)
    out = run(f"import pickle, sys; print(type(pickle.loads({data})).__name__)", shop)
    assert out == "Apple"


def test_arts_own_types_and_errors_cross_processes(run: Run) -> None:
    data = run(
        """
        import pickle
        from art import errors
        from art.megatron.model_support import QWEN3_MOE_SPEC, default_target_modules_for_model
        things = (QWEN3_MOE_SPEC, default_target_modules_for_model, errors.EngineDiedError("gone"))
        print(pickle.dumps(things).hex())
        """
    )
    out = run(
        f"""
        import pickle, sys
        spec, ask, error = pickle.loads(bytes.fromhex({data!r}))
        print(spec.key, len(ask(spec.model_names[0])), type(error).__name__, error)
        print("typing" in sys.modules)
        """
    )
    assert out.splitlines() == ["qwen3_moe 8 EngineDiedError gone", "False"]


def test_cloudpickle_carries_functions_that_use_lazy_packages(shop: Path, run: Run) -> None:
    pytest.importorskip("cloudpickle")
    data = run(
        """
        import cloudpickle, shop
        from shop import tools
        def weigh(n):
            return n * shop.tools.HAMMER * tools.HAMMER, shop.Apple.__name__
        class Heavy(shop.Apple):
            pass
        print(cloudpickle.dumps((weigh, lambda: shop.Pear().basket().fruit, Heavy, shop)).hex())
        """,
        shop,
    )
    out = run(
        f"""
        import cloudpickle, sys
        weigh, pick, Heavy, package = cloudpickle.loads(bytes.fromhex({data!r}))
        print(weigh(2), pick().__name__, Heavy.__base__ is package.Apple)
        print(package is sys.modules["shop"])
        """,
        shop,
    )
    assert out.splitlines() == ["(2, 'Apple') Apple True", "True"]


@pytest.mark.parametrize("method", START_METHODS)
def test_a_child_process_resolves_names(shop: Path, run_file: RunFile, method: str) -> None:
    out = run_file(
        f"""
        import multiprocessing, sys
        import shop

        def look(apple):
            import art
            from art.megatron.model_support import model_uses_expert_parallel as is_moe
            loaded = sorted(name for name in sys.modules if name.startswith("shop."))
            return loaded, type(apple) is shop.Apple, art.ArtError.__name__, is_moe("Qwen/Qwen3-8B")

        if __name__ == "__main__":
            with multiprocessing.get_context({method!r}).Pool(2) as pool:
                print(*pool.map(look, [shop.Apple()] * 2), sep="\\n")
        """,
        shop,
    )
    assert out.splitlines() == ["(['shop.fruit'], True, 'ArtError', False)"] * 2


def test_a_half_initialised_child_resolves_names(shop: Path, run_file: RunFile) -> None:
    """A child unpickles what it is to run while its main module, and so the package, still loads.

    In vLLM a plug-in asked the package for a name at such a moment, in a spawned child, and was
    told that there is none (flagos-ai/vllm-plugin-FL #445).
    """
    (shop / "shop" / "plugin.py").write_text(
        "import shop\n"
        "from shop import Apple, tools\n"
        "from shop.fruit import Pear\n"
        "SEEN = (shop.Apple is Apple, tools.HAMMER, Pear.__name__)\n"
    )
    stub = shop / "shop" / "__init__.pyi"
    stub.write_text(stub.read_text() + "from .plugin import SEEN as SEEN\n")
    # The package's own last line loads the plug-in: nothing after it has run when names are asked.
    init = shop / "shop" / "__init__.py"
    init.write_text(init.read_text() + "from . import plugin\nfinished = True\n")
    out = run_file(
        """
        import importlib, multiprocessing

        def resolve(package, name):
            return getattr(importlib.import_module(package), name)

        class Task:
            def __reduce__(self):
                return resolve, ("shop", "SEEN")

        def look(seen):
            return seen

        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.apply(look, (Task(),)))
        """,
        shop,
    )
    assert out == "(True, 1, 'Pear')"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_a_fork_in_the_middle_of_a_load_does_not_hang_the_child(
    shop: Path, run_file: RunFile
) -> None:
    (shop / "shop" / "fruit.py").write_text(
        "import time\ntime.sleep(0.5)\nclass Apple: ...\nclass Pear: ...\n"
    )
    out = run_file(
        """
        import os, threading, time, warnings
        warnings.simplefilter("ignore")
        import shop
        thread = threading.Thread(target=lambda: shop.Apple)
        thread.start()
        time.sleep(0.1)
        child = os.fork()
        if child == 0:
            os._exit(shop.tools.HAMMER)
        thread.join()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shop.Apple.__name__)
        """,
        shop,
    )
    assert out == "1 Apple"
