"""Completions of plain text, requested by the official client over HTTP."""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from art.endpoint.served_models import ServedModels
from tests.light.endpoint.scripted import Script


async def complete(client: AsyncOpenAI, **fields: Any) -> Any:
    return await client.completions.create(**{"model": "agent", "prompt": "once", **fields})


async def test_a_text_is_completed(client: AsyncOpenAI, script: Script) -> None:
    completion = await complete(client)
    (choice,) = completion.choices
    assert (choice.text, choice.finish_reason, choice.logprobs) == ("hello", "stop", None)
    assert script.decode(script.prompts[0]) == "once"
    assert choice.prompt_token_ids == script.prompts[0]
    assert choice.token_ids == script.ids("hello<|im_end|>")
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (
        len(script.prompts[0]),
        len(choice.token_ids),
    )


async def test_the_default_limit_is_that_of_the_openai_api(
    client: AsyncOpenAI, script: Script
) -> None:
    await complete(client)
    await complete(client, max_tokens=50)
    assert [options.max_tokens for options in script.options] == [16, 50]


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ([7, 8], [[7, 8]]),
        ([[7, 8], [9]], [[7, 8], [9]]),
        (["a", "b"], ["a", "b"]),
        ([[7], "b"], [[7], "b"]),
    ],
)
async def test_prompts_are_texts_or_token_ids_one_or_several(
    client: AsyncOpenAI, script: Script, prompt: Any, prompts: list[Any]
) -> None:
    completion = await complete(client, prompt=prompt, n=2)
    token_ids = [p if isinstance(p, list) else script.ids(p) for p in prompts]
    assert sorted(script.prompts) == sorted(token_ids)
    assert [choice.index for choice in completion.choices] == [*range(2 * len(prompts))]
    expected = [each for each in token_ids for _ in range(2)]
    assert [choice.prompt_token_ids for choice in completion.choices] == expected
    assert completion.usage.prompt_tokens == sum(map(len, token_ids))


@pytest.mark.parametrize("prompt", ["once", [ord("o") - 33, 66]])
async def test_echo_puts_the_prompt_before_the_text(
    client: AsyncOpenAI, script: Script, prompt: Any
) -> None:
    (choice,) = (await complete(client, prompt=prompt, echo=True)).choices
    before = prompt if isinstance(prompt, str) else script.decode(prompt)
    assert choice.text == f"{before}hello"
    assert choice.token_ids == script.ids("hello<|im_end|>")


async def test_logprobs_have_the_shape_of_the_api(client: AsyncOpenAI, script: Script) -> None:
    script.text = "the cat"
    script.alternatives = 2
    logprobs = (await complete(client, logprobs=2)).choices[0].logprobs
    assert "".join(logprobs.tokens) == "the cat"
    assert logprobs.token_logprobs == [-(i + 1) / 8 for i in range(len(logprobs.tokens))]
    assert [("the cat" + " ")[offset] for offset in logprobs.text_offset] == [
        token[0] for token in logprobs.tokens
    ]
    assert all(len(alternatives) == 2 for alternatives in logprobs.top_logprobs)


async def test_logprobs_of_zero_alternatives_need_no_alternatives_of_the_server(
    client: AsyncOpenAI, script: Script
) -> None:
    logprobs = (await complete(client, logprobs=0)).choices[0].logprobs
    assert logprobs.top_logprobs == [None] * len(logprobs.tokens)


async def test_a_stream_carries_text_tokens_and_usage(client: AsyncOpenAI, script: Script) -> None:
    stream = await complete(
        client, prompt=["a", "b"], stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert len({chunk.id for chunk in chunks}) == 1
    assert [choice.text for chunk in chunks for choice in chunk.choices] == ["hello", "hello"]
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices] == ["stop"] * 2
    assert chunks[0].choices[0].token_ids == script.ids(script.text)
    assert (chunks[-1].choices, chunks[-1].usage.prompt_tokens) == ([], 2)


async def test_json_is_demanded_by_a_grammar(client: AsyncOpenAI, script: Script) -> None:
    await complete(client, extra_body={"response_format": {"type": "json_object"}})
    assert 'start: %json {"type": "object"' in (script.options[0].controls.grammar or "")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"suffix": "end"}, "suffix cannot be honoured"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": []}, "prompt must be"),
        ({"prompt": [[]]}, "prompt must be"),
        ({"prompt": [-1]}, "prompt must be"),
        ({"prompt": [True]}, "prompt must be"),
        ({"prompt": None}, "prompt must be"),
        ({"prompt": "x" * 700}, "700 tokens and 16 more .* context is 600; shorten prompt"),
        ({"echo": True, "logprobs": 1}, "echo cannot be had with logprobs"),
        ({"prompt": ["x"] * 65, "n": 2}, "over 128 choices"),
        ({"logprobs": 1}, "returns no top_logprobs"),
        ({"best_of": 3}, "best_of cannot be honoured"),
        ({"model": "other"}, "there is no model 'other'"),
    ],
)
async def test_a_request_that_cannot_be_honoured_is_refused(
    client: AsyncOpenAI, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(openai.APIStatusError, match=problem) as caught:
        await complete(client, **fields)
    assert caught.value.status_code == (404 if "model" in fields else 400)


async def test_one_failing_prompt_fails_the_request(client: AsyncOpenAI, script: Script) -> None:
    script.error = KeyError("x")
    with pytest.raises(openai.InternalServerError):
        await complete(client, prompt=["a", "b"])


def test_before_the_first_step_the_latest_model_is_the_base_model(script: Script) -> None:
    models = ServedModels("agent", "org/base", script.open)
    assert models.latest.name == "org/base"
    models.publish(0, "a")
    assert (models.latest.name, models.latest.checkpoint_path) == ("agent", "a")
