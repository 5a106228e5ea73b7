"""A server whose sampler has no controls: what it says, and what its client says of it."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import tinker
import uvicorn

from art._internal.network import base_url, bind
from art.endpoint.types import SamplingOptions
from art.engine.app import create_app
from art.engine.core import Engine
from art.engine.wire.results import encode
from art.errors import InvalidRequestError
from art.formats.sampling_controls import SamplingControls
from art.tinker.connection import Connection
from art.tinker.token_completer import SamplingClientCompleter

from .unigram import UnigramExecutor

KEY = "tml-test"


@pytest.fixture
def url(unigram: UnigramExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TINKER_TELEMETRY", "0")
    engine = Engine(unigram, unigram, tmp_path, encode=encode)
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(engine, api_key=KEY), log_config=None))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    yield base_url(listener)
    server.should_exit = True
    thread.join(timeout=10)


async def test_controls_that_the_server_lacks_are_refused_by_name_and_not_sent(
    url: str, unigram: UnigramExecutor
) -> None:
    service = tinker.ServiceClient(base_url=url, api_key=KEY)
    assert service.holder.get_session_id()
    client = await service.create_sampling_client(base_model="unigram")
    completer = SamplingClientCompleter(Connection(url, KEY), client)
    wanted = SamplingControls(min_p=0.1, grammar="start: /a+/")
    with pytest.raises(InvalidRequestError, match="cannot honour min_p, grammar"):
        await completer.complete([1], SamplingOptions(max_tokens=1, controls=wanted))
    assert [name for name, _ in unigram.calls if name == "submit"] == []
    [sample] = await completer.complete([1], SamplingOptions(max_tokens=1))
    assert len(sample.token_ids) == 1
    await service.close("success")


def test_controls_that_the_sampler_lacks_are_refused_by_the_server(
    url: str, unigram: UnigramExecutor
) -> None:
    with httpx.Client(base_url=f"{url}/api/v1/", headers={"X-API-Key": KEY}) as http:
        assert http.get("get_server_capabilities").json()["art_sampling_controls"] == []
        session = http.post("create_session", json={"sdk_version": "0.38.0"}).json()
        opened = http.post(
            "create_sampling_session",
            json={
                "session_id": session["session_id"],
                "sampling_session_seq_id": 0,
                "base_model": "unigram",
            },
        ).json()
        answer = http.post(
            "asample",
            json={
                "sampling_session_id": opened["sampling_session_id"],
                "seq_id": 0,
                "prompt": {"chunks": [{"type": "encoded_text", "tokens": [1]}]},
                "sampling_params": {"art_controls": {"min_p": 0.5, "presence_penalty": 0.5}},
            },
        )
    assert answer.status_code == 400
    assert answer.json()["error"] == "the sampler of this server has no min_p, presence_penalty"
    assert [name for name, _ in unigram.calls if name == "submit"] == []
