"""Backends and models on a real engine, and rollouts that any model can learn from."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import art
from art.types import Choice
from tests.engine_server import EngineServer

MakeModel = Callable[[str], art.TrainableModel[None]]


@pytest.fixture(autouse=True)
def _no_endpoint_is_left() -> Iterator[None]:
    yield
    assert not [each for each in threading.enumerate() if each.name == "art-openai-server"]


@pytest.fixture
def make_backend(engine_server: EngineServer, tmp_path: Path) -> Callable[[], art.TinkerBackend]:
    """Make a backend on the engine; all of them share one folder of state."""
    return lambda: art.TinkerBackend(
        tinker_api_key=engine_server.api_key, base_url=engine_server.base_url, path=tmp_path
    )


@pytest.fixture
async def backend(
    make_backend: Callable[[], art.TinkerBackend],
) -> AsyncIterator[art.TinkerBackend]:
    async with make_backend() as backend:
        yield backend


@pytest.fixture
def make_model(engine_server: EngineServer) -> MakeModel:
    """Make a model, not registered yet."""
    return lambda name: art.TrainableModel(
        name=name, project="p", base_model=engine_server.base_model
    )


@pytest.fixture
async def model(backend: art.TinkerBackend, make_model: MakeModel) -> art.TrainableModel[None]:
    """A registered model."""
    model = make_model("agent")
    await model.register(backend)
    return model


@pytest.fixture
def rollout() -> Callable[..., Any]:
    """Make a trajectory of one token among the four likeliest, rewarded where it is ``target``.

    A model without any knowledge can learn that in a few steps.
    """

    async def roll(model: art.TrainableModel[None], target: int, seed: int) -> art.Trajectory:
        messages: art.Messages = [{"role": "user", "content": "hello"}]
        completion = await model.openai_client().chat.completions.create(
            model=model.get_inference_name(),
            messages=messages,
            max_tokens=1,
            seed=seed,
            extra_body={"top_k": 4},
        )
        choice = completion.choices[0]
        token_ids = (choice.model_extra or {})["token_ids"]
        reward = float(token_ids == [target])
        return art.Trajectory(messages_and_choices=[*messages, choice], reward=reward)

    return roll


@pytest.fixture
async def target(model: art.TrainableModel[None]) -> int:
    """The token that the base model finds likeliest."""
    completion = await model.openai_client().chat.completions.create(
        model=model.base_model,
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=1,
        temperature=0,
    )
    return int((completion.choices[0].model_extra or {})["token_ids"][0])


@pytest.fixture
def made_choice() -> Callable[..., Choice]:
    """Make the Choice of a completion that no model sampled."""

    def make(prompt: list[int], tokens: list[int], logprob: float = -3.0) -> Choice:
        content = [
            {"token": str(token), "logprob": logprob, "top_logprobs": []} for token in tokens
        ]
        return Choice.model_validate(
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "made"},
                "logprobs": {"content": content},
                "prompt_token_ids": prompt,
                "token_ids": tokens,
            }
        )

    return make
