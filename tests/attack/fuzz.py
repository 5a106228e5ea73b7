"""Many inputs from several threads, and the rules that every answer must keep."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.attack.http_client import Answer, Client, NoAnswerError, Request
from tests.attack.report import Report, Violation

MAX_ERROR_BYTES = 4096
_PROGRESS_S = 10.0

Progress = Callable[[str], None]
"""Shows a line."""


class Attacker:
    """One thread's share of a part: makes requests and reads what comes back."""

    def request(self, rng: Random) -> Request:
        """Make the next request."""
        raise NotImplementedError

    def note(self, request: Request, answer: Answer) -> None:
        """Learn from an answer, such as the name of what was made."""

    def renew(self) -> None:
        """Begin anew, with all that was made before taken away; called now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzz:
    """A part that consists of single requests.

    Attributes:
        part: Its name.
        attacker: Makes a thread's attacker around its connection.
        connect: Makes a connection.
        problem: Says which rule an answer breaks; ``None``: none.
        renew_every: The number of inputs after which an attacker begins anew.
    """

    part: str
    attacker: Callable[[Client], Attacker]
    connect: Callable[[], Client]
    problem: Callable[[Request, Answer], str | None]
    renew_every: int = 400

    def run(
        self,
        report: Report,
        *,
        seed: int,
        inputs: int,
        first: int = 0,
        threads: int = 4,
        deadline: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Send inputs until there are enough, or time is over.

        Args:
            report: Takes the counts and the violations.
            seed: With the number of an input, it makes the same input again.
            inputs: The number of inputs.
            first: The number of the first one.
            threads: The number of connections.
            deadline: When to stop all the same, by ``time.monotonic``.
            progress: Shows how far it is.
        """
        counter = iter(range(first, first + inputs))
        lock = threading.Lock()

        def indices() -> int | None:
            with lock:
                return next(counter, None)

        workers = [
            threading.Thread(target=self._work, args=(report, seed, indices, deadline), daemon=True)
            for _ in range(threads)
        ]
        began, before = time.monotonic(), report.inputs
        for worker in workers:
            worker.start()
        shown = began
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.05)
            if progress is not None and time.monotonic() - shown >= _PROGRESS_S:
                shown = time.monotonic()
                sent, bad = report.inputs - before, len(report.violations)
                rate = sent / (shown - began)
                progress(f"{self.part}: {sent} inputs, {rate:.0f} a second, {bad} rules broken")

    def _work(
        self,
        report: Report,
        seed: int,
        indices: Callable[[], int | None],
        deadline: float | None,
    ) -> None:
        client = self.connect()
        attacker = self.attacker(client)
        done = 0
        while (index := indices()) is not None:
            if deadline is not None and time.monotonic() > deadline:
                break
            if done and done % self.renew_every == 0:
                attacker.renew()
            done += 1
            request = attacker.request(Random(f"{seed}:{self.part}:{index}"))
            self._send(report, client, attacker, request, (seed, index))
        attacker.renew()
        client.close()

    def _send(
        self,
        report: Report,
        client: Client,
        attacker: Attacker,
        request: Request,
        name: tuple[int, int],
    ) -> None:
        try:
            answer = client(request)
        except NoAnswerError as error:
            if request.patience is not None or request.cut or request.raw:
                report.count(self.part, request.route, "hung up")
                return
            report.count(self.part, request.route, "no answer")
            report.violate(Violation(self.part, *name, f"no answer: {error}", str(request)))
            return
        report.count(self.part, request.route, str(answer.status))
        problem = self.problem(request, answer)
        if problem is not None:
            text = f"{problem}; the answer: {answer.status} {answer.body[:150]!r}"
            report.violate(Violation(self.part, *name, text, str(request)))
        attacker.note(request, answer)


def engine_problem(request: Request, answer: Answer) -> str | None:
    """Say which rule an engine's answer breaks."""
    if answer.status == 302 and request.path.partition("?")[0].endswith("/archive"):
        return None  # to the signed URL of a download
    problem = _status_problem(answer)
    if problem is not None or answer.status < 400:
        return problem
    if answer.status == 400 and answer.content_type.startswith("text/plain") and request.raw:
        return None  # uvicorn's own, to what is no HTTP
    if not isinstance(error := answer.json(), dict):
        return "an error that is no JSON object"
    if answer.status == 408 and error.get("type") == "try_again":
        return None
    if set(error) != {"error", "category"} or not isinstance(error["error"], str):
        return "an error of another shape"
    return None if error["category"] == "user" else "a fault of the server"


def endpoint_problem(request: Request, answer: Answer) -> str | None:
    """Say which rule an answer of the OpenAI-compatible endpoint breaks."""
    problem = _status_problem(answer)
    if problem is not None:
        return problem
    if answer.content_type.startswith("text/event-stream"):
        events = [line[6:] for line in answer.body.split(b"\n") if line.startswith(b"data: ")]
        if not events or (events[-1] != b"[DONE]" and b'"error"' not in events[-1]):
            return "a stream without an end"
        return "a fault in a stream" if b'"server_error"' in events[-1] else None
    if answer.status < 400 or (request.raw and answer.content_type.startswith("text/plain")):
        return None
    body = answer.json()
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or set(error) != {"message", "type", "param", "code"}:
        return "an error of another shape"
    return None


def _status_problem(answer: Answer) -> str | None:
    if not (200 <= answer.status < 300 or 400 <= answer.status < 500):
        return "neither 2xx nor 4xx"
    if answer.status >= 400 and len(answer.body) > MAX_ERROR_BYTES:
        return f"an error of {len(answer.body)} bytes"
    if answer.content_type.startswith("application/json") and answer.status != 204:
        try:
            json.loads(answer.body, parse_constant=_refuse)
        except ValueError as error:
            return f"an answer that is no JSON ({error})"
    return None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
