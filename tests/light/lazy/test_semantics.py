"""The table of ``docs/lazy-imports.md``: each cell is what a fresh interpreter answers.

The same package is made lazy by art, by lazy_loader, by what transformers and huggingface_hub use
for themselves, and by the syntax of PEP 810; each row of the table is a question put to it.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import art

from .conftest import Run

DOCUMENT = Path(art.__file__).parents[1] / "docs" / "lazy-imports.md"
STRUCTURE = {"fruit": ["Apple", "Pear"], "basket": ["Basket"], "torn": ["Torn"], "raw": ["Raw"]}
PUBLIC = [name for names in STRUCTURE.values() for name in names]
INITS = {
    "art": "from art import _lazy\n__getattr__, __dir__, __all__ = _lazy.attach(__name__)\n",
    "lazy_loader": (
        "import lazy_loader\n"
        "__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)\n"
    ),
    "transformers": (
        "import sys\n"
        "from transformers.utils.import_utils import _LazyModule\n"
        "sys.modules[__name__] = _LazyModule(\n"
        f"    __name__, __file__, {STRUCTURE | {'tools': []}!r}, module_spec=__spec__)\n"
    ),
    "huggingface_hub": (
        "from huggingface_hub import _attach\n"
        f"__getattr__, __dir__ = _attach(__name__, ['tools'], {STRUCTURE!r})\n"
        f"__all__ = {sorted(['tools', *PUBLIC])!r}\n"
    ),
    "PEP 810": "lazy from . import tools as tools\n"
    + "".join(f"lazy from .{m} import {n} as {n}\n" for m, ns in STRUCTURE.items() for n in ns),
}

# Each prints one answer.
QUESTIONS = {
    "`import shop` loads no module of it": """
        import shop
        print("no" if any(name.startswith("shop.") for name in sys.modules) else "yes")""",
    "`import shop` loads `ast` or `typing`": """
        import shop
        print("yes" if {"ast", "typing"} & sys.modules.keys() else "no")""",
    "`shop.Aple` suggests `Apple`": """
        import io, shop
        try:
            shop.Aple
        except AttributeError as error:
            sys.stderr = io.StringIO()
            sys.__excepthook__(type(error), error, None)
            print("yes" if "Did you mean: 'Apple'" in sys.stderr.getvalue() else "no")""",
    "`hasattr` where the module raises `AttributeError`": """
        import shop
        try:
            print(hasattr(shop, "Torn"))
        except Exception as error:
            print(type(error).__name__)""",
    "`shop.Raw` where the module raises `RuntimeError`": """
        import shop
        try:
            shop.Raw
        except Exception as error:
            print(type(error).__name__)""",
    "`dir(shop)` keeps `__path__`": """
        import shop
        print("yes" if "__path__" in dir(shop) else "no")""",
    "`shop.fruit`, a module that names come from": """
        import shop
        print("yes" if hasattr(shop, "fruit") else "no")""",
    "`from shop import *` brings lazy names": """
        import os
        for name in ("torn", "raw"):
            with open(os.path.join(sys.path[0], "shop", f"{name}.py"), "w") as file:
                file.write("Torn = Raw = 1")
        from shop import *
        print("yes" if "Apple" in globals() else "no")""",
    "a touched name is kept in the package": """
        import shop
        shop.Apple
        print("yes" if "Apple" in vars(shop) else "no")""",
    "the package is a plain module": """
        import shop, types
        print("yes" if type(shop) is types.ModuleType else "no")""",
    "`importlib.reload(shop)` keeps its names": """
        import importlib, shop
        apple = shop.Apple
        try:
            again = importlib.reload(shop)
            print("yes" if again.Apple is apple and again.Pear else "no")
        except Exception as error:
            print(type(error).__name__)""",
    "works from a zip file": """
        import os, zipfile
        home = sys.path[0]
        with zipfile.ZipFile(os.path.join(home, "shop.zip"), "w") as bundle:
            for folder, _, files in os.walk(os.path.join(home, "shop")):
                for file in files:
                    path = os.path.join(folder, file)
                    bundle.write(path, os.path.relpath(path, home))
        sys.path[0] = os.path.join(home, "shop.zip")
        try:
            import shop
            print("yes" if shop.Apple and "shop.zip" in shop.__file__ else "no")
        except Exception as error:
            print(type(error).__name__)""",
    "`EAGER_IMPORT=false` in the environment loads all": """
        import os
        os.environ["EAGER_IMPORT"] = "false"
        try:
            import shop
            print("yes" if "shop.fruit" in sys.modules else "no")
        except Exception as error:
            print("yes")""",
}


def table() -> dict[str, dict[str, str]]:
    """The cells of the document's table: for each question, the answer of each technique."""
    text = DOCUMENT.read_text(encoding="utf-8")
    lines = text[text.index("| Question |") :].partition("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    _, *techniques = rows[0]
    return {row[0]: dict(zip(techniques, row[1:], strict=True)) for row in rows[2:]}


def ask(shop: Path, run: Run, technique: str, question: str) -> str:
    package = shop / "shop"
    (package / "__init__.py").write_text(INITS[technique])
    stub = package / "__init__.pyi"
    stub.write_text(
        stub.read_text() + "from .raw import Raw as Raw\nfrom .torn import Torn as Torn\n"
    )
    (package / "torn.py").write_text("import sys\nTorn = sys.no_such_thing\n")
    (package / "raw.py").write_text("raise RuntimeError('no licence')\n")
    return run(QUESTIONS[question], shop).splitlines()[-1]


def test_the_document_asks_every_question() -> None:
    assert list(table()) == list(QUESTIONS)
    assert all(list(row) == list(INITS) for row in table().values())


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("technique", INITS)
def test_the_table_says_what_happens(shop: Path, run: Run, technique: str, question: str) -> None:
    if technique == "PEP 810" and sys.version_info < (3, 15):
        pytest.skip("the syntax is that of Python 3.15")
    if technique != "PEP 810" and find_spec(technique) is None:
        pytest.skip(f"{technique} is not installed")
    expected = table()[question][technique]
    if expected == "unknown":
        pytest.skip("the document does not say")
    assert ask(shop, run, technique, question) == expected
