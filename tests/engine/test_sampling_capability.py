"""A server whose sampler has no controls: what it says, and what its client says of it."""

import pytest
import tinker

from art.endpoint.types import SamplingOptions
from art.errors import InvalidRequestError
from art.formats.sampling_controls import SamplingControls
from art.tinker.connection import Connection
from art.tinker.token_completer import SamplingClientCompleter

from .unigram_server import KEY, Server, called, new_sampling_session


async def test_controls_that_the_server_lacks_are_refused_by_name_and_not_sent(
    server: Server,
) -> None:
    service = tinker.ServiceClient(base_url=server.url, api_key=KEY)
    assert service.holder.get_session_id()
    client = await service.create_sampling_client(base_model="unigram")
    completer = SamplingClientCompleter(Connection(server.url, KEY), client)
    wanted = SamplingControls(min_p=0.1, grammar="start: /a+/")
    with pytest.raises(InvalidRequestError, match="cannot honour min_p, grammar"):
        await completer.complete([1], SamplingOptions(max_tokens=1, controls=wanted))
    assert called(server, "submit") == []
    [sample] = await completer.complete([1], SamplingOptions(max_tokens=1))
    assert len(sample.token_ids) == 1
    await service.close("success")


def test_controls_that_the_sampler_lacks_are_refused_by_the_server(
    server: Server,
) -> None:
    with server.client() as http:
        assert http.get("get_server_capabilities").json()["art_sampling_controls"] == []
        session = http.post("create_session", json={"sdk_version": "0.38.0"}).json()
        sampling_session_id = new_sampling_session(http, session["session_id"])
        answer = http.post(
            "asample",
            json={
                "sampling_session_id": sampling_session_id,
                "seq_id": 0,
                "prompt": {"chunks": [{"type": "encoded_text", "tokens": [1]}]},
                "sampling_params": {"art_controls": {"min_p": 0.5, "presence_penalty": 0.5}},
            },
        )
    assert answer.status_code == 400
    assert answer.json()["error"] == "the sampler of this server has no min_p, presence_penalty"
    assert called(server, "submit") == []
