"""A server that is killed and started again, that is gone for good, or that hangs."""

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import art
from art.errors import EngineUnreachableError
from art.tinker.connection import Connection
from art.types import Choice
from tests import engine_server as engines
from tests.engine_server import EngineServer

MadeChoice = Callable[..., Choice]
LIMIT_S = 3.0


class ImpatientBackend(art.TinkerBackend):
    """A backend that takes a silent server for gone after some seconds."""

    async def _connect(self, base_model: str) -> Connection:
        connection = await super()._connect(base_model)
        return Connection(connection.base_url, connection.api_key, silence_limit_s=LIMIT_S)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(tiny_model: Path, tmp_path: Path, port: int) -> Iterator[Callable[[], EngineServer]]:
    """Start the server, at the same address with the same key and root each time."""
    started: list[EngineServer] = []

    def start() -> EngineServer:
        started.append(
            engines.start(tiny_model, tmp_path / "root", port=port, api_key="tml-the-same-key")
        )
        return started[-1]

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TINKER_TELEMETRY", "0")
        yield start
    for each in started:
        each.process.kill()


def new_backend(
    server: EngineServer, tmp_path: Path, kind: type[art.TinkerBackend] = art.TinkerBackend
) -> art.TinkerBackend:
    return kind(tinker_api_key=server.api_key, base_url=server.base_url, path=tmp_path / "runs")


def new_model(server: EngineServer) -> art.TrainableModel[None]:
    return art.TrainableModel(name="agent", project="p", base_model=server.base_model)


def groups(made_choice: MadeChoice) -> list[art.TrajectoryGroup]:
    return [
        art.TrajectoryGroup(
            art.Trajectory(messages_and_choices=[made_choice([1, 40], [50 + i])], reward=float(i))
            for i in range(3)
        )
    ]


async def ask(model: art.TrainableModel[None]) -> Any:
    client = model.openai_client().with_options(max_retries=0)
    answer = await client.chat.completions.create(
        model="agent", messages=[{"role": "user", "content": "hi"}], max_tokens=4, temperature=0
    )
    return (answer.choices[0].model_extra or {})["token_ids"]


def stop(server: EngineServer) -> None:
    server.process.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize("meanwhile", ["idle", "in a step"])
async def test_training_and_sampling_go_on_after_the_server_was_killed_and_started_again(
    start: Callable[[], EngineServer], made_choice: MadeChoice, tmp_path: Path, meanwhile: str
) -> None:
    first = start()
    model = new_model(first)
    async with new_backend(first, tmp_path) as backend:
        await model.register(backend)
        assert (await backend.train(model, groups(made_choice), learning_rate=1e-2)).step == 1
        before = await ask(model)
        step: asyncio.Task[Any] | None = None
        if meanwhile == "in a step":
            stop(first)
            step = asyncio.create_task(backend.train(model, groups(made_choice)))
            await asyncio.sleep(0.5)
            assert not step.done()
        first.process.kill()
        await asyncio.to_thread(start)
        if step is None:
            assert await ask(model) == before
            step = asyncio.create_task(backend.train(model, groups(made_choice)))
        result = await step
        assert result.step == await model.get_step() == 2
        assert (await backend.train(model, groups(made_choice))).step == 3
        assert await ask(model)
        await model.register(backend)


async def test_a_server_that_is_gone_for_good_ends_the_waiting_and_says_so(
    start: Callable[[], EngineServer], made_choice: MadeChoice, tmp_path: Path
) -> None:
    server = start()
    model = new_model(server)
    async with new_backend(server, tmp_path, ImpatientBackend) as backend:
        await model.register(backend)
        server.process.kill()
        started = time.monotonic()
        sample = asyncio.create_task(ask(model))
        with pytest.raises(
            EngineUnreachableError, match=r"no answer of any kind for 3 s.*Step 1 was not taken"
        ):
            await backend.train(model, groups(made_choice))
        with pytest.raises(openai.APIStatusError, match=r"sampling.*no answer of any kind"):
            await sample
        assert time.monotonic() - started < 30
        await asyncio.to_thread(start)
        assert (await backend.train(model, groups(made_choice))).step == 1
        assert await ask(model)


async def test_a_server_that_hangs_ends_the_waiting_and_one_that_computes_does_not(
    start: Callable[[], EngineServer], made_choice: MadeChoice, tmp_path: Path
) -> None:
    server = start()
    model = new_model(server)
    async with new_backend(server, tmp_path, ImpatientBackend) as backend:
        await model.register(backend)
        client = model.openai_client().with_options(max_retries=0)
        long: Any = {"n": 64, "max_tokens": 300, "seed": 1}
        began = time.monotonic()
        await client.chat.completions.create(
            model="agent", messages=[{"role": "user", "content": "hi"}], **long
        )
        assert time.monotonic() - began > LIMIT_S
        stop(server)
        began = time.monotonic()
        with pytest.raises(openai.APIStatusError, match="no answer of any kind"):
            await ask(model)
        assert time.monotonic() - began < 5 * LIMIT_S
        server.process.send_signal(signal.SIGCONT)
        assert await ask(model)
