"""Token ids in and token ids out, in vLLM's dialect."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from art.endpoint.server import OpenAIServer
from tests.light.endpoint.scripted import Script


@pytest.fixture
async def http(server: OpenAIServer) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {server.api_key}"}
    base_url = f"http://127.0.0.1:{server.port}"
    async with httpx.AsyncClient(base_url=base_url, headers=headers) as http:
        yield http


async def generate(
    http: httpx.AsyncClient, params: dict[str, Any] | None = None, **fields: Any
) -> httpx.Response:
    body = {"token_ids": [5, 6, 7], "sampling_params": params or {}, **fields}
    return await http.post("/inference/v1/generate", json=body)


async def test_tokens_go_in_and_tokens_come_out(http: httpx.AsyncClient, script: Script) -> None:
    response = (await generate(http, request_id="r-1")).json()
    (choice,) = response["choices"]
    assert script.prompts == [[5, 6, 7]]
    assert (choice["index"], choice["token_ids"]) == (0, script.ids("hello<|im_end|>"))
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)
    assert (response["request_id"], response["model"]) == ("r-1", "agent")
    assert response["output_mode"] == "tokens"
    assert "prompt_token_ids" not in response
    assert "text" not in choice
    assert choice["logprobs"] is None
    assert response["usage"]["prompt_tokens"] == 3


async def test_what_is_asked_for_is_added(http: httpx.AsyncClient, script: Script) -> None:
    script.alternatives = 1
    params = {"logprobs": 1}
    response = (await generate(http, params, return_token_ids=True)).json()
    assert response["prompt_token_ids"] == [5, 6, 7]
    content = response["choices"][0]["logprobs"]["content"]
    assert [each["token_id"] for each in content] == script.ids(script.text)
    assert content[0]["logprob"] == -1 / 8
    assert content[0]["top_logprobs"] == [{"token_id": 0, "logprob": -1.0}]


async def test_texts_come_on_request(http: httpx.AsyncClient, script: Script) -> None:
    response = (await generate(http, {"logprobs": 0}, output_mode="text")).json()
    (choice,) = response["choices"]
    assert (choice["text"], response["output_mode"]) == ("hello", "text")
    assert "".join(each["token"] for each in choice["logprobs"]["content"]) == script.text


async def test_sampling_params_reach_the_completer(http: httpx.AsyncClient, script: Script) -> None:
    params = {
        "n": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 0,
        "min_p": 0.1,
        "seed": 3,
        "max_tokens": 7,
        "stop_token_ids": [9],
        "logit_bias": {"4": 1.0},
        "structured_outputs": {"json_object": True},
    }
    response = (await generate(http, params)).json()
    assert len(response["choices"]) == 2
    options = script.options[0]
    assert (options.num_samples, options.temperature, options.top_p) == (2, 0.5, 0.9)
    assert (options.top_k, options.seed, options.max_tokens) == (-1, 3, 7)
    assert 9 in options.stop
    assert (options.controls.min_p, options.controls.logit_bias) == (0.1, ((4, 1.0),))
    assert 'start: %json {"type": "object"' in (options.controls.grammar or "")


@pytest.mark.parametrize(("kind", "kept"), [("stop", "hello"), ("stop_token_ids", "he")])
async def test_what_stopped_a_sample_is_named(
    http: httpx.AsyncClient, script: Script, kind: str, kept: str
) -> None:
    stop = "lo" if kind == "stop" else script.ids("e")[0]
    (choice,) = (await generate(http, {kind: [stop]})).json()["choices"]
    assert (choice["stop_reason"], choice["token_ids"]) == (stop, script.ids(kept))


async def test_without_a_limit_the_rest_of_the_context_is_sampled(
    http: httpx.AsyncClient, script: Script
) -> None:
    await generate(http)
    assert script.options[0].max_tokens is None


async def test_a_model_is_chosen_by_name(http: httpx.AsyncClient, script: Script) -> None:
    response = await generate(http, model="org/base")
    assert (response.json()["model"], script.opened) == ("org/base", [None])


async def test_a_stream_has_the_tokens_once(http: httpx.AsyncClient, script: Script) -> None:
    options = {"include_usage": True}
    response = await generate(
        http, {"n": 2}, stream=True, return_token_ids=True, stream_options=options
    )
    *events, last = response.text.strip().split("\n\n")
    assert last == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert [chunk.get("prompt_token_ids") for chunk in chunks] == [[5, 6, 7], None, None]
    token_ids = [choice["token_ids"] for chunk in chunks for choice in chunk["choices"]]
    assert token_ids == [script.ids(script.text)] * 2
    assert chunks[-1]["usage"]["completion_tokens"] == sum(map(len, token_ids))


@pytest.mark.parametrize(
    ("params", "fields", "named"),
    [
        ({"ignore_eos": True}, {}, "sampling_params.ignore_eos"),
        ({"prompt_logprobs": 1}, {}, "sampling_params.prompt_logprobs"),
        ({}, {"features": {"mm_hashes": {}}}, "features"),
        ({}, {"output_mode": "derender"}, "output_mode"),
        ({}, {"token_ids": []}, "token_ids"),
        ({}, {"token_ids": [-1]}, "token_ids.0"),
        ({}, {"token_ids": [1] * 600}, "token_ids"),
        ({"max_tokens": 0}, {}, "sampling_params.max_tokens"),
        ({"logprobs": 1}, {}, "top_logprobs"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_in_vllms_shape(
    http: httpx.AsyncClient, params: dict[str, Any], fields: dict[str, Any], named: str
) -> None:
    response = await generate(http, params, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, 400, named)
    assert error["type"] == "invalid_request_error"


async def test_what_concerns_the_text_is_taken_where_tokens_are_asked_for(
    http: httpx.AsyncClient,
) -> None:
    params = {"skip_special_tokens": False}
    assert (await generate(http, params)).status_code == 200
    answer = await generate(http, params, output_mode="text")
    assert answer.status_code == 400
    assert "skip_special_tokens cannot be false" in answer.json()["error"]["message"]
