"""The parts of the attack, each with its rules; tests call them with small numbers."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from tests.attack import kills, neighbour
from tests.attack.chat import ChatAttacker
from tests.attack.fuzz import Fuzz, Progress, endpoint_problem, engine_problem
from tests.attack.http_client import Client, Request
from tests.attack.json_routes import JsonAttacker
from tests.attack.protobuf_messages import ProtobufAttacker
from tests.attack.proxy import FaultyProxy
from tests.attack.report import Report, Violation
from tests.attack.targets import Target
from tests.attack.watch import HEALTH_S, Watch

STEP_S = 30.0
"""Seconds that a step of a client may take while others attack: far more than it does."""

_STEPS = 25
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The options that all parts share.

    Attributes:
        report: Takes the counts, the figures and the violations.
        seed: With the number of an input, it makes the same input again.
        deadline: When to stop all the same, by ``time.monotonic``.
        progress: Shows how far it is.
        health_s: Seconds within which a server must answer all along.
        bombs: How often a body of protobuf is a zstd bomb, of all.
    """

    report: Report
    seed: int
    deadline: float | None = None
    progress: Progress | None = None
    health_s: float = HEALTH_S
    bombs: float = 0.001

    @property
    def is_over(self) -> bool:
        """True once the time is over."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def violate(self, part: str, problem: str) -> None:
        """Note that a rule was broken."""
        self.report.violate(Violation(part, self.seed, None, problem))


def attack_engine(
    run: Run,
    target: Target,
    *,
    json: int,
    protobuf: int,
    first: int = 0,
    name: str = "unigram",
    max_growth: int = 1 << 30,
) -> None:
    """Send hostile requests to an engine, while a well-behaved client trains on it.

    Args:
        run: The options.
        target: The engine.
        json: The number of requests to the routes of JSON.
        protobuf: The number of requests with protobuf.
        first: The number of the first input.
        name: Says which engine it is.
        max_growth: The most bytes of memory that the engine may add.
    """

    def connect() -> Client:
        return Client(target.base_url, {"X-API-Key": target.api_key})

    fuzzes = [
        (
            json,
            Fuzz(
                part="json",
                attacker=lambda client: JsonAttacker(client, target.base_model),
                connect=connect,
                problem=engine_problem,
            ),
        ),
        (
            protobuf,
            Fuzz(
                part="protobuf",
                attacker=lambda client: ProtobufAttacker(
                    client, target.base_model, bombs=run.bombs
                ),
                connect=connect,
                problem=engine_problem,
            ),
        ),
    ]
    clean = neighbour.train(target, steps=_STEPS)
    watch = Watch(
        target,
        run.report,
        part=f"engine ({name})",
        seed=run.seed,
        max_growth=max_growth,
        max_health_s=run.health_s,
    )
    with watch, _neighbours(run, target, clean, name):
        for inputs, fuzz in fuzzes:
            fuzz.run(
                run.report,
                seed=run.seed,
                inputs=inputs,
                first=first,
                deadline=run.deadline,
                progress=run.progress,
            )


def attack_endpoint(run: Run, target: Target, *, inputs: int, first: int = 0) -> None:
    """Send hostile requests to the OpenAI-compatible endpoint."""
    fuzz = Fuzz(
        part="chat",
        attacker=ChatAttacker,
        connect=lambda: Client(target.base_url, {"Authorization": f"Bearer {target.api_key}"}),
        problem=endpoint_problem,
    )
    with Watch(
        target,
        run.report,
        part="endpoint",
        seed=run.seed,
        path="/health",
        max_health_s=run.health_s,
    ):
        fuzz.run(
            run.report,
            seed=run.seed,
            inputs=inputs,
            first=first,
            deadline=run.deadline,
            progress=run.progress,
        )


def attack_connection(
    run: Run, target: Target, *, rounds: int, steps: int, name: str = "unigram"
) -> None:
    """Train through a faulty proxy: the weights are a clean run's, and nothing runs twice.

    Args:
        run: The options.
        target: The engine; where it counts the calls of its executor, they are compared.
        rounds: How often to train.
        steps: The number of steps.
        name: Says which engine it is.
    """
    part = f"proxy ({name})"
    clean = neighbour.train(target, steps=steps)
    for index in range(rounds):
        if run.is_over:
            break
        before = _calls(target)
        with FaultyProxy(target.base_url, run.seed + index) as proxy:
            trained = neighbour.train(target, steps=steps, base_url=proxy.url)
        for fault, number in proxy.faults.items():
            run.report.counts[part, "requests of the SDK", fault] += number
        if trained.weights != clean.weights:
            run.violate(part, f"round {index}: other weights than those of a clean run")
        calls = {call: count - before.get(call, 0) for call, count in _calls(target).items()}
        expected = {"create_model": 1, "forward_backward": steps, "optim_step": steps}
        if calls and any(calls.get(call, 0) != count for call, count in expected.items()):
            run.violate(part, f"round {index}: {calls} calls of the executor, not {expected}")
        if run.progress is not None:
            run.progress(f"{part}: {index + 1} of {rounds} rounds")
    run.report.figures.append(f"{part}: {steps} steps each, weights as of a clean run")


def attack_process(run: Run, engines: kills.Engines, *, kill: int, name: str = "unigram") -> None:
    """Kill engines, and look for what was acknowledged."""
    kills.run(
        engines,
        run.report,
        seed=run.seed,
        kills=kill,
        part=f"kills ({name})",
        deadline=run.deadline,
        progress=run.progress,
    )


@contextmanager
def _neighbours(run: Run, target: Target, clean: neighbour.Trained, name: str) -> Iterator[None]:
    """Let one client after the other train, at least one, and compare each with a clean run."""
    part, latencies, over = f"neighbour ({name})", list[float](), threading.Event()

    def train() -> None:
        while True:
            with neighbour.neighbour(target, steps=_STEPS, pause_s=_PAUSE_S) as started:
                try:
                    trained = started.result()
                except AssertionError as error:
                    run.violate(part, f"its training failed: {error}")
                    return
            same = trained.weights == clean.weights
            run.report.count(part, "training of a client", "same" if same else "other")
            if not same:
                run.violate(part, "other weights than those of a clean run")
            latencies.extend(trained.latencies_s)
            if over.is_set():
                return

    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if latencies and max(latencies) > STEP_S:
        run.violate(part, f"a step took {max(latencies):.1f} s")
    if latencies:
        run.report.figures.append(
            f"{part}: {len(latencies)} steps, median {median(latencies) * 1000:.0f} ms, slowest "
            f"{max(latencies) * 1000:.0f} ms; alone {median(clean.latencies_s) * 1000:.0f} ms and "
            f"{clean.slowest_s * 1000:.0f} ms"
        )


def _calls(target: Target) -> dict[str, int]:
    """The calls of an executor that counts them; empty for another."""
    client = Client(target.base_url, {"X-API-Key": target.api_key})
    answer = client(Request("GET calls", "GET", "/calls"))
    client.close()
    body = answer.json()
    return body if answer.status == 200 and isinstance(body, dict) else {}
