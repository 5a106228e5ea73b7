"""What touching a name raises when its module cannot be loaded: the true cause, always."""

import ast
import pickle
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import art
from art._lazy import _EXTRA_OF_SUBPACKAGE, _MODULES_OF_EXTRA, explain_missing
from art.errors import MissingExtraError

from .conftest import AddModule, Run

ART = Path(art.__file__).parent
PYPROJECT = ART.parent / "pyproject.toml"
# The distributions whose modules have other names, and those whose dependencies art imports too.
MODULES_OF_DISTRIBUTION = {
    "fastapi": {"fastapi", "starlette"},
    "megatron-core": {"megatron"},
    "pyyaml": {"yaml"},
    "tinker": {"tinker", "google"},
    "transformers": {"transformers", "huggingface_hub", "packaging", "tokenizers"},
}


@pytest.mark.parametrize(
    "touch", ["hasattr(shop, 'Torn')", "getattr(shop, 'Torn', None)", "from shop import Torn"]
)
@pytest.mark.parametrize(
    ("source", "error", "cause"),
    [
        ("import sys\nTorn = sys.no_such_thing", "ImportError", "no_such_thing"),
        ("from json import no_such_name as Torn", "ImportError", "no_such_name"),
        ("Torn = undefined", "NameError", "undefined"),
        ("Torn = ", "SyntaxError", "invalid syntax"),
        ("raise RuntimeError('no licence')", "RuntimeError", "no licence"),
        ("Other = 1", "ImportError", "has no attribute 'Torn'"),
        ("from shop import Torn", "ImportError", "circular import"),
        ("import no_such_module", "ModuleNotFoundError", "no_such_module"),
        ("import json.no_such_part", "ModuleNotFoundError", "json.no_such_part"),
    ],
)
def test_a_broken_module_surfaces_its_true_cause(
    shop: Path, add: AddModule, run: Run, source: str, error: str, cause: str, touch: str
) -> None:
    add("torn", source)
    stderr = run(f"import shop; {touch}", shop, fails=True)
    last = [line for line in stderr.splitlines() if re.match(r"\w+(\.\w+)*Error: ", line)][-1]
    assert last.startswith(f"{error}: ")
    assert cause in stderr
    assert "torn" in stderr  # the module is named, or its line is in the traceback


def test_an_attribute_error_is_chained_and_names_the_address(
    shop: Path, add: AddModule, run: Run
) -> None:
    add("torn", "import sys\nTorn = sys.no_such_thing")
    out = run(
        """
        import shop
        try:
            shop.Torn
        except ImportError as error:
            print(error, "|", error.name, "|", repr(error.__cause__))
        """,
        shop,
    )
    message, name, cause = out.split(" | ")
    assert message == "cannot load shop.Torn: module 'sys' has no attribute 'no_such_thing'"
    assert name == "shop.torn"
    assert cause.startswith("AttributeError(")


def test_an_error_is_raised_again_and_a_repaired_module_loads(
    shop: Path, add: AddModule, run: Run
) -> None:
    add("torn", "import sys\nTorn = sys.no_such_thing")
    out = run(
        """
        import importlib, pathlib, shop
        for _ in range(2):
            try:
                shop.Torn
            except ImportError:
                print("ImportError")
        pathlib.Path(shop.__path__[0], "torn.py").write_text("Torn = 'repaired'")
        importlib.invalidate_caches()
        print(shop.Torn)
        """,
        shop,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert out.split() == ["ImportError", "ImportError", "repaired"]


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """A copy of art whose engine imports `torch`, beside a `torch` that a test can damage."""
    import shutil

    shutil.copytree(ART, tmp_path / "art", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "art/engine/__init__.pyi").write_text("from .torn import Torn as Torn\n")
    (tmp_path / "art/engine/torn.py").write_text("import torch.nn\nTorn = 1\n")
    return tmp_path


TOUCH = """
    import sys, art
    assert art.__file__.startswith(sys.path[0]), art.__file__
    try:
        from art.engine import Torn
    except ImportError as error:
        print(type(error).__name__, "|", error.name, "|", error, "|", repr(error.__cause__))
"""


def test_an_absent_engine_names_its_extra_and_the_command(engine: Path, run: Run) -> None:
    # The import of `torch` is blocked the way the import system documents: None in sys.modules.
    out = run(f"sys.modules['torch'] = None\n{TOUCH.replace(chr(10) + '    ', chr(10))}", engine)
    kind, name, message, cause = out.split(" | ")
    assert (kind, name) == ("MissingExtraError", "torch")
    assert message == (
        "art.engine.torn needs 'torch', which is not installed. "
        'Install it with: pip install "art-rl[local]"'
    )
    assert cause.startswith("ModuleNotFoundError(")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"torch/__init__.py": ""}, "ModuleNotFoundError | torch.nn | No module named 'torch.nn'"),
        ({"torch/README": ""}, "ModuleNotFoundError | torch.nn | No module named 'torch.nn'"),
        (
            {"torch/__init__.py": "import libtorch_cuda"},
            "ModuleNotFoundError | libtorch_cuda | No module named 'libtorch_cuda'",
        ),
        (
            {"torch/__init__.py": "raise ImportError('libcudart.so.13: cannot open', name='_C')"},
            "ImportError | _C | libcudart.so.13: cannot open",
        ),
    ],
    ids=["no submodule", "an empty folder", "a lost dependency", "a lost library"],
)
def test_a_partial_install_propagates_untouched(
    engine: Path, run: Run, files: dict[str, str], expected: str
) -> None:
    for name, text in files.items():
        (engine / name).parent.mkdir(exist_ok=True)
        (engine / name).write_text(text)
    out = run(TOUCH, engine)
    assert out == f"{expected} | None"


@pytest.mark.parametrize(
    "name", ["transformer_engine", "art.gone", "no_such_module", "json.gone", None]
)
def test_the_advice_is_not_given_for_what_no_extra_brings(name: str | None) -> None:
    error = ModuleNotFoundError("gone", name=name)
    assert explain_missing(error, "art.megatron.model_support.handlers") is error


def test_the_error_survives_pickling() -> None:
    error = MissingExtraError("art.engine", "torch", "local")
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.name, twin.extra) == (str(error), "torch", "local")


def imported_at_top(folder: Path) -> dict[str, set[str]]:
    """The root packages that the modules of each part of art import, wherever they stand."""
    roots: dict[str, set[str]] = {}
    for path in ART.rglob("*.py"):
        part = path.relative_to(ART).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            roots.setdefault(part, set()).update(name.partition(".")[0] for name in names)
    return {part: found - set(sys.stdlib_module_names) - {"art"} for part, found in roots.items()}


@pytest.mark.skipif(not PYPROJECT.exists(), reason="not a source tree")
def test_the_extras_bring_what_the_table_says_and_the_code_imports() -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]

    def modules(requirements: list[str]) -> set[str]:
        found: set[str] = set()
        for requirement in requirements:
            parsed = Requirement(requirement)
            for extra in parsed.extras:
                found |= modules(project["optional-dependencies"][extra])
            if parsed.name != project["name"]:
                module = parsed.name.replace("-", "_")
                found |= MODULES_OF_DISTRIBUTION.get(parsed.name, {module})
        return found

    extras = {name: modules(needs) for name, needs in project["optional-dependencies"].items()}
    for extra, names in _MODULES_OF_EXTRA.items():
        assert set(names.split()) <= extras[extra], extra
    base = modules(project["dependencies"]) | {"typing_extensions"}
    for part, roots in imported_at_top(ART).items():
        extra_of_part = _EXTRA_OF_SUBPACKAGE.get(part)
        if extra_of_part is not None:
            assert roots - base <= set(_MODULES_OF_EXTRA[extra_of_part].split()), part
