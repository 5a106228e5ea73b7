"""Engines that are killed (SIGKILL) at any moment of their start, of training and of saving.

The rules: a checkpoint that was acknowledged is there after the next start and loads; one whose
deletion was acknowledged is gone; the engine starts; what was half written goes.
"""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.attack.fuzz import Progress
from tests.attack.http_client import Client, NoAnswerError
from tests.attack.report import Report, Violation
from tests.attack.targets import Target, UnigramServers, start_art_serve
from tests.attack.world import SDK_VERSION, forward_backward_message, posted
from tests.processes import wait_until_gone

_KEPT = 12
_LEAST_LIFE_S = 0.02
_START_S = 0.15
_IN_START = 0.25


@dataclass(slots=True)
class Disk:
    """The checkpoints that must be on disk.

    Attributes:
        acknowledged: The digest of each checkpoint's weights by path, as they were acknowledged.
        saving: The path of a save that no answer came to.
        deleting: The path of a deletion that no answer came to.
        latest: The newest that training can go on from.
        acknowledgements: The number of saves that were acknowledged, in all.
        deletions: The number of deletions that were.
        lost: The number of acknowledged checkpoints that were not there after a start.
    """

    acknowledged: dict[str, str] = field(default_factory=dict)
    saving: str | None = None
    deleting: str | None = None
    latest: str | None = None
    acknowledgements: int = 0
    deletions: int = 0
    lost: int = 0


class _Trainer:
    """Trains and saves in a loop, until the engine is gone."""

    def __init__(self, target: Target, disk: Disk, rng: Random) -> None:
        self._target, self._disk, self._rng = target, disk, rng
        headers = {"X-API-Key": target.api_key, "Content-Type": "application/json"}
        self._client = Client(target.base_url, headers, timeout=60)
        self._seq_id = 0
        self.problem: str | None = None

    def run(self) -> None:
        """Train until a request is not answered; any other end is a problem."""
        try:
            self._begin()
            while True:
                self._step()
        except (NoAnswerError, OSError):
            return
        except AssertionError as error:
            self.problem = str(error)
        finally:
            self._client.close()

    def _begin(self) -> None:
        session = self._ask("create_session", sdk_version=SDK_VERSION)
        common = {"session_id": session["session_id"], "model_seq_id": 0}
        if self._disk.latest is None:
            made = self._ask(
                "create_model",
                **common,
                base_model=self._target.base_model,
                lora_config={"rank": 2, "seed": 1, "train_unembed": False},
            )
        else:
            made = self._ask("load_weights", **common, path=self._disk.latest, optimizer=True)
        self._model_id = self._result(made)["model_id"]

    def _step(self) -> None:
        message = forward_backward_message(self._model_id, self._next_seq(), [[1, 2, 3, 4]])
        answer = self._client(posted(message))
        assert answer.status == 200, f"forward_backward was answered {answer.status}"
        step = {"model_id": self._model_id, "seq_id": self._next_seq()}
        self._result(self._ask("optim_step", **step, adam_params={"learning_rate": 0.1}))
        kind = self._rng.choice(("weights", "weights", "sampler_weights"))
        name = self._rng.choice(("latest", f"s{self._seq_id}"))
        self._save(kind, name)
        if len(self._disk.acknowledged) > _KEPT:
            self._delete(self._rng.choice(sorted(self._disk.acknowledged)))

    def _save(self, kind: str, name: str) -> None:
        path = f"tinker://{self._model_id}/{kind}/{name}"
        self._disk.saving = path
        route = {"weights": "save_weights", "sampler_weights": "save_weights_for_sampler"}[kind]
        fields: dict[str, object] = {"overwrite": True} if kind == "weights" else {}
        saved = self._result(
            self._ask(route, model_id=self._model_id, seq_id=self._next_seq(), path=name, **fields)
        )
        assert saved.get("path") == path, f"{path} was not saved: {saved}"
        self._disk.acknowledgements += 1
        self._disk.acknowledged[path] = digest(self._target.root, path)
        self._disk.saving = None
        if kind == "weights":
            self._disk.latest = path

    def _delete(self, path: str) -> None:
        if path == self._disk.latest:
            return
        run, kind, name = path.removeprefix("tinker://").split("/")
        self._disk.deleting = path
        status, _ = self._client.json("DELETE", f"training_runs/{run}/checkpoints/{kind}/{name}")
        assert status == 204, f"deleting {path} was answered {status}"
        self._disk.deletions += 1
        del self._disk.acknowledged[path]
        self._disk.deleting = None

    def _next_seq(self) -> int:
        self._seq_id += 1
        return self._seq_id

    def _ask(self, route: str, **body: object) -> dict[str, Any]:
        status, answer = self._client.json("POST", route, body)
        assert status == 200, f"{route} was answered {status}: {answer}"
        assert isinstance(answer, dict)
        return answer

    def _result(self, answer: dict[str, Any]) -> dict[str, Any]:
        found = self._ask("retrieve_future", request_id=answer["request_id"])
        assert "error" not in found, f"{answer['request_id']} failed: {found['error']}"
        return found


def folder_of(root: Path, path: str) -> Path:
    """The folder of a checkpoint."""
    run, kind, name = path.removeprefix("tinker://").split("/")
    return root / "checkpoints" / run.replace(":", ".") / kind / name


def digest(root: Path, path: str) -> str:
    """A checkpoint's weights as the digest of their file."""
    file = folder_of(root, path) / "adapter_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Engines:
    """A way to start engines on one sandbox again and again.

    Attributes:
        start: Starts one, and returns once it listens.
        life_s: The longest that one is left alive after that.
        kill_in_start: Starts one and kills it before, or about when, it listens; ``None`` where
            that is not tried.
    """

    start: Callable[[], Target]
    life_s: float
    kill_in_start: Callable[[Random], None] | None = None


def unigram_engines(servers: UnigramServers, sandbox: Path) -> Engines:
    """Engines around the tiny executor."""

    def kill_in_start(rng: Random) -> None:
        pid, _ = servers.begin(sandbox)
        time.sleep(rng.uniform(0, _START_S))
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(pid)

    return Engines(lambda: servers.start(sandbox), life_s=0.6, kill_in_start=kill_in_start)


def art_engines(base_model: Path, sandbox: Path) -> Engines:
    """Real engines: ``art serve``."""
    return Engines(lambda: start_art_serve(base_model, sandbox), life_s=3.0)


class KillLoop:
    """Kills engines on one root, and checks the root after each start.

    Args:
        engines: Starts them.
        rng: Chooses the moments.

    Attributes:
        disk: The checkpoints that must be there.
    """

    def __init__(self, engines: Engines, rng: Random) -> None:
        self._engines, self._rng = engines, rng
        self.disk = Disk()

    def kill_in_start(self) -> bool:
        """Now and then, kill an engine while it starts; whether that was done."""
        kill = self._engines.kill_in_start
        if kill is None or self._rng.random() >= _IN_START:
            return False
        kill(self._rng)
        return True

    def train_and_kill(self) -> list[str]:
        """Start an engine, check the root, train on it, and kill it; what was wrong."""
        target = self._engines.start()
        problems = _problems(target, self.disk)
        trainer = _Trainer(target, self.disk, self._rng)
        thread = threading.Thread(target=trainer.run)
        thread.start()
        time.sleep(self._rng.uniform(_LEAST_LIFE_S, self._engines.life_s))
        target.kill()
        thread.join()
        return [*problems, trainer.problem] if trainer.problem is not None else problems

    def check(self) -> list[str]:
        """Start an engine, and say what is wrong with the root."""
        target = self._engines.start()
        problems = _problems(target, self.disk)
        target.kill()
        return problems


def run(
    engines: Engines,
    report: Report,
    *,
    seed: int,
    kills: int,
    part: str = "kills",
    deadline: float | None = None,
    progress: Progress | None = None,
) -> None:
    """Kill engines on one root, and check the root after each start.

    Args:
        engines: Starts them.
        report: Takes the counts and the violations.
        seed: Chooses the moments.
        kills: The number of kills.
        part: The name to report under.
        deadline: When to stop all the same, by ``time.monotonic``.
        progress: Shows how far it is.
    """
    loop = KillLoop(engines, Random(f"{seed}:{part}"))
    done = 0
    while done < kills and (deadline is None or time.monotonic() < deadline):
        if loop.kill_in_start():
            report.count(part, "killed while it started", "killed")
        else:
            _note(report, part, seed, done, loop.train_and_kill())
            report.count(part, "killed while it trained", "killed")
        done += 1
        if progress is not None and done % 10 == 0:
            progress(f"{part}: {done} kills, {loop.disk.acknowledgements} acknowledged checkpoints")
    _note(report, part, seed, done, loop.check())
    report.figures.append(
        f"{part}: {done} kills; {loop.disk.acknowledgements} checkpoints acknowledged and "
        f"{loop.disk.deletions} deletions; lost: {loop.disk.lost}"
    )


def _note(report: Report, part: str, seed: int, index: int, problems: list[str]) -> None:
    for problem in problems:
        report.violate(Violation(part, seed, None, f"after {index} kills: {problem}"))


def _problems(target: Target, disk: Disk) -> list[str]:
    """Compare a root, after a start, with what was acknowledged; learn what was left open."""
    client = Client(target.base_url, {"X-API-Key": target.api_key}, timeout=60)
    problems: list[str] = []
    status, body = client.json("GET", "checkpoints?limit=1000")
    assert status == 200, f"GET checkpoints was answered {status}"
    assert isinstance(body, dict)
    listed = {each["tinker_path"] for each in body["checkpoints"]}
    # Whether what was not acknowledged came to pass is for the disk to say. What a save replaces
    # must be there all the same.
    if disk.saving is not None and disk.saving in listed:
        disk.acknowledged[disk.saving] = digest(target.root, disk.saving)
    if disk.deleting is not None and disk.deleting not in listed:
        disk.acknowledged.pop(disk.deleting, None)
    disk.saving = disk.deleting = None
    for path, known in list(disk.acknowledged.items()):
        if path not in listed:
            disk.lost += 1
            del disk.acknowledged[path]
            problems.append(f"{path} was acknowledged and is lost")
        elif digest(target.root, path) != known:
            problems.append(f"{path} has other weights than were acknowledged")
    if unknown := listed - disk.acknowledged.keys():
        problems.append(f"nobody saved {sorted(unknown)[:3]}, or it was deleted")
    problems += [f"{path} does not load: {why}" for path, why in _unloadable(client, disk)]
    problems += [f"litter: {name}" for name in _litter(target)]
    client.close()
    return problems


def _unloadable(client: Client, disk: Disk) -> list[tuple[str, str]]:
    _, session = client.json("POST", "create_session", {"sdk_version": SDK_VERSION})
    assert isinstance(session, dict)
    session_id = session["session_id"]
    failed: list[tuple[str, str]] = []
    for number, path in enumerate(sorted(disk.acknowledged)):
        body = {
            "session_id": session_id,
            "model_seq_id": number,
            "path": path,
            "optimizer": "/weights/" in path,
        }
        _, answer = client.json("POST", "load_weights", body)
        assert isinstance(answer, dict)
        if "request_id" in answer:
            request = {"request_id": answer["request_id"]}
            _, answer = client.json("POST", "retrieve_future", request)
        if not isinstance(answer, dict) or "error" in answer:
            failed.append((path, str(answer)))
    client.json("POST", f"sessions/{session_id}/finish", {})
    return failed


def _litter(target: Target) -> list[str]:
    """What lies in a root beside its checkpoints and the running engine's own files."""
    root = target.root
    scratch = sorted(root.glob("scratch-*"))
    litter = [str(path.relative_to(root)) for path in scratch[1:]]
    litter += target.strays()
    for run_folder in (root / "checkpoints").iterdir():
        found = list(run_folder.glob("*/*"))
        litter += [str(path.relative_to(root)) for path in found if path.name.startswith(".")]
        if not found:
            litter.append(str(run_folder.relative_to(root)))
    return litter
