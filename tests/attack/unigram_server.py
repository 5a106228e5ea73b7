"""Engines around a tiny executor, each in a process of its own: ``python -m …unigram_server``.

The routes, the queues and the store are the real ones, and only the executor is a test's. The
program imports everything once, then reads lines ``{"root": …, "api_key": …}`` and forks a server
for each, which takes milliseconds. It says ``{"event": "forked", "pid": …}``, and the server
``{"event": "ready", "pid": …, "base_url": …}``. Servers end with the program, which ends with its
standard input.
"""

import json
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import uvicorn

from art._internal.http_server import BoundedHttp
from art._internal.network import base_url, bind
from art.engine.app import create_app
from art.engine.core import Engine
from art.engine.wire.results import encode
from art.errors import InvalidRequestError, TrainingDataError
from art.executors.types import Datum, ForwardBackwardResult, LossFunction, SampleRequest
from art.formats.adam import AdamParams
from tests.engine.unigram import VOCABULARY, UnigramExecutor


class _Tally(list[tuple[str, object]]):
    """A list that counts what is appended and keeps none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def append(self, call: tuple[str, object], /) -> None:
        self.counts[call[0]] += 1


class CheckedUnigramExecutor(UnigramExecutor):
    """The tiny executor with the checks that a real one makes, for hours of hostile input.

    Attributes:
        tally: The number of calls by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tally = _Tally()
        self.calls = self.tally
        self.ending.set()  # no request goes on until it is cancelled

    def forward_backward(
        self, model_id: str, data: Sequence[Datum], loss: LossFunction, *, backward: bool
    ) -> ForwardBackwardResult:
        for index, datum in enumerate(data):
            _check(datum, index)
        return super().forward_backward(model_id, data, loss, backward=backward)

    def optim_step(self, model_id: str, params: AdamParams) -> dict[str, float]:
        before = self._logits[model_id].copy()
        with np.errstate(all="ignore"):
            metrics = super().optim_step(model_id, params)
        if np.abs(self._logits[model_id]).max() > 1e6:
            self._logits[model_id] = before
            raise InvalidRequestError("the weights would not be finite; the step was undone")
        return metrics

    def submit(self, request_id: str, request: SampleRequest) -> None:
        if int(request.prompt.min()) < 0:
            raise InvalidRequestError("a token is not in the vocabulary")
        super().submit(request_id, request)


def _check(datum: Datum, index: int) -> None:
    targets = datum.loss_inputs.get("target_tokens")
    if targets is None:
        raise TrainingDataError(f"datum {index} has no target_tokens")
    if not (np.issubdtype(targets.dtype, np.integer) and targets.shape == datum.tokens.shape):
        raise TrainingDataError(f"datum {index} has targets of another shape or dtype")
    for tokens in (datum.tokens, targets):
        if tokens.min() < 0 or tokens.max() >= VOCABULARY:
            raise TrainingDataError(f"datum {index} has a token that is not in the vocabulary")
    weights = datum.loss_inputs.get("weights")
    if weights is not None:
        if weights.shape != targets.shape:
            raise TrainingDataError(f"datum {index} has weights of another shape")
        if not np.all(np.abs(weights.astype(np.float64)) < 1e6):
            raise TrainingDataError(f"datum {index} has a weight that is too large, or NaN")


def main() -> None:
    """Fork a server for each line of standard input."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps servers that were killed
    alive, held = os.pipe()
    for line in sys.stdin:
        options = json.loads(line)
        said, saying = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(held)
            os.close(saying)
            os.read(said, 1)  # so that "forked" comes first
            os.close(said)
            _serve(Path(options["root"]), options["api_key"], alive)
            return
        _say(event="forked", pid=pid)
        os.close(said)
        os.close(saying)


def _serve(root: Path, api_key: str, alive: int) -> None:
    threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()
    executor = CheckedUnigramExecutor()
    engine = Engine(executor, executor, root, encode=encode)
    app = create_app(engine, api_key=api_key)

    @app.get("/calls")
    async def calls() -> dict[str, int]:
        return dict(executor.tally.counts)

    with bind("127.0.0.1", 0) as listener:
        config = uvicorn.Config(
            app, http=BoundedHttp, log_config=None, access_log=False, lifespan="on", ws="none"
        )
        _say(event="ready", pid=os.getpid(), base_url=base_url(listener))
        uvicorn.Server(config).run([listener])


def _say(**fields: object) -> None:
    os.write(1, json.dumps(fields).encode() + b"\n")  # at once: several processes share the pipe


def _end_with_parent(alive: int) -> None:
    while os.read(alive, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
