"""What a lazy package shows, and what touching a name does."""

import sys
from pathlib import Path

from .conftest import Run


def test_a_name_loads_its_module_on_first_touch_and_only_that(shop: Path, run: Run) -> None:
    out = run(
        """
        import sys, shop
        before = [m for m in sys.modules if m.startswith("shop.")]
        apple = shop.Apple
        after = [m for m in sys.modules if m.startswith("shop.")]
        print(before, after, apple is shop.Apple, apple.__module__)
        """,
        shop,
    )
    assert out == "[] ['shop.fruit'] True shop.fruit"


def test_a_loaded_name_is_kept_and_not_looked_up_again(shop: Path, run: Run) -> None:
    out = run(
        """
        import shop
        shop.Apple
        shop.__getattr__ = None
        print(shop.Apple.__name__, type(shop).__name__)
        """,
        shop,
    )
    assert out == "Apple module"


def test_dir_and_all_list_lazy_names_and_keep_the_rest(shop: Path, run: Run) -> None:
    out = run(
        """
        import shop
        print(shop.__all__)
        print({"Apple", "tools", "__doc__", "__path__", "__name__"} <= set(dir(shop)))
        print([name for name in dir(shop) if not name.startswith("_")])
        print(sys.modules.keys() & {"shop.fruit", "shop.tools"})
        """,
        shop,
    )
    names = "['Apple', 'Basket', 'Pear', 'tools']"
    assert out.splitlines() == [names, "True", names, "set()"]


def test_an_unknown_name_is_an_attribute_error_with_a_suggestion(shop: Path, run: Run) -> None:
    stderr = run("import shop; shop.Aple", shop, fails=True)
    assert stderr.splitlines()[-1] == (
        "AttributeError: module 'shop' has no attribute 'Aple'. Did you mean: 'Apple'?"
    )
    assert run("import shop; print(hasattr(shop, 'Aple'))", shop) == "False"
    assert run("import shop; print(getattr(shop, 'Aple', 'none'))", shop) == "none"


def test_a_misspelt_import_is_an_import_error_with_a_suggestion(shop: Path, run: Run) -> None:
    last = run("from shop import Aple", shop, fails=True).splitlines()[-1]
    assert last.startswith("ImportError: cannot import name 'Aple' from 'shop'")
    # Python itself looks for near names from 3.12 on, in what `dir` gives.
    assert last.endswith("Did you mean: 'Apple'?") is (sys.version_info >= (3, 12))


def test_arts_own_names_are_suggested(run: Run) -> None:
    last = run("from art import Trajectry", fails=True).splitlines()[-1]
    assert last.startswith("ImportError: cannot import name 'Trajectry' from 'art'")
    assert last.endswith("Did you mean: 'Trajectory'?") is (sys.version_info >= (3, 12))
    last = run("import art; art.Trajectry", fails=True).splitlines()[-1]
    assert last == (
        "AttributeError: module 'art' has no attribute 'Trajectry'. Did you mean: 'Trajectory'?"
    )


def test_a_module_that_names_come_from_is_an_attribute_as_if_it_were_imported(
    shop: Path, run: Run
) -> None:
    out = run("import shop; print(shop.fruit.Pear, hasattr(shop, 'hammer'))", shop)
    assert out == "<class 'shop.fruit.Pear'> False"


def test_a_star_import_brings_every_public_name_and_no_other(shop: Path, run: Run) -> None:
    out = run(
        """
        before = set(globals()) | {"before"}
        from shop import *
        print(sorted(set(globals()) - before), Basket.fruit is Apple, tools.HAMMER)
        """,
        shop,
    )
    assert out == "['Apple', 'Basket', 'Pear', 'tools'] True 1"


def test_help_and_inspect_show_every_public_name(shop: Path, run: Run) -> None:
    out = run(
        """
        import inspect, pydoc, shop
        print([n for n, _ in inspect.getmembers(shop) if not n.startswith("_")])
        text = pydoc.plain(pydoc.render_doc(shop))
        print("class Apple" in text, "Red." in text, "class Basket" in text)
        """,
        shop,
    )
    # `shop.basket` and `shop.fruit` are there because the names are loaded in between: Python
    # binds a loaded submodule in its package. The list was made before.
    assert out.splitlines() == ["['Apple', 'Basket', 'Pear', 'tools']", "True True True"]


def test_inspect_finds_the_source_of_a_lazy_name(run: Run) -> None:
    out = run("import art, inspect; print(inspect.getsource(art.ArtError).splitlines()[0])")
    assert out == "class ArtError(Exception):"


def test_reload_keeps_loaded_names_and_loads_the_others(shop: Path, run: Run) -> None:
    out = run(
        """
        import importlib, shop
        apple = shop.Apple
        again = importlib.reload(shop)
        print(again is shop, shop.Apple is apple, shop.Basket.fruit is apple, shop.tools.HAMMER)
        with open(shop.__file__ + "i", "a") as stub:
            stub.write("from .fruit import Plum as Plum\\n")
        with open(shop.fruit.__file__, "a") as source:
            source.write("Plum = 'a new name'\\n")
        importlib.invalidate_caches()
        importlib.reload(importlib.reload(shop).fruit)
        print(shop.Plum, shop.Apple is apple)
        """,
        shop,
    )
    assert out.splitlines() == ["True True True 1", "a new name True"]


def test_modules_may_import_each_other_through_the_package(shop: Path, run: Run) -> None:
    out = run("import shop; print(shop.Pear().basket().fruit is shop.Apple)", shop)
    assert out == "True"
    out = run("from shop import Basket, Apple; print(Basket.fruit is Apple)", shop)
    assert out == "True"


def test_sixty_four_threads_get_one_object_from_one_load(shop: Path, run: Run) -> None:
    (shop / "shop" / "fruit.py").write_text(
        "import sys, time\n"
        "sys.loads = getattr(sys, 'loads', 0) + 1\n"
        "time.sleep(0.2)\n"
        "class Apple: ...\nclass Pear: ...\n"
    )
    out = run(
        """
        import sys, threading, shop
        start = threading.Barrier(64)
        found = []
        def touch():
            start.wait()
            found.append((shop.Apple, shop.Basket.fruit))
        threads = [threading.Thread(target=touch) for _ in range(64)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(found), len({id(each) for pair in found for each in pair}), sys.loads)
        """,
        shop,
    )
    assert out == "64 1 1"


def test_a_name_of_a_package_above_is_kept_in_the_package_that_lists_it(
    shop: Path, run: Run
) -> None:
    tools = shop / "shop" / "tools"
    tools.mkdir(exist_ok=True)
    (shop / "shop" / "tools.py").unlink(missing_ok=True)
    (tools / "__init__.py").write_text((shop / "shop" / "__init__.py").read_text())
    (tools / "__init__.pyi").write_text("from ..fruit import Apple as Apple\n")
    out = run(
        """
        import shop.tools
        apple = shop.tools.Apple
        print(apple.__module__, "Apple" in vars(shop.tools), "Apple" in vars(shop))
        """,
        shop,
    )
    assert out == "shop.fruit True False"


def test_a_name_of_art_that_is_refused_says_the_way(run: Run) -> None:
    last = run("import art; art.ServerlessBackend", fails=True).splitlines()[-1]
    assert last.startswith("AttributeError: module 'art' has no attribute 'ServerlessBackend': ")
    assert "art.TinkerBackend()" in last
