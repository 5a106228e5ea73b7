"""LocalBackend with its real engine: a child that trains, ends with its parent, or is killed."""

import asyncio
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

import art
from art.errors import EngineDiedError, EngineStartError, UnknownBaseModelError
from tests.processes import Child

MESSAGES: art.Messages = [{"role": "user", "content": "Say a word."}]


def new_model(base_model: Path | str) -> art.TrainableModel[None]:
    return art.TrainableModel(name="words", project="tests", base_model=str(base_model))


async def groups_of(model: art.TrainableModel[None], samples: int = 4) -> list[art.TrajectoryGroup]:
    """One group whose rewards differ: the first sample is the best."""
    completion = await model.openai_client().chat.completions.create(
        model=model.get_inference_name(), messages=MESSAGES, max_tokens=8, n=samples
    )
    return [
        art.TrajectoryGroup(
            art.Trajectory(messages_and_choices=[*MESSAGES, choice], reward=float(number == 0))
            for number, choice in enumerate(completion.choices)
        )
    ]


def engines(root: Path) -> list[psutil.Process]:
    """Processes that serve checkpoints from `root`."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if {"art.cli", "serve"} <= set(process.info["cmdline"] or ())
        and any(str(root) in argument for argument in process.info["cmdline"])
    ]


def all_end(processes: list[psutil.Process], seconds: float) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not alive


async def test_it_trains_and_leaves_an_adapter_that_peft_reads(
    tiny_model: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = new_model(tiny_model)
    async with art.LocalBackend(path=tmp_path) as backend:
        await model.register(backend)
        result = await backend.train(model, await groups_of(model), learning_rate=1e-2)
        assert result.step == await model.get_step() == 1
        running = engines(tmp_path)
        assert len(running) == 1
    assert all_end(running, seconds=5)

    folder = tmp_path / "tests" / "models" / "words" / "checkpoints" / "0001"
    assert result.checkpoint_path == str(folder)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted = PeftModel.from_pretrained(base, folder)
    trained = [weight for name, weight in adapted.named_parameters() if "lora_B" in name]
    assert trained
    assert any(weight.abs().max() > 0 for weight in trained)


async def test_an_engine_killed_during_a_step_is_a_clear_error_and_training_resumes(
    tiny_model: Path, tmp_path: Path
) -> None:
    model = new_model(tiny_model)
    async with art.LocalBackend(path=tmp_path) as backend:
        await model.register(backend)
        await backend.train(model, await groups_of(model), learning_rate=1e-2)
        groups = await groups_of(model)

        (engine,) = engines(tmp_path)
        engine.suspend()  # the step begins, and cannot finish
        step = asyncio.create_task(backend.train(model, groups, learning_rate=1e-2))
        await asyncio.sleep(0.5)
        assert not step.done()
        killed = time.monotonic()
        engine.kill()
        with pytest.raises(EngineDiedError, match=r"killed by signal 9.*Checkpoints saved before"):
            await step
        assert time.monotonic() - killed < 5

        assert await model.get_step() == 1
        await model.register(backend)  # starts another engine from the last checkpoint
        result = await backend.train(model, await groups_of(model), learning_rate=1e-2)
        assert result.step == 2


async def test_a_rollout_fails_at_once_when_the_engine_is_gone(
    tiny_model: Path, tmp_path: Path
) -> None:
    import openai

    model = new_model(tiny_model)
    async with art.LocalBackend(path=tmp_path) as backend:
        await model.register(backend)
        (engine,) = engines(tmp_path)
        engine.kill()
        started = time.monotonic()
        with pytest.raises(openai.APIStatusError, match="engine"):
            await (
                model.openai_client()
                .with_options(max_retries=0)
                .chat.completions.create(
                    model=model.get_inference_name(), messages=MESSAGES, max_tokens=4
                )
            )
        assert time.monotonic() - started < 10


def test_an_engine_ends_with_a_parent_that_is_killed(tiny_model: Path, tmp_path: Path) -> None:
    code = f"""
        import asyncio, art

        async def main():
            model = art.TrainableModel(name="m", project="p", base_model={str(tiny_model)!r})
            await model.register(art.LocalBackend(path={str(tmp_path)!r}))
            print("ready", flush=True)
            await asyncio.sleep(600)

        asyncio.run(main())
    """
    with Child(sys.executable, "-c", textwrap.dedent(code)) as parent:
        parent.read_line("ready", timeout=180)
        running = engines(tmp_path)
        assert len(running) == 1
    assert all_end(running, seconds=5)


async def test_an_unknown_base_model_is_named(tmp_path: Path) -> None:
    model = new_model("no-such-organisation/no-such-model")
    async with art.LocalBackend(path=tmp_path) as backend:
        with pytest.raises(UnknownBaseModelError, match="no-such-organisation/no-such-model"):
            await model.register(backend)
        assert engines(tmp_path) == []


async def test_an_engine_that_cannot_start_shows_the_end_of_its_log(
    tiny_model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    model = new_model(broken)
    async with art.LocalBackend(path=tmp_path / "state") as backend:
        with pytest.raises(EngineStartError, match=r"(?i)safetensor|header|metadata"):
            await model.register(backend)
