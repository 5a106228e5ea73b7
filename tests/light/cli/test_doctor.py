"""``art doctor``: against real servers, real programs and what is really installed."""

import http.server
import json
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import distributions, version
from pathlib import Path

import pytest

from art.cli.doctor_extras import installed_extras
from tests.processes import run_python

from .conftest import Run

KEY = "tml-right"


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as a Tinker server does: 401 without the key, else what it serves."""

    models = ("acme/one", "acme/two")
    body: bytes | None = None

    def do_GET(self) -> None:
        is_known = self.path == "/base/api/v1/get_server_capabilities"
        status = 404 if not is_known else 200 if self.headers["X-API-Key"] == KEY else 401
        self.send_response(status)
        self.end_headers()
        served = {"supported_models": [{"model_name": name} for name in self.models]}
        self.wfile.write(self.body or json.dumps(served).encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[type[Server]], str]]:
    started: list[http.server.HTTPServer] = []

    def start(handler: type[Server]) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def line(output: str, subject: str) -> str:
    """What the report says of a subject, on one line."""
    lines = output.splitlines()
    (start,) = [i for i, text in enumerate(lines) if text[8:].startswith(subject)]
    end = next(
        (i for i in range(start + 1, len(lines)) if not lines[i].startswith(" ")), len(lines)
    )
    return " ".join(" ".join(lines[start:end]).split())


def test_a_healthy_machine(art: Run) -> None:
    result = art("doctor")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"{sys.version_info[0]}.{sys.version_info[1]}." in line(result.stdout, "python")
    assert line(result.stdout, "art").startswith(f"ok art {version('art-rl')}")
    assert "not set up" in line(result.stdout, "tinker server")
    assert max(map(len, result.stdout.splitlines())) <= 100
    installed = {
        distribution.metadata["Name"].lower().replace("_", "-") for distribution in distributions()
    }
    for extra, root in {"tinker": "tinker", "local": "peft", "megatron": "megatron-core"}.items():
        said = line(result.stdout, f"[{extra}]")
        assert said.startswith("ok" if root in installed else "absent"), said
        assert (f'pip install "art-rl[{extra}]"' in said) is (root not in installed)


def test_an_extra_has_what_its_markers_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "lazy-loader<0.7,>=0.6",
        "numpy>=1; extra == 'tinker'",
        "torch>=99 ; extra == 'local'",
        'peft (>=0.1) ; extra == "local"',
        "Shop[tinker]; extra == 'local'",
        "page @ https://example.org/page.zip ; extra == 'tinker'",
        "uvicorn[standard]!=0.1,>=0.2; extra == 'tinker'",
        f"einops>=0.8; (sys_platform == '{sys.platform}') and extra == 'megatron'",
        "never; sys_platform == 'nowhere' and extra == 'megatron'",
        "psutil; python_version >= '3.11' and extra == 'megatron'",
        "old; python_version < '3' and extra == 'megatron'",
    ]
    info = tmp_path / "shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n"
        + "".join(f"Provides-Extra: {name}\n" for name in ("tinker", "local", "megatron"))
        + "".join(f"Requires-Dist: {text}\n" for text in lines)
    )
    monkeypatch.syspath_prepend(tmp_path)
    tinker = {"numpy": ">=1", "page": "", "uvicorn": "!=0.1,>=0.2"}
    expected = {
        "tinker": tinker,
        "local": {"torch": ">=99", "peft": ">=0.1", **tinker},
        "megatron": {"einops": ">=0.8", "psutil": ""},
    }
    found = {
        extra.name: {each.distribution: str(each.versions) for each in extra.requirements}
        for extra in installed_extras("shop")
    }
    assert found == expected


@pytest.mark.parametrize(
    ("requirement", "missing", "too_old"),
    [
        ("packaging>=1", [], []),
        ("packaging>=999", [], ["packaging"]),
        ("packaging<1", [], ["packaging"]),
        ("no-such-distribution", ["no-such-distribution"], []),
    ],
)
def test_an_extra_is_held_to_what_is_installed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    requirement: str,
    missing: list[str],
    too_old: list[str],
) -> None:
    info = tmp_path / "shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: shop\nVersion: 1.0\nProvides-Extra: tools\n"
        f"Requires-Dist: {requirement}; extra == 'tools'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (extra,) = installed_extras("shop")
    assert [each.distribution for each in extra.missing] == missing
    assert [each.distribution for each in extra.too_old] == too_old


def test_a_version_that_art_does_not_work_with_is_broken(art: Run, tmp_path: Path) -> None:
    info = tmp_path / "tinker-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tinker\nVersion: 0.1.0\n")
    result = art("doctor", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    said = line(result.stdout, "[tinker]")
    assert said.startswith("broken [tinker] tinker 0.1.0, but art needs")
    assert said.endswith('pip install "art-rl[tinker]"')


def test_a_server_that_answers(art: Run, serve: Callable[[type[Server]], str]) -> None:
    url = serve(Server) + "/base"
    result = art("doctor", TINKER_BASE_URL=url, TINKER_API_KEY=KEY)
    assert result.returncode == 0
    assert line(result.stdout, "tinker server") == (
        f"ok tinker server {url} serves acme/one, acme/two"
    )


@pytest.mark.parametrize(
    ("path", "key", "said"),
    [
        ("/base", "tml-wrong", "is reachable, but refuses the key"),
        ("/base", None, "is reachable, but TINKER_API_KEY is not set"),
        ("/base", "sk-other", "TINKER_API_KEY is not a Tinker key"),
        ("/elsewhere", KEY, "answers with status 404: no Tinker server?"),
    ],
)
def test_a_server_that_refuses(
    art: Run, serve: Callable[[type[Server]], str], path: str, key: str | None, said: str
) -> None:
    result = art("doctor", TINKER_BASE_URL=serve(Server) + path, TINKER_API_KEY=key)
    assert result.returncode == 1
    assert line(result.stdout, "tinker server").startswith("broken")
    assert said in line(result.stdout, "tinker server")


def test_a_server_that_is_none(art: Run, serve: Callable[[type[Server]], str]) -> None:
    class Page(Server):
        body = b"<html>welcome</html>"

    result = art("doctor", TINKER_BASE_URL=serve(Page) + "/base", TINKER_API_KEY=KEY)
    assert result.returncode == 1
    assert "answers, but not as a Tinker server does" in line(result.stdout, "tinker server")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1", "cannot be reached: [Errno"),
        ("http://no-such-host.invalid", "cannot be reached:"),
        ("127.0.0.1:8000", "is not an http(s) address"),
    ],
)
def test_a_server_that_is_not_there(art: Run, url: str, said: str) -> None:
    result = art("doctor", TINKER_BASE_URL=url, TINKER_API_KEY=KEY)
    assert result.returncode == 1
    assert f"{url}" in line(result.stdout, "tinker server")
    assert said in line(result.stdout, "tinker server")


@pytest.mark.skipif(sys.platform != "linux", reason="the programs are shell scripts")
@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("echo 'NVIDIA H200, 143771 MiB, 570.1'", 0, "ok gpu NVIDIA H200, 143771 MiB, driver 570"),
        ("echo 'No devices were found'; exit 6", 1, "nvidia-smi failed: No devices were found"),
        ("exit 9", 1, "nvidia-smi failed: status 9"),
    ],
)
def test_nvidia_smi_is_asked(art: Run, tmp_path: Path, script: str, status: int, said: str) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    result = art("doctor", PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert result.returncode == status
    assert said in line(result.stdout, "gpu")


@pytest.fixture(scope="module")
def base_install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """art and lazy_loader with what it requires: nothing else can be imported but the stdlib."""
    import lazy_loader
    import packaging

    import art as package

    folder = tmp_path_factory.mktemp("base")
    for module in (lazy_loader, packaging, package):
        assert module.__file__ is not None
        source = Path(module.__file__).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    (record,) = [d for d in distributions() if d.metadata["Name"] == "art-rl"][:1]
    info = folder / f"art_rl-{record.version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(record.read_text("METADATA") or "")
    return folder


@pytest.mark.parametrize(
    "command", [["models"], ["models", "--json"], ["models", "check", "qwen3_moe"], ["doctor"]]
)
def test_a_base_install_is_enough(base_install: Path, command: list[str]) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(base_install)!r})\n"
        f"from art.cli import main\nstatus = main({command!r})\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(roots - set(sys.stdlib_module_names) - {'__main__', '_distutils_hack'}))\n"
        "sys.exit(status)"
    )
    result = run_python(code, flags=("-I", "-S"))
    assert result.stderr == ""
    third_party = result.stdout.splitlines()[-1]
    assert set(json.loads(third_party.replace("'", '"'))) <= {"art", "lazy_loader", "packaging"}
