"""Which thread touches what: sessions and futures are the event loop's, executors their lanes'.

The SDK drives a whole engine; every access is noted with the name of its thread.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tinker
import uvicorn
from tinker import types
from tinker.proto import tinker_public_pb2 as pb

from art.engine import commands
from art.engine.app import create_app
from art.engine.core import Engine
from art.engine.futures import FutureStore, Payload
from art.engine.results import Result
from art.engine.sessions import Sessions
from art.engine.wire import protobuf
from art.engine.wire.results import encode

from .unigram import UnigramExecutor

KEY = "tml-test"
LOOP = "event loop"


def here() -> str:
    return threading.current_thread().name


class NotesThreads:
    """Notes the name of every thread that reads an attribute; comes before the class watched."""

    threads: set[str]

    def __init__(self) -> None:
        object.__setattr__(self, "threads", set())
        super().__init__()

    def __getattribute__(self, name: str) -> object:
        if not name.startswith("__") and name != "threads":
            self.threads.add(here())
        return super().__getattribute__(name)


class WatchedSessions(NotesThreads, Sessions):
    pass


class WatchedFutures(NotesThreads, FutureStore):
    pass


@dataclass
class Watched:
    """A running engine, and the names of the threads that touched each part of it."""

    url: str
    executor: UnigramExecutor
    sessions: set[str]
    futures: set[str]
    encoding: set[str] = field(default_factory=set)
    decoding: set[str] = field(default_factory=set)


@pytest.fixture
def watched(
    unigram: UnigramExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Watched]:
    # Built here, on the test's thread, which is forgotten below: nothing else runs yet.
    sessions, futures = WatchedSessions(), WatchedFutures()
    found = Watched("", unigram, sessions.threads, futures.threads)

    def encode_here(result: Result) -> Payload:
        found.encoding.add(here())
        return encode(result)

    def decode_here(message: pb.ForwardBackwardRequest) -> commands.ForwardBackward:
        found.decoding.add(here())
        return decode(message)

    decode = protobuf.decode_forward_backward
    monkeypatch.setattr(protobuf, "decode_forward_backward", decode_here)
    monkeypatch.setenv("TINKER_TELEMETRY", "0")
    engine = Engine(
        unigram, unigram, tmp_path, encode=encode_here, sessions=sessions, futures=futures
    )
    sessions.threads.clear()
    futures.threads.clear()
    listener = socket.create_server(("127.0.0.1", 0))
    found.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(
        uvicorn.Config(create_app(engine, api_key=KEY), log_config=None, ws="none")
    )
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve(sockets=[listener])), name=LOOP
    )
    thread.start()
    yield found
    server.should_exit = True
    thread.join(timeout=10)
    assert not thread.is_alive()


def drive(url: str) -> None:
    """Every command that the engine has, and the end of the session."""
    client = tinker.ServiceClient(base_url=url, api_key=KEY)
    assert client.holder.get_session_id()
    trainer = client.create_lora_training_client("unigram", rank=4).result()
    datum = types.Datum(
        model_input=types.ModelInput.from_ints([1, 2]),
        loss_fn_inputs={
            "target_tokens": types.TensorData.from_numpy(np.array([2, 3])),
            "weights": types.TensorData.from_numpy(np.ones(2, np.float32)),
        },
    )
    trainer.forward_backward([datum], "cross_entropy").result()
    trainer.optim_step(types.AdamParams(learning_rate=0.5)).result()
    with pytest.raises(tinker.TinkerError, match="learning_rate"):
        trainer.optim_step(types.AdamParams(learning_rate=-1)).result()
    state = trainer.save_state("one").result().path
    weights = trainer.save_weights_for_sampler("one").result().path
    with pytest.warns(FutureWarning, match="deprecated"):  # the wire still has it
        trainer.load_state_with_optimizer(state).result()
    client.create_training_client_from_state(state).result()
    params = types.SamplingParams(max_tokens=2)
    for sampler in (
        client.create_sampling_client(model_path=weights).result(),
        trainer.save_weights_and_get_sampling_client().result(),
    ):
        sampler.sample(types.ModelInput.from_ints([1]), 2, params).result()
    rest = tinker.RestClient(base_url=url, api_key=KEY)
    rest.list_training_runs().result()
    rest.get_session(client.holder.get_session_id()).result()
    client.close("success").result()


def test_each_part_of_the_engine_is_touched_by_its_own_thread_alone(watched: Watched) -> None:
    drive(watched.url)
    assert watched.sessions == {LOOP}
    assert watched.futures == {LOOP}
    assert watched.executor.threads == {"trainer": {"training_0"}, "sampler": {"sampling_0"}}
    others = {LOOP, "training_0", "sampling_0"}
    assert watched.encoding, "nothing was encoded"
    assert watched.decoding, "nothing was decoded"
    assert not watched.encoding & others
    assert not watched.decoding & others
