"""The tree that ``art imports`` prints: what is loaded, and what each name would load."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import art
from art._lazy import read_stub
from art.errors import ConfigurationError

# Fresh processes run these. The last line of their output is JSON.
_LOADED = """\
import sys, time
before, started = set(sys.modules), time.perf_counter()
exec(sys.argv[1], {"__name__": "__main__"})
seconds = time.perf_counter() - started
new = [name for name in list(sys.modules) if name not in before]
import json
print("\\n" + json.dumps({"seconds": seconds, "new": new, "error": None}))
"""
_LOAD = """\
import sys, time, importlib
package, module, name = sys.argv[1:]
holder = importlib.import_module(package)
before, started, error = set(sys.modules), time.perf_counter(), None
try:
    getattr(holder, name)
except Exception as raised:
    error = f"{type(raised).__name__}: {raised}"
seconds = time.perf_counter() - started
new = [name for name in list(sys.modules) if name not in before]
import json
print("\\n" + json.dumps({"seconds": seconds, "new": new, "error": error}))
"""


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One module of a lazy package, and the names that touching loads it.

    Attributes:
        package: The lazy package, such as ``"art.tinker"``.
        module: The module's full name.
        names: The public names that come from it.
        loaded: Whether it is loaded after the line of code that was run.
        seconds: What touching one of the names takes in a fresh process; ``None`` if loaded.
        modules: How many modules that loads.
        packages: The third-party packages among them, in the order of loading.
        error: What touching it raised, where it cannot be loaded.
    """

    package: str
    module: str
    names: list[str]
    loaded: bool
    seconds: float | None = None
    modules: int = 0
    packages: list[str] = field(default_factory=list)
    error: str | None = None

    def __str__(self) -> str:
        if self.loaded:
            return "loaded"
        if self.error is not None:
            return f"cannot load: {self.error}"
        packages = ", ".join(self.packages[:6])
        rest = f" and {len(self.packages) - 6} more" if len(self.packages) > 6 else ""
        cost = f"{(self.seconds or 0) * 1e3:.1f} ms, {self.modules} modules"
        return f"not loaded: {cost}: {packages}{rest}"


def show(packages: Sequence[str], *, after: str, as_json: bool = False) -> None:
    """Print the tree, each branch as soon as it is measured.

    Args:
        packages: Full names of lazy packages; none means all.
        after: The line of code that is run before looking at what is loaded.
        as_json: Write each branch as a line of JSON instead.

    Raises:
        ConfigurationError: A name is no lazy package, or the line of code failed.
    """
    known = _lazy_packages()
    for package in packages:
        if package not in known:
            raise ConfigurationError(
                f"{package} is not a lazy package; choose one of {', '.join(known)}"
            )
    loaded = _fresh(_LOADED, after)
    if not as_json:
        print(f"after {after!r}: {loaded['seconds'] * 1e3:.1f} ms, {len(loaded['new'])} modules\n")
    for package in packages or known:
        branches = list(_modules_of(package).items())
        if not as_json and branches:
            state = "loaded" if package in loaded["new"] else "not loaded"
            print(f"{package} ({state})")
        for number, (module, names) in enumerate(branches, start=1):
            branch = _measure(package, module, names, module in loaded["new"])
            if as_json:
                print(json.dumps(asdict(branch)), flush=True)
            else:
                _print_branch(branch, is_last=number == len(branches))


def _print_branch(branch: Branch, *, is_last: bool) -> None:
    corner, stem = ("└── ", "    ") if is_last else ("├── ", "│   ")
    short = branch.module.removeprefix(f"{branch.package}.")
    print(f"{corner}{short} ({branch})")
    if branch.names != [short]:
        indent = f"{stem}    "
        text = ", ".join(branch.names)
        print(textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=indent))
    sys.stdout.flush()


def _lazy_packages() -> list[str]:
    root = Path(art.__file__).parent
    folders = sorted(stub.parent for stub in root.rglob("__init__.pyi"))
    return [".".join(folder.relative_to(root.parent).parts) for folder in folders]


def _modules_of(package: str) -> dict[str, list[str]]:
    modules: dict[str, list[str]] = {}
    for name, module in read_stub(import_module(package)).items():
        modules.setdefault(f"{package}.{module}", []).append(name)
    return modules


def _measure(package: str, module: str, names: list[str], loaded: bool) -> Branch:
    if loaded:
        return Branch(package=package, module=module, names=names, loaded=True)
    found = _fresh(_LOAD, package, module, names[0])
    return Branch(
        package=package,
        module=module,
        names=names,
        loaded=False,
        seconds=found["seconds"],
        modules=len(found["new"]),
        packages=list(_third_party(found["new"])),
        error=found["error"],
    )


def _third_party(modules: list[str]) -> Iterator[str]:
    seen = {"art", *sys.stdlib_module_names}
    for name in modules:
        root = name.partition(".")[0]
        if root not in seen:
            seen.add(root)
            if not root.startswith("_"):
                yield root


def _fresh(script: str, *arguments: str) -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True
    )
    if result.returncode:
        raise ConfigurationError(f"{arguments[0]!r} failed:\n{result.stderr.strip()}")
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found
