"""Checkpoint folders appear whole or not at all."""

import os
import signal
from pathlib import Path

import pytest
import yaml

from art.errors import CheckpointError
from art.tinker.checkpoints import CheckpointFolders, CheckpointInfo
from tests.processes import run_python

INFO = CheckpointInfo("m", "tinker://m/weights/0001", "tinker://m/sampler_weights/0001", "base")


async def nothing(folder: Path) -> None:
    pass


async def test_a_folder_holds_arts_keys_and_what_the_backend_adds(tmp_path: Path) -> None:
    async def fill(folder: Path) -> None:
        assert not (tmp_path / "checkpoints/0001").exists()
        (folder / "adapter.bin").write_text("w")

    folder = await CheckpointFolders(tmp_path).write(1, INFO, fill)
    assert folder == tmp_path / "checkpoints" / "0001"
    assert yaml.safe_load((folder / "info.yaml").read_text()) == {
        "model_id": "m",
        "state_with_optimizer_path": "tinker://m/weights/0001",
        "sampler_weights_path": "tinker://m/sampler_weights/0001",
        "base_model": "base",
    }
    assert (folder / "adapter.bin").read_text() == "w"
    assert CheckpointFolders(tmp_path).read(1) == INFO


async def test_a_failure_while_writing_leaves_the_step_before(tmp_path: Path) -> None:
    folders = CheckpointFolders(tmp_path)
    await folders.write(1, INFO, nothing)

    async def disk_full(folder: Path) -> None:
        (folder / "adapter.bin").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match=r"step 2 cannot be written.*No space left"):
        await folders.write(2, INFO, disk_full)
    assert folders.last_step() == 1
    assert os.listdir(tmp_path / "checkpoints") == ["0001"]


def test_a_process_killed_while_it_writes_leaves_the_step_before(tmp_path: Path) -> None:
    script = """
        import asyncio, os, signal, sys
        from art.tinker.checkpoints import CheckpointFolders, CheckpointInfo
        async def die(folder): os.kill(os.getpid(), signal.SIGKILL)
        async def nothing(folder): pass
        async def main():
            folders = CheckpointFolders(sys.argv[1])
            await folders.write(1, CheckpointInfo("m", "s", "w"), nothing)
            await folders.write(2, CheckpointInfo("m", "s", "w"), die)
        asyncio.run(main())
    """
    run_python(script, tmp_path, status=-signal.SIGKILL)
    assert CheckpointFolders(tmp_path).steps() == [1]


async def test_a_complete_step_is_not_replaced(tmp_path: Path) -> None:
    folders = CheckpointFolders(tmp_path)
    await folders.write(1, INFO, nothing)
    with pytest.raises(CheckpointError, match="step 1 cannot be written"):
        await folders.write(1, CheckpointInfo("other", "s", "w"), nothing)
    assert folders.read(1) == INFO


async def test_leftovers_are_no_checkpoints_and_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "0003").mkdir(parents=True)
    (tmp_path / "checkpoints" / "notes").mkdir()
    folders = CheckpointFolders(tmp_path)
    assert folders.steps() == []
    assert folders.last_step() is None
    await folders.write(3, INFO, nothing)
    assert folders.steps() == [3]
    folders.delete(3)
    assert os.listdir(tmp_path / "checkpoints") == ["notes"]


NUMBERS = b"model_id: 1\nstate_with_optimizer_path: 2\nsampler_weights_path: 3\n"


@pytest.mark.parametrize(
    "data",
    [b"model_id: m\n", b"[", b"- a\n", b"", b"\xff", b"\x00", b"[" * 5000, NUMBERS],
    ids=lambda data: repr(data[:9]),
)
def test_a_damaged_folder_is_an_error_with_a_remedy(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "checkpoints" / "0001").mkdir(parents=True)
    (tmp_path / "checkpoints" / "0001" / "info.yaml").write_bytes(data)
    with pytest.raises(CheckpointError, match="Move the folder of step 1 away"):
        CheckpointFolders(tmp_path).read(1)


async def test_a_file_in_the_place_of_the_folder_is_an_error_of_art(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    folders = CheckpointFolders(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be listed"):
        folders.last_step()
    with pytest.raises(CheckpointError, match="step 1 cannot be written"):
        await folders.write(1, INFO, nothing)
    with pytest.raises(CheckpointError, match="cannot be removed"):
        folders.delete(1)
