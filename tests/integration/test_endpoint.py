"""The endpoint in front of a real engine, asked by the official client."""

from typing import Any, cast

import numpy as np
import openai
import pytest
import tinker
from transformers import AutoTokenizer

import art
from tests.engine_server import EngineServer

USER: art.Messages = [{"role": "user", "content": "Is the sky blue?"}]


async def ask(model: art.TrainableModel[None], **fields: Any) -> Any:
    arguments = {"model": "agent", "messages": USER, "max_tokens": 8, **fields}
    return await model.openai_client().chat.completions.create(**arguments)


async def test_tokens_and_logprobs_are_the_models_own(
    engine_server: EngineServer, model: art.TrainableModel[None]
) -> None:
    choice = (await ask(model, seed=1)).choices[0]
    tokenizer = AutoTokenizer.from_pretrained(engine_server.base_model)
    assert choice.prompt_token_ids == tokenizer.apply_chat_template(
        cast(list[dict[str, str]], USER), add_generation_prompt=True, return_dict=False
    )
    assert choice.message.content == tokenizer.decode(choice.token_ids, skip_special_tokens=True)
    # A new adapter changes nothing, so the base model must agree, scored as a prompt.
    service = tinker.ServiceClient(base_url=engine_server.base_url, api_key=engine_server.api_key)
    base = await service.create_sampling_client(base_model=engine_server.base_model)
    tokens = tinker.ModelInput.from_ints(choice.prompt_token_ids + choice.token_ids)
    expected = (await base.compute_logprobs(tokens))[-len(choice.token_ids) :]
    await service.close("success")
    found = [token.logprob for token in choice.logprobs.content]
    assert found == pytest.approx(expected, abs=1e-5)


async def test_a_seed_makes_the_choices_reproducible(model: art.TrainableModel[None]) -> None:
    def texts(completion: Any) -> list[str]:
        return [choice.message.content for choice in completion.choices]

    first, again, other = [await ask(model, n=4, seed=seed) for seed in (7, 7, 8)]
    assert texts(first) == texts(again)
    assert texts(first) != texts(other)
    assert len(set(texts(first))) == 4
    greedy = texts(await ask(model, n=2, temperature=0))
    assert greedy[0] == greedy[1]


async def test_a_stream_carries_the_same_as_a_plain_response(
    model: art.TrainableModel[None],
) -> None:
    whole = await ask(model, seed=3)
    stream = await ask(model, seed=3, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    ends = [c.choices[0] for c in chunks if c.choices and c.choices[0].finish_reason]
    assert [end.token_ids for end in ends] == [whole.choices[0].token_ids]
    assert chunks[-1].usage == whole.usage


async def test_a_stop_string_ends_the_sample_on_the_engine(model: art.TrainableModel[None]) -> None:
    free = (await ask(model, seed=5, max_tokens=16)).choices[0]
    stop = free.message.content[4:6]
    stopped = (await ask(model, seed=5, max_tokens=16, stop=stop)).choices[0]
    position = free.message.content.find(stop)
    assert stopped.message.content == free.message.content[:position]
    assert stopped.finish_reason == "stop"
    assert free.token_ids[: len(stopped.token_ids)] == stopped.token_ids
    assert len(stopped.token_ids) < len(free.token_ids)


async def test_tools_are_refused_where_the_template_shows_none(
    model: art.TrainableModel[None],
) -> None:
    tool = {"type": "function", "function": {"name": "search"}}
    with pytest.raises(openai.BadRequestError, match="does not show tools"):
        await ask(model, tools=[tool])


async def test_top_logprobs_are_the_likeliest_tokens(model: art.TrainableModel[None]) -> None:
    choice = (await ask(model, logprobs=True, top_logprobs=3, temperature=0)).choices[0]
    for token in choice.logprobs.content:
        assert len(token.top_logprobs) == 3
        logprobs = [each.logprob for each in token.top_logprobs]
        assert logprobs == sorted(logprobs, reverse=True)
        # What greedy sampling takes is the likeliest.
        assert token.top_logprobs[0].token == token.token
        assert logprobs[0] == pytest.approx(token.logprob, abs=1e-6)


async def test_the_context_can_be_filled_but_not_overfilled(
    model: art.TrainableModel[None],
) -> None:
    messages: Any = [{"role": "user", "content": "word " * 450}]
    prompt = (await ask(model, messages=messages, max_tokens=1)).usage.prompt_tokens
    limit = 512 - prompt
    assert 0 < limit < 64
    filled = await ask(model, messages=messages, max_tokens=limit)
    assert filled.usage.total_tokens <= 512
    with pytest.raises(openai.BadRequestError, match="context is 512") as caught:
        await ask(model, messages=messages, max_tokens=limit + 1)
    assert caught.value.code == "context_length_exceeded"


async def test_a_conversation_becomes_one_sequence(model: art.TrainableModel[None]) -> None:
    from art.rl import training_batch

    async def play(reward: float) -> art.Trajectory:
        trajectory = art.Trajectory(messages_and_choices=[*USER], reward=reward)
        for turn in range(3):
            completion = await ask(model, messages=trajectory.messages(), seed=turn, max_tokens=4)
            trajectory.messages_and_choices += [
                completion.choices[0],
                {"role": "user", "content": "And now?"},
            ]
        return trajectory

    played = [await play(reward) for reward in (0.0, 1.0)]
    batch = training_batch([art.TrajectoryGroup(played)])
    choices = [
        item
        for trajectory in played
        for item in trajectory.messages_and_choices
        if not isinstance(item, dict)
    ]
    sampled = [token for choice in choices for token in (choice.model_extra or {})["token_ids"]]
    trained = np.concatenate([each.tokens[each.mask] for each in batch.sequences])
    assert trained.tolist() == sampled


async def test_a_chat_template_from_the_config_replaces_the_tokenizers(
    backend: art.TinkerBackend, engine_server: EngineServer
) -> None:
    template = (
        "{% for tool in tools or [] %}<tool_call>{{ tool.function.name }}</tool_call>{% endfor %}"
        "{{ greeting }}{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>"
        "{% endfor %}<|im_start|>"
    )
    model = art.TrainableModel(
        name="agent",
        project="p",
        base_model=engine_server.base_model,
        _internal_config={
            "chat_template": template,
            "chat_template_kwargs": {"greeting": "Good day"},
        },
    )
    await model.register(backend)
    tokenizer = AutoTokenizer.from_pretrained(engine_server.base_model)
    tool = {"type": "function", "function": {"name": "search"}}
    choice = (await ask(model, tools=[tool])).choices[0]
    assert tokenizer.decode(choice.prompt_token_ids) == (
        "<tool_call>search</tool_call>Good day<|im_start|>Is the sky blue?<|im_end|><|im_start|>"
    )
    other = await ask(model, extra_body={"chat_template_kwargs": {"greeting": "Hi"}})
    assert "Hi<|im_start|>" in tokenizer.decode(other.choices[0].prompt_token_ids)
