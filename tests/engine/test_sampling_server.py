"""All that can be asked of a sample, over the wire, from a real engine on the tiny model.

Shapes: P tokens of a prompt, M positions but the first, K tokens a position.
"""

import asyncio
import json
import warnings
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
import tinker
import torch
from tinker import types
from transformers import AutoModelForCausalLM, AutoTokenizer

from art.endpoint.types import SampledTokens, SamplingOptions
from art.errors import InvalidRequestError
from art.formats.sampling_controls import SamplingControls
from art.tinker.connection import Connection
from art.tinker.token_completer import SamplingClientCompleter

from ..engine_server import EngineServer

PROMPT = [5, 6, 7, 8, 900, 10]
IM_END = 2


@pytest.fixture
async def sampler(engine_server: EngineServer) -> AsyncIterator[tinker.SamplingClient]:
    service = tinker.ServiceClient(base_url=engine_server.base_url, api_key=engine_server.api_key)
    assert service.holder.get_session_id()
    yield await service.create_sampling_client(base_model=engine_server.base_model)
    await service.close("success")


@pytest.fixture
def completer(
    engine_server: EngineServer, sampler: tinker.SamplingClient
) -> SamplingClientCompleter:
    connection = Connection(engine_server.base_url, engine_server.api_key)
    return SamplingClientCompleter(connection, sampler)


def plain_logprobs(engine_server: EngineServer, tokens: list[int]) -> torch.Tensor:
    """Logprobs ``[M, V]`` of the base model, by transformers alone."""
    model: Any = AutoModelForCausalLM.from_pretrained(engine_server.base_model)
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, :-1]
    return torch.log_softmax(logits.double(), dim=-1)


async def test_the_sdk_gets_the_likeliest_tokens_of_a_sample(
    engine_server: EngineServer, sampler: tinker.SamplingClient
) -> None:
    params = types.SamplingParams(max_tokens=5, seed=1, stop=[])
    response = await sampler.sample(
        types.ModelInput.from_ints(PROMPT), 2, params, topk_sample_logprobs=3
    )
    for sequence in response.sequences:
        plain_MV = plain_logprobs(engine_server, [*PROMPT, *sequence.tokens])[-5:]
        assert sequence.topk_logprobs is not None
        for found, plain_V in zip(sequence.topk_logprobs, plain_MV, strict=True):
            expected = plain_V.topk(3)
            assert found is not None
            assert [token for token, _ in found] == expected.indices.tolist()
            assert [logprob for _, logprob in found] == pytest.approx(
                expected.values.tolist(), abs=1e-5
            )


@pytest.mark.parametrize("sparse", [False, True])
async def test_the_sdk_gets_the_logprobs_of_targets_of_the_prompt(
    engine_server: EngineServer, sampler: tinker.SamplingClient, sparse: bool
) -> None:
    targets_MK = torch.full((len(PROMPT) - 1, 8), -1)
    targets_MK[0, 3], targets_MK[2, 0], targets_MK[4, 7], targets_MK[4, 1] = 7, 40_000, 7, 12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensor = (
            types.TensorData.from_torch_sparse(targets_MK, pad_value=-1)
            if sparse
            else types.TensorData.from_torch(targets_MK)
        )
        assert (tensor.sparse_crow_indices is not None) == sparse
        response = await sampler.sample(
            types.ModelInput.from_ints(PROMPT),
            1,
            types.SamplingParams(max_tokens=1),
            target_prompt_logprobs=tensor,
        )
        assert response.target_prompt_logprobs is not None
        found_MK = response.target_prompt_logprobs.to_numpy()
    plain_MK = plain_logprobs(engine_server, PROMPT).gather(1, targets_MK.clamp(min=0))
    expected_MK = torch.where(targets_MK >= 0, plain_MK, 0.0)
    np.testing.assert_allclose(found_MK, expected_MK, atol=1e-5)


async def test_the_sdk_gets_alternatives_to_the_prompt(
    engine_server: EngineServer, sampler: tinker.SamplingClient
) -> None:
    response = await sampler.sample(
        types.ModelInput.from_ints(PROMPT),
        1,
        types.SamplingParams(max_tokens=1, seed=2),
        prompt_alt_tokens_k=4,
    )
    assert response.prompt_alt_tokens is not None
    tokens_MK = response.prompt_alt_tokens.tokens.to_numpy()
    assert tokens_MK.shape == (len(PROMPT) - 1, 4)
    plain_MK = plain_logprobs(engine_server, PROMPT).gather(1, torch.tensor(tokens_MK))
    np.testing.assert_allclose(response.prompt_alt_tokens.logprobs.to_numpy(), plain_MK, atol=1e-5)


async def test_the_server_announces_its_controls(engine_server: EngineServer) -> None:
    async with httpx.AsyncClient(
        base_url=f"{engine_server.base_url}/api/v1/",
        headers={"X-API-Key": engine_server.api_key},
    ) as http:
        answer = (await http.get("get_server_capabilities")).json()
    announced = set(answer["art_sampling_controls"])
    assert announced | {"grammar"} == set(SamplingControls.__dataclass_fields__)


@pytest.mark.parametrize("top_logprobs", [0, 2])
async def test_controls_reach_the_sampler(
    completer: SamplingClientCompleter, top_logprobs: int
) -> None:
    controls = SamplingControls(logit_bias=((77, 100.0),), min_p=0.5)
    options = SamplingOptions(
        num_samples=2, max_tokens=3, stop=(IM_END,), controls=controls, top_logprobs=top_logprobs
    )
    for sample in await completer.complete(PROMPT, options):
        assert sample.token_ids == [77] * 3
        assert sample.stop_reason == "length"
        assert (sample.top_logprobs is not None) == bool(top_logprobs)


async def test_the_same_is_sampled_with_controls_that_change_nothing(
    completer: SamplingClientCompleter,
) -> None:
    fields: dict[str, Any] = {"num_samples": 2, "max_tokens": 6, "seed": 3, "stop": (IM_END,)}
    plain = await completer.complete(PROMPT, SamplingOptions(**fields))
    nothing = SamplingControls(logit_bias=((77, 0.0),))
    assert await completer.complete(PROMPT, SamplingOptions(**fields, controls=nothing)) == plain


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        (SamplingControls(min_p=2.0), "min_p must be from 0 to 1"),
        (SamplingControls(logit_bias=((49152, 1.0),)), "outside the vocabulary"),
    ],
)
async def test_controls_that_are_wrong_are_the_callers_error(
    completer: SamplingClientCompleter, controls: SamplingControls, message: str
) -> None:
    options = SamplingOptions(max_tokens=3, controls=controls)
    with pytest.raises(InvalidRequestError, match=message):
        await completer.complete(PROMPT, options)


async def test_cancelling_a_call_with_controls_ends_its_sampling(
    completer: SamplingClientCompleter,
) -> None:
    controls = SamplingControls(logit_bias=((77, 100.0),))
    options = SamplingOptions(max_tokens=400, num_samples=64, controls=controls)
    calls = [asyncio.create_task(completer.complete(PROMPT, options)) for _ in range(4)]
    await asyncio.sleep(0.5)
    assert not any(call.done() for call in calls)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    # What was cancelled is out of the way of what comes next.
    short = SamplingOptions(max_tokens=2, controls=controls)
    await asyncio.wait_for(completer.complete(PROMPT, short), timeout=5)


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["get_weather", "get_time"]},
        "arguments": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "days": {"type": "array", "items": {"enum": [1, 2, 3]}, "maxItems": 3},
                "exact": {"type": "boolean"},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "arguments"],
    "additionalProperties": False,
    # A random model would write blanks without end.
    "x-guidance": {"whitespace_flexible": False},
}


def check_call(text: str) -> None:
    """Validate by hand what the schema says."""
    call = json.loads(text)
    assert call.keys() == {"name", "arguments"}
    assert call["name"] in ("get_weather", "get_time")
    arguments = call["arguments"]
    assert {"city", "days"} <= arguments.keys() <= {"city", "days", "exact"}
    assert isinstance(arguments["city"], str)
    assert len(arguments["city"]) <= 12
    assert len(arguments["days"]) <= 3
    assert set(arguments["days"]) <= {1, 2, 3}
    assert isinstance(arguments.get("exact", True), bool)


async def test_samples_of_a_random_model_follow_a_json_schema(
    engine_server: EngineServer, completer: SamplingClientCompleter
) -> None:
    pytest.importorskip("llguidance")
    tokenizer = AutoTokenizer.from_pretrained(engine_server.base_model)
    grammar = SamplingControls(grammar=f"start: %json {json.dumps(SCHEMA)}")
    options = SamplingOptions(
        num_samples=32, max_tokens=120, temperature=1.0, seed=1, stop=(IM_END,), controls=grammar
    )

    async def sample() -> list[SampledTokens]:
        return await completer.complete(PROMPT, options)

    samples = [each for samples in await asyncio.gather(sample(), sample()) for each in samples]
    stopped = [each for each in samples if each.stop_reason == "stop"]
    assert len(stopped) >= 32
    for each in stopped:
        assert each.token_ids[-1] == IM_END
        check_call(str(tokenizer.decode([*each.token_ids[:-1]])))


async def test_a_grammar_that_does_not_compile_is_the_callers_error(
    completer: SamplingClientCompleter,
) -> None:
    pytest.importorskip("llguidance")
    options = SamplingOptions(max_tokens=3, controls=SamplingControls(grammar="start: nosuch"))
    with pytest.raises(InvalidRequestError, match='unknown name: "nosuch"'):
        await completer.complete(PROMPT, options)
