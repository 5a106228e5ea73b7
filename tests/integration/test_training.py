"""From rollouts to trained checkpoints, through the official clients and a real engine."""

import asyncio
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import openai
import pytest
import tinker
import yaml
from tinker import ModelInput

import art
from art.formats.losses import LOSSES, LossName
from art.runs.progress import Progress
from art.types import Choice
from tests.engine_server import EngineServer
from tests.processes import run_python

MadeChoice = Callable[..., Choice]


async def logprobs(engine: EngineServer, sampler_path: str) -> list[float]:
    """The logprobs of some fixed tokens under a checkpoint."""
    service = tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)
    client = await service.create_sampling_client(model_path=sampler_path)
    scores = await client.compute_logprobs(ModelInput.from_ints(list(range(40, 60))))
    await service.close("success")
    return [score for score in scores if score is not None]


def sampler_path(folder: Path) -> str:
    path = yaml.safe_load((folder / "info.yaml").read_text())["sampler_weights_path"]
    assert isinstance(path, str)
    return path


def fixed_groups(made_choice: MadeChoice, step: int) -> list[art.TrajectoryGroup]:
    """The same data in every run, so that runs can be compared."""
    return [
        art.TrajectoryGroup(
            art.Trajectory(
                messages_and_choices=[
                    {"role": "user", "content": "x"},
                    made_choice([1, 40, 41], [42 + step, 50 + i, 60 + i], logprob=-8.0),
                ],
                reward=float(i),
            )
            for i in range(3)
        )
    ]


async def test_a_model_learns_what_is_rewarded(
    backend: art.TinkerBackend,
    model: art.TrainableModel[None],
    rollout: Callable[..., Any],
    target: int,
    tmp_path: Path,
) -> None:
    async def sample(seed: int) -> tuple[list[art.TrajectoryGroup], float]:
        groups = await art.gather_trajectory_groups(
            art.TrajectoryGroup(rollout(model, target, seed + i) for i in range(16))
            for seed in (seed, seed + 50)
        )
        return groups, sum(each.reward for group in groups for each in group) / 32

    rewards = []
    for step in range(3):
        groups, reward = await sample(100 * step)
        rewards.append(reward)
        assert model.get_inference_name() == f"agent@{step}"
        result = await backend.train(model, groups, learning_rate=2e-3)
        assert result.step == await model.get_step() == step + 1
        assert result.metrics["loss/grad_norm"] > 0
        # On-policy: what the sampler said of a token is what the trainer says of it.
        assert result.metrics["offpolicy/logprob_difference"] < 1e-5
    assert rewards[0] < 0.6
    assert (await sample(300))[1] > 0.8
    folder = tmp_path / "p" / "models" / "agent"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        f"{step:04d}" for step in range(4)
    ]
    assert json.loads((folder / "model.json").read_text())["base_model"] == model.base_model


async def test_old_steps_answer_as_they_did(
    backend: art.TinkerBackend, model: art.TrainableModel[None], made_choice: MadeChoice
) -> None:
    async def greedy(name: str) -> list[int]:
        completion = await model.openai_client().chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=12,
            temperature=0,
        )
        return list((completion.choices[0].model_extra or {})["token_ids"])

    before = await greedy("agent")
    await backend.train(model, fixed_groups(made_choice, 0), learning_rate=5e-2)
    assert await greedy("agent@0") == before == await greedy(model.base_model)
    after = await greedy("agent@1")
    assert after != before
    assert await greedy("agent") == after


_TRAIN_AND_DIE = """
import asyncio, json, os, signal, sys
import art
from art.formats.losses import LOSSES, LossName
from art.types import Choice

options = json.loads(sys.argv[1])

async def main():
    backend = art.TinkerBackend(base_url=options["base_url"], path=options["path"])
    model = art.TrainableModel(name="parts", project="p", base_model=options["base_model"])
    await model.register(backend)
    for rows in options["steps"]:
        group = art.TrajectoryGroup(
            art.Trajectory(messages_and_choices=[Choice.model_validate(choice)], reward=reward)
            for choice, reward in rows
        )
        await backend.train(model, [group], learning_rate=1e-2)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_killed_process_goes_on_exactly_where_it_stopped(
    engine_server: EngineServer,
    make_backend: Callable[[], art.TinkerBackend],
    make_model: Callable[[str], art.TrainableModel[None]],
    made_choice: MadeChoice,
    tmp_path: Path,
) -> None:
    def rows(step: int) -> list[tuple[Any, float]]:
        (group,) = fixed_groups(made_choice, step)
        return [
            (cast(Choice, each.messages_and_choices[1]).model_dump(), each.reward) for each in group
        ]

    async def run(name: str, first: int, last: int) -> None:
        async with make_backend() as backend:
            model = make_model(name)
            await model.register(backend)
            assert await model.get_step() == first
            for step in range(first, last):
                await backend.train(model, fixed_groups(made_choice, step), learning_rate=1e-2)

    await run("whole", 0, 3)
    options = {
        "base_url": engine_server.base_url,
        "base_model": engine_server.base_model,
        "path": str(tmp_path),
        "steps": [rows(0), rows(1)],
    }
    await asyncio.to_thread(
        run_python,
        _TRAIN_AND_DIE,
        json.dumps(options),
        status=-signal.SIGKILL,
        env={"TINKER_API_KEY": engine_server.api_key},
    )
    await run("parts", 2, 3)

    async def scored(name: str, step: int) -> list[float]:
        folder = tmp_path / "p" / "models" / name / "checkpoints" / f"{step:04d}"
        return await logprobs(engine_server, sampler_path(folder))

    # Without Adam's moments the third step would be another one.
    assert await scored("parts", 3) == pytest.approx(await scored("whole", 3), abs=1e-6)
    assert await scored("parts", 3) != pytest.approx(await scored("parts", 2), abs=1e-3)


@pytest.mark.parametrize("loss_fn", LOSSES)
async def test_every_loss_takes_a_step(
    backend: art.TinkerBackend,
    model: art.TrainableModel[None],
    made_choice: MadeChoice,
    loss_fn: LossName,
) -> None:
    result = await backend.train(model, fixed_groups(made_choice, 0), loss_fn=loss_fn)
    assert result.step == 1
    assert result.metrics["loss/train"] != 0


async def test_a_step_reports_its_stages(
    engine_server: EngineServer,
    make_model: Callable[[str], art.TrainableModel[None]],
    made_choice: MadeChoice,
    tmp_path: Path,
) -> None:
    reports: list[Any] = []

    class Recorder:
        def expect(self, total: int) -> None:
            reports.append(("expect", total))

        def advance(self, units: int, values: Mapping[str, float | str] | None = None) -> None:
            reports.append((units, dict(values or {})))

    @contextmanager
    def record(description: str | None, total: int | None) -> Iterator[Progress]:
        reports.append((description, total))
        yield Recorder()

    model = make_model("agent")
    async with art.TinkerBackend(
        tinker_api_key=engine_server.api_key,
        base_url=engine_server.base_url,
        path=tmp_path,
        show_progress=record,
    ) as backend:
        await model.register(backend)
        await backend.train(model, fixed_groups(made_choice, 0))
    assert reports == [
        ("step 1 training", 3),
        (0, {"stage": "forward_backward"}),
        (1, {"stage": "optim_step"}),
        (1, {"stage": "checkpoint"}),
        (1, {}),
    ]


async def test_dro_penalizes_the_drift_of_sampled_tokens_alone(
    engine_server: EngineServer,
    backend: art.TinkerBackend,
    model: art.TrainableModel[None],
    made_choice: MadeChoice,
) -> None:
    rollouts = [([200, 201, 202], 1.0), ([300, 301, 302], 0.0)]
    group = art.TrajectoryGroup(
        art.Trajectory(
            messages_and_choices=[made_choice([1, 40], tokens, logprob=-8.0)], reward=reward
        )
        for tokens, reward in rollouts
    )
    result = await backend.train(
        model, [group], loss_fn="dro", loss_fn_config={"beta": 0.5}, normalize_advantages=False
    )
    expected = 0.0
    for tokens, reward in rollouts:
        for score in await scores(engine_server, [1, 40, *tokens]):
            expected -= score * (reward - 0.5) - 0.5 / 2 * (score + 8.0) ** 2
    assert result.metrics["loss/train"] == pytest.approx(expected / 6, rel=1e-4)


async def test_cross_entropy_imitates_the_better_half(
    engine_server: EngineServer,
    backend: art.TinkerBackend,
    model: art.TrainableModel[None],
    made_choice: MadeChoice,
) -> None:
    good, bad = [200, 201, 202], [300, 301, 302]
    group = art.TrajectoryGroup(
        art.Trajectory(messages_and_choices=[made_choice([1, 40], tokens)], reward=reward)
        for tokens, reward in ((good, 1.0), (bad, 0.0))
    )
    result = await backend.train(model, [group], loss_fn="cross_entropy", learning_rate=1e-2)
    assert result.metrics["loss/train"] == pytest.approx(
        -sum(await scores(engine_server, [1, 40, *good])) / 3, rel=1e-4
    )


async def scores(engine: EngineServer, tokens: list[int]) -> list[float]:
    """The base model's logprobs of the last three of some tokens."""
    service = tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)
    client = await service.create_sampling_client(base_model=engine.base_model)
    found = await client.compute_logprobs(ModelInput.from_ints(tokens))
    await service.close("success")
    return [score for score in found[-3:] if score is not None]


async def test_the_kl_penalty_measures_the_way_from_the_base_model(
    backend: art.TinkerBackend,
    model: art.TrainableModel[None],
    rollout: Callable[..., Any],
    target: int,
) -> None:
    divergence = []
    for step in range(3):
        group = art.TrajectoryGroup([await rollout(model, target, i) for i in range(12)])
        options: Any = {"learning_rate": 3e-3, "kl_penalty_coef": 0.1}
        result = await backend.train(model, [group], **options)
        divergence.append(result.metrics["loss/kl_policy_base"])
        assert result.step == step + 1
    # The first policy is the base model itself.
    assert divergence[0] == pytest.approx(0, abs=1e-5)
    assert divergence[-1] > 0.01


async def test_deleted_checkpoints_are_gone_everywhere(
    engine_server: EngineServer,
    backend: art.TinkerBackend,
    model: art.TrainableModel[None],
    made_choice: MadeChoice,
    tmp_path: Path,
) -> None:
    for step in range(3):
        result = await backend.train(model, fixed_groups(made_choice, step), learning_rate=1e-3)
        await model.log(metrics={"reward": float(step == 0)}, split="val", step=result.step)
    folder = tmp_path / "p" / "models" / "agent" / "checkpoints"
    doomed = sampler_path(folder / "0002")
    run_id = yaml.safe_load((folder / "0003" / "info.yaml").read_text())["model_id"]
    await model.delete_checkpoints()
    assert sorted(path.name for path in folder.iterdir()) == ["0001", "0003"]
    rest = tinker.RestClient(base_url=engine_server.base_url, api_key=engine_server.api_key)
    kept = {each.checkpoint_id for each in (await rest.list_checkpoints(run_id)).checkpoints}
    assert kept == {
        f"{kind}/{n}" for kind in ("weights", "sampler_weights") for n in ("0001", "0003")
    }
    assert doomed.rpartition("/")[2] == "0002"
    with pytest.raises(openai.NotFoundError, match="agent@2"):
        await model.openai_client().chat.completions.create(
            model="agent@2", messages=[{"role": "user", "content": "x"}]
        )
    # A deletion that was interrupted after the server's part is finished by the next.
    await rest.delete_checkpoint_from_tinker_path(sampler_path(folder / "0001"))
    await backend.delete_checkpoints(model, [])
    assert [path.name for path in folder.iterdir()] == ["0003"]
