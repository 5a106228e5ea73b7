"""``art serve`` as a process: what it says, and how it ends."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import tinker

from ..processes import Child, art_command, run_art, wait_until_gone

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@posix
def test_an_engine_dies_with_its_parent(tmp_path: Path, tiny_model: Path) -> None:
    """The parent is killed with SIGKILL, so it can tell the engine nothing."""
    script = """
import subprocess, sys
engine = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
for line in engine.stdout:
    if '"ready"' in line:
        print(engine.pid, flush=True)
"""
    command = art_command("serve", tiny_model, "--root", tmp_path, "--child")
    with Child(sys.executable, "-c", script, *command) as parent:
        pid = int(parent.read_line())
        os.kill(pid, 0)
        parent.kill()
    wait_until_gone(pid)


def test_a_port_in_use_is_reported(tmp_path: Path, tiny_model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = run_art("serve", tiny_model, "--root", tmp_path, "--port", str(port), status=1)
    assert f"art: port {port} on 127.0.0.1 is taken" in ran.stderr


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("secret", "must start with 'tml-'"),
        ("tml-", "fewer than 8"),
        ("tml-1234567", "fewer than 8"),
    ],
)
def test_a_key_that_cannot_be_used_is_reported(
    tmp_path: Path, tiny_model: Path, key: str, problem: str
) -> None:
    environment = {"ART_ENGINE_API_KEY": key}
    ran = run_art("serve", tiny_model, "--root", tmp_path, env=environment, status=1)
    assert problem in ran.stderr


@pytest.mark.parametrize("option", ["--trainer", "--sampler"])
def test_an_unknown_executor_is_answered_with_the_known_ones(
    tmp_path: Path, tiny_model: Path, option: str
) -> None:
    ran = run_art("serve", tiny_model, "--root", tmp_path, option, "tourch", status=1)
    role = option.removeprefix("--")
    assert f"art: unknown {role} 'tourch'; known: torch. Did you mean 'torch'?" in ran.stderr


@posix
def test_a_person_is_told_how_to_use_it_and_can_end_it(tmp_path: Path, tiny_model: Path) -> None:
    command = art_command("serve", tiny_model, "--root", tmp_path)
    with Child(*command, env={"ART_ENGINE_API_KEY": None}) as server:
        shown = [
            server.read_line(f"export {name}=").partition("=")[2]
            for name in ("TINKER_BASE_URL", "TINKER_API_KEY")
        ]
        rest = tinker.RestClient(base_url=shown[0], api_key=shown[1])
        assert rest.get_server_capabilities().result().supported_models
        server.send_signal(signal.SIGINT)
        server.wait(130, timeout=20)
    assert not list(tmp_path.glob("scratch-*"))
