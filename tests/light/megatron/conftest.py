"""Distributions with plug-ins, as pip unpacks them, and fresh interpreters that find them."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.processes import ROOT, Environment, run

SPEC = """
    from art.megatron.model_support.spec import DependencyFloor, HandlerMeta, ModelSupportSpec

    SPEC = ModelSupportSpec(
        handler=HandlerMeta(key={key!r}, handler_name={handler_name!r}),
        model_types={model_types!r},
        model_names={models!r},
        default_target_modules=("q_proj", "o_proj"),
        dependency_floor=DependencyFloor({minimum_versions}),
    )
"""


class Site:
    """A folder on the path of the interpreters that it starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        name: str,
        files: dict[str, str],
        entry_points: dict[str, str],
        *,
        version: str = "1.0",
    ) -> None:
        """Unpack a distribution with these files and entry points."""
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata)
        lines = [f"{key} = {address}" for key, address in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[art.model_support]", *lines]))
        for path, text in files.items():
            (self.folder / path).write_text(textwrap.dedent(text))

    def install_family(
        self,
        name: str,
        *,
        key: str,
        models: object = (),
        model_types: object = (),
        minimum_versions: str = "",
        handler_name: str | None = None,
    ) -> None:
        """Unpack a distribution with one family, whose module has the distribution's name."""
        module = name.replace("-", "_")
        address = handler_name or f"{module}_handler:HANDLER"
        spec = SPEC.format(
            key=key,
            models=models,
            model_types=model_types,
            minimum_versions=minimum_versions,
            handler_name=address,
        )
        self.install(name, {f"{module}.py": spec}, {key: f"{module}:SPEC"})

    def run(
        self, *arguments: str, environment: Environment | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Start Python with the folder on its path."""
        return run(
            sys.executable,
            *arguments,
            status=None,
            timeout=300,
            cwd=ROOT,
            env={"PYTHONPATH": str(self.folder), **(environment or {})},
        )

    def python(
        self, code: str, *, expect_stderr: bool = False, environment: Environment | None = None
    ) -> str:
        """Run code that must succeed; return what it printed."""
        result = self.run("-c", textwrap.dedent(code), environment=environment)
        assert result.returncode == 0, result.stderr
        assert expect_stderr or not result.stderr, result.stderr
        return result.stdout


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")
