"""Checkpoints that were saved on the server by a client that died before it named them."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import tinker

import art
from art.errors import CheckpointError
from art.tinker.checkpoints import CheckpointFolders, CheckpointInfo
from art.types import Choice
from tests.engine_server import EngineServer
from tests.processes import run_python

MadeChoice = Callable[..., Choice]

KILLED_IN_A_SAVE = """
    import asyncio, os, signal, sys
    import art
    from art.tinker.checkpoints import CheckpointFolders

    async def main(base_url, api_key, base_model, path):
        backend = art.TinkerBackend(tinker_api_key=api_key, base_url=base_url, path=path)
        model = art.TrainableModel(name="agent", project="p", base_model=base_model)
        CheckpointFolders.write = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
        await model.register(backend)

    asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def saved(engine_server: EngineServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """List the checkpoints on the server."""
    rest = tinker.RestClient(base_url=engine_server.base_url, api_key=engine_server.api_key)
    return lambda: {
        each.tinker_path for each in rest.list_user_checkpoints(limit=1000).result().checkpoints
    }


def groups(made_choice: MadeChoice) -> list[art.TrajectoryGroup]:
    return [
        art.TrajectoryGroup(
            art.Trajectory(messages_and_choices=[made_choice([1, 40], [50 + i])], reward=float(i))
            for i in range(3)
        )
    ]


async def test_what_a_killed_client_saved_is_deleted_when_the_model_is_taken_on_again(
    engine_server: EngineServer,
    make_backend: Callable[[], art.TinkerBackend],
    make_model: Callable[[str], art.TrainableModel[None]],
    saved: Callable[[], set[str]],
    tmp_path: Path,
) -> None:
    before = saved()
    run_python(
        KILLED_IN_A_SAVE,
        engine_server.base_url,
        engine_server.api_key,
        engine_server.base_model,
        tmp_path,
        status=-signal.SIGKILL,
    )
    orphans = saved() - before
    assert len(orphans) == 2  # the weights to train on and those to sample from
    async with make_backend() as backend:
        await make_model("agent").register(backend)
        left = saved() - before
        assert len(left) == 2
        assert not left & orphans


async def test_what_a_failed_step_saved_is_deleted_and_other_steps_stay(
    make_backend: Callable[[], art.TinkerBackend],
    make_model: Callable[[str], art.TrainableModel[None]],
    made_choice: MadeChoice,
    saved: Callable[[], set[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = saved()

    async def full_disk(
        self: CheckpointFolders, step: int, info: CheckpointInfo, fill: object
    ) -> Path:
        raise CheckpointError("no space left")

    async with make_backend() as backend:
        model = make_model("agent")
        await model.register(backend)
        first = saved() - before
        with monkeypatch.context() as patch:
            patch.setattr(CheckpointFolders, "write", full_disk)
            with pytest.raises(CheckpointError, match="no space"):
                await backend.train(model, groups(made_choice))
        assert len(saved() - before - first) == 2
        assert (await backend.train(model, groups(made_choice))).step == 1
        assert len(saved() - before) == 4
        assert first < saved()
