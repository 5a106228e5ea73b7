"""Requests that cannot work fail with a clear error, and leave everything as it was."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import art
from art.errors import (
    CheckpointError,
    ConfigurationError,
    ContextLengthError,
    InvalidRewardError,
    MissingAPIKeyError,
    NoTrainableTokensError,
    PortInUseError,
    UnknownBaseModelError,
)
from art.types import Choice
from tests.engine_server import EngineServer

MakeModel = Callable[[str], art.TrainableModel[None]]
MakeBackend = Callable[[], art.TinkerBackend]
MadeChoice = Callable[..., Choice]


def group_of(rewards: list[float], *items: Any) -> art.TrajectoryGroup:
    """One group with a trajectory of the same items for each reward."""
    return art.TrajectoryGroup(
        art.Trajectory(messages_and_choices=list(items), reward=reward) for reward in rewards
    )


async def assert_step_stays(backend: art.TinkerBackend, model: art.TrainableModel[None]) -> None:
    assert await model.get_step() == 0
    assert backend.inference_name(model) == "agent@0"


async def test_registering_without_a_key_is_refused(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TINKER_API_KEY", raising=False)
    before = dict(os.environ)
    async with art.TinkerBackend(path=tmp_path) as backend:
        with pytest.raises(MissingAPIKeyError, match=r"TINKER_API_KEY.*art\.LocalBackend\(\)"):
            await make_model("agent").register(backend)
    assert dict(os.environ) == before


async def test_a_key_that_the_server_refuses_is_an_error_without_the_key(
    engine_server: EngineServer, make_model: MakeModel, tmp_path: Path
) -> None:
    async with art.TinkerBackend(
        tinker_api_key="tml-wrong", base_url=engine_server.base_url, path=tmp_path
    ) as backend:
        with pytest.raises(ConfigurationError, match="refused the API key") as caught:
            await make_model("agent").register(backend)
    assert "tml-wrong" not in str(caught.value)


async def test_a_key_of_another_service_is_an_error_without_the_key(
    engine_server: EngineServer, make_model: MakeModel, tmp_path: Path
) -> None:
    async with art.TinkerBackend(
        tinker_api_key="sk-123", base_url=engine_server.base_url, path=tmp_path
    ) as backend:
        with pytest.raises(ConfigurationError, match="tml-") as caught:
            await make_model("agent").register(backend)
    assert "sk-123" not in str(caught.value)


async def test_an_unknown_base_model_is_refused_with_the_near_ones(
    backend: art.TinkerBackend, engine_server: EngineServer
) -> None:
    wrong = engine_server.base_model + "x"
    model = art.TrainableModel(name="agent", project="p", base_model=wrong)
    with pytest.raises(UnknownBaseModelError, match=f"it has {engine_server.base_model}"):
        await model.register(backend)


BAD_GROUPS: dict[str, tuple[list[float], list[int] | None, list[int], str]] = {
    "no trajectories": ([], [1, 2], [3], "data/step_num_groups_failed"),
    "a NaN reward": ([math.nan], [1, 2], [3], "data/step_num_trajectories_dropped"),
    "no completion": ([1.0], None, [], "data/step_num_trajectories_dropped"),
    "too long": ([0.0, 1.0], list(range(1, 512)), [3, 4], "data/step_num_sequences_too_long"),
}


@pytest.mark.parametrize("name", BAD_GROUPS)
async def test_what_cannot_be_trained_on_is_left_out_and_counted(
    backend: art.TinkerBackend,
    model: art.TrainableModel[None],
    made_choice: MadeChoice,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    rewards, prompt, tokens, metric = BAD_GROUPS[name]
    message = {"role": "assistant", "content": "x"}
    bad = group_of(rewards, message if prompt is None else made_choice(prompt, tokens))
    result = await backend.train(model, [group_of([0.0, 1.0], made_choice([1, 2], [3])), bad])
    assert result.step == 1
    assert result.metrics[metric] == (len(rewards) or 1)
    assert "left out" in caplog.text


@pytest.mark.parametrize(
    ("rewards", "prompt", "tokens", "error"),
    [
        ([math.nan, math.nan], [1, 2], [3], InvalidRewardError),
        ([0.0, 1.0], None, None, NoTrainableTokensError),
        ([0.0, 1.0], list(range(1, 512)), [3, 4], ContextLengthError),
    ],
    ids=["only NaN rewards", "no completions at all", "all too long"],
)
async def test_a_step_without_anything_that_can_be_trained_on_is_refused(
    backend: art.TinkerBackend,
    model: art.TrainableModel[None],
    made_choice: MadeChoice,
    rewards: list[float],
    prompt: list[int] | None,
    tokens: list[int],
    error: type[Exception],
) -> None:
    message = {"role": "assistant", "content": "x"}
    bad = group_of(rewards, message if prompt is None else made_choice(prompt, tokens))
    with pytest.raises(error):
        await backend.train(model, [bad])
    await assert_step_stays(backend, model)


async def test_a_step_whose_rollouts_all_failed_is_skipped(
    backend: art.TinkerBackend, model: art.TrainableModel[None], caplog: pytest.LogCaptureFixture
) -> None:
    failed = art.TrajectoryGroup([TimeoutError("the tool's server is down")])
    result = await backend.train(model, [failed, failed])
    assert result.step == 0
    assert result.metrics["data/step_num_groups_failed"] == 2
    assert "no step was taken: of 2 groups 2 failed" in caplog.text
    assert "the tool's server is down" in caplog.text
    await assert_step_stays(backend, model)


async def test_reference_logprobs_need_room_for_one_more_token(
    backend: art.TinkerBackend, model: art.TrainableModel[None], made_choice: MadeChoice
) -> None:
    long = group_of([0.0, 1.0], made_choice(list(range(1, 512)), [3]))
    with pytest.raises(ContextLengthError, match="the 511 tokens that fit"):
        await backend.train(model, [long], kl_penalty_coef=0.1)
    await assert_step_stays(backend, model)
    assert (await backend.train(model, [long])).step == 1


async def test_equal_rewards_take_no_step(
    backend: art.TinkerBackend,
    model: art.TrainableModel[None],
    made_choice: MadeChoice,
    caplog: pytest.LogCaptureFixture,
) -> None:
    result = await backend.train(model, [group_of([1.0] * 3, made_choice([1, 2], [3]))])
    assert result.step == 0
    assert result.metrics["data/step_num_groups_dropped"] == 1
    assert "no step was taken" in caplog.text
    await assert_step_stays(backend, model)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"learning_rate": -1}, ConfigurationError),
        ({"loss_fn": "mse"}, ConfigurationError),
        ({"loss_fn": "cross_entropy", "kl_penalty_coef": 0.1}, ConfigurationError),
        ({"loss_fn": "ppo", "loss_fn_config": {"no_such_number": 1.0}}, ConfigurationError),
    ],
)
async def test_an_option_that_cannot_be_used_is_refused_and_the_next_step_works(
    backend: art.TinkerBackend,
    model: art.TrainableModel[None],
    made_choice: MadeChoice,
    options: dict[str, Any],
    error: type[Exception],
) -> None:
    group = group_of([0.0, 1.0], made_choice([1, 2], [3]))
    with pytest.raises(error):
        await backend.train(model, [group], **options)
    await assert_step_stays(backend, model)
    assert (await backend.train(model, [group])).step == 1


async def test_a_config_that_the_wire_cannot_carry_is_refused(
    backend: art.TinkerBackend, engine_server: EngineServer
) -> None:
    model = art.TrainableModel(
        name="agent",
        project="p",
        base_model=engine_server.base_model,
        _internal_config={"peft_args": {"target_modules": ["q_proj"]}},
    )
    with pytest.raises(ConfigurationError, match="target_modules"):
        await model.register(backend)


async def test_the_endpoints_settings_are_used_or_refused(
    backend: art.TinkerBackend, make_model: MakeModel, model: art.TrainableModel[None]
) -> None:
    port = int((model.inference_base_url or "").rpartition(":")[2].removesuffix("/v1"))
    other = make_model("other")
    with pytest.raises(PortInUseError, match=str(port)):
        await other.register(backend, {"server_args": {"port": port}})
    unknown: Any = {"server_args": {"tool_call_parser": "hermes"}}
    with pytest.raises(ConfigurationError, match="tool_call_parser"):
        await other.register(backend, unknown)
    await other.register(backend, {"server_args": {"api_key": "mine"}})
    assert other.inference_api_key == "mine"


async def test_a_checkpoint_of_another_rank_or_base_model_is_refused(
    make_backend: MakeBackend, make_model: MakeModel, engine_server: EngineServer, tmp_path: Path
) -> None:
    async with make_backend() as backend:
        await make_model("agent").register(backend)
    wider = art.TrainableModel(
        name="agent",
        project="p",
        base_model=engine_server.base_model,
        _internal_config={"peft_args": {"r": 4}},
    )
    async with make_backend() as backend:
        with pytest.raises(ConfigurationError, match="rank 8, and the config says 4"):
            await wider.register(backend)
    info = tmp_path / "p" / "models" / "agent" / "checkpoints" / "0000" / "info.yaml"
    info.write_text(info.read_text().replace(engine_server.base_model, "another"))
    async with make_backend() as backend:
        with pytest.raises(ConfigurationError, match="belong to another"):
            await make_model("agent").register(backend)


async def test_a_checkpoint_that_the_server_has_lost_is_refused_with_a_remedy(
    make_backend: MakeBackend, make_model: MakeModel, tmp_path: Path
) -> None:
    async with make_backend() as backend:
        await make_model("agent").register(backend)
    info = tmp_path / "p" / "models" / "agent" / "checkpoints" / "0000" / "info.yaml"
    info.write_text(info.read_text().replace("/weights/0000", "/weights/0009"))
    async with make_backend() as backend:
        with pytest.raises(CheckpointError, match="move its folder away"):
            await make_model("agent").register(backend)


async def test_a_disk_that_is_full_at_a_checkpoint_leaves_the_step_before(
    backend: art.TinkerBackend,
    model: art.TrainableModel[None],
    made_choice: MadeChoice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = group_of([0.0, 1.0], made_choice([1, 2], [3]))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            await backend.train(model, [group])
    await assert_step_stays(backend, model)
    assert (await backend.train(model, [group])).step == 1
