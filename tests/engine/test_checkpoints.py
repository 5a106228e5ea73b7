"""The checkpoint store: whole or not at all, whatever happens."""

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from art.engine.checkpoint_metadata import TrainingRun, read_metadata
from art.engine.checkpoints import CheckpointStore
from art.errors import CheckpointError, InvalidRequestError, NotFoundError
from art.executors.types import LoraConfig
from art.formats.checkpoint_paths import CheckpointPath

from ..processes import run, run_python

RUN = TrainingRun(
    run_id="abc:train:0",
    base_model="base",
    lora=LoraConfig(rank=4, alpha=32.0, seed=1),
    user_metadata={"by": "test"},
)
PATH = CheckpointPath("abc:train:0", "weights", "step-1")


def _fill(text: str) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / "adapter_model.safetensors").write_text(text)

    return fill


def _text(store: CheckpointStore, path: CheckpointPath = PATH) -> str:
    return (store.read(path)[1] / "adapter_model.safetensors").read_text()


def test_a_checkpoint_survives_the_store(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).write(
        PATH, RUN, _fill("one"), overwrite=False, user_metadata={"k": "v"}
    )
    checkpoint, folder = CheckpointStore(tmp_path).read(PATH)
    assert folder == tmp_path / "checkpoints/abc.train.0/weights/step-1"
    assert checkpoint.run == RUN
    assert checkpoint.has_optimizer
    assert checkpoint.size_bytes == 3
    assert checkpoint.user_metadata == {"k": "v"}
    assert [found.path for found in CheckpointStore(tmp_path).list()] == [PATH]
    assert CheckpointStore(tmp_path).list("other:train:1") == []


def test_a_name_is_replaced_only_when_asked(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    first = store.write(PATH, RUN, _fill("one"), overwrite=False)
    with pytest.raises(InvalidRequestError, match="overwrite=True"):
        store.write(PATH, RUN, _fill("two"), overwrite=False)
    assert _text(store) == "one"
    second = store.write(PATH, RUN, _fill("two"), overwrite=True)
    assert _text(store) == "two"
    assert first.version != second.version
    assert [entry.name for entry in store.read(PATH)[1].parent.iterdir()] == ["step-1"]


_FULL_DISK = """
import pathlib, sys
import numpy
from safetensors.numpy import save_file
from art.engine.checkpoint_metadata import TrainingRun
from art.engine.checkpoints import CheckpointStore
from art.formats.checkpoint_paths import CheckpointPath
from art.executors.types import LoraConfig
from art.errors import CheckpointError

def fill(size):
    return lambda folder: save_file({"a": numpy.zeros(size)}, folder / "adapter_model.safetensors")

run = TrainingRun(run_id="abc:train:0", base_model="base", lora=LoraConfig(rank=4, alpha=32.0))
path = CheckpointPath("abc:train:0", "weights", "step-1")
root = pathlib.Path(sys.argv[1])
store = CheckpointStore(root)
first = store.write(path, run, fill(16), overwrite=False)
for write in (
    lambda: store.write(path, run, fill(1 << 16), overwrite=True),
    lambda: store.write_unnamed(fill(1 << 16)),
):
    try:
        write()
    except CheckpointError as error:
        assert "the disk is full" in str(error), error
        assert error.__cause__ is not None
    else:
        raise SystemExit("nothing was raised")
assert store.read(path)[0] == first
assert not list(root.glob("checkpoints/*/*/.*"))
second = CheckpointPath("abc:train:0", "weights", "step-2")
store.write(second, run, fill(16), overwrite=False)
assert [found.path for found in store.list()] == [second, path]
"""


def test_a_full_disk_leaves_earlier_checkpoints_intact(tmp_path: Path) -> None:
    """On a disk of 64 KiB that is really full, with the errors of the real library."""
    private = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or run(*private, "true", status=None).returncode:
        pytest.skip("needs a mount namespace of its own")
    mount = f"mount -t tmpfs -o size=64k tmpfs {shlex.quote(str(tmp_path))}"
    python = shlex.join([sys.executable, "-c", _FULL_DISK, str(tmp_path)])
    run(*private, "sh", "-c", f"{mount} && exec {python}")


@pytest.mark.parametrize("where", ["fill", "flush", "between renames", "after"])
def test_a_crash_leaves_the_old_checkpoint_or_the_new(tmp_path: Path, where: str) -> None:
    CheckpointStore(tmp_path).write(PATH, RUN, _fill("one"), overwrite=False)
    script = f"""
import os, pathlib
from art.engine import checkpoints
from art.executors.types import LoraConfig

where, renames = {where!r}, 0
die = lambda *_: os._exit(9)
rename = pathlib.Path.rename

def fill(folder):
    (folder / "adapter_model.safetensors").write_text("two")
    if where == "fill":
        die()

def counted_rename(self, target):
    global renames
    renames += 1
    if where == "between renames" and renames == 2:
        die()
    return rename(self, target)

pathlib.Path.rename = counted_rename
if where == "flush":
    os.fsync = die
if where == "after":
    checkpoints.shutil.rmtree = lambda path, **_: path.exists() and ".old-" in path.name and die()
run = checkpoints.TrainingRun(
    run_id="abc:train:0", base_model="base", lora=LoraConfig(rank=4, alpha=32.0)
)
path = checkpoints.CheckpointPath("abc:train:0", "weights", "step-1")
checkpoints.CheckpointStore(pathlib.Path({str(tmp_path)!r})).write(path, run, fill, overwrite=True)
"""
    run_python(script, status=9)
    store = CheckpointStore(tmp_path)
    assert [found.path for found in store.list()] == [PATH]
    assert _text(store) == ("two" if where == "after" else "one")
    store.write(PATH, RUN, _fill("three"), overwrite=True)
    assert _text(store) == "three"


def test_an_engine_that_was_killed_before_it_locked_its_scratch_folder_leaves_no_litter(
    tmp_path: Path,
) -> None:
    (tmp_path / "scratch-unlocked").mkdir()
    CheckpointStore(tmp_path).close()
    assert not list(tmp_path.glob("scratch-*"))


def test_a_killed_engine_leaves_no_litter(tmp_path: Path) -> None:
    """It dies while it writes its first checkpoint; an older art's leftovers go too."""
    script = """
        import os, pathlib, sys
        from art.engine.checkpoint_metadata import TrainingRun
        from art.engine.checkpoints import CheckpointStore
        from art.executors.types import LoraConfig
        from art.formats.checkpoint_paths import CheckpointPath

        def fill(folder):
            (folder / "adapter_model.safetensors").write_text("half")
            os._exit(9)

        run = TrainingRun(run_id="abc:train:0", base_model="b", lora=LoraConfig(rank=4, alpha=32.0))
        path = CheckpointPath("abc:train:0", "weights", "step-1")
        CheckpointStore(pathlib.Path(sys.argv[1])).write(path, run, fill, overwrite=False)
    """
    run_python(script, tmp_path, status=9)
    (tmp_path / "checkpoints/abc.train.1/weights/.tmp-old").mkdir(parents=True)
    (tmp_path / "checkpoints/abc.train.2/weights").mkdir(parents=True)
    CheckpointStore(tmp_path).close()
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert not list(tmp_path.glob("scratch-*"))


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "folder", "link loop"])
@pytest.mark.parametrize(
    "place",
    [
        "scratch-1",
        "checkpoints/x",
        "checkpoints/abc.train.0",
        "checkpoints/abc.train.0/weights",
        "checkpoints/abc.train.0/weights/step-1",
        "checkpoints/abc.train.0/weights/.old-step-1",
        "checkpoints/abc.train.0/weights/.old-other",
        "checkpoints/abc.train.0/weights/.tmp-1",
        "checkpoints/abc.train.0/weights/step-1/metadata.json",
    ],
)
def test_a_store_starts_whatever_lies_in_its_folder(tmp_path: Path, place: str, kind: str) -> None:
    strange = tmp_path / "root" / place
    strange.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    if kind == "file":
        strange.write_bytes(b"\xff{")
    elif kind == "folder":
        strange.mkdir()
    else:
        targets = {"link": tmp_path / "elsewhere", "link loop": strange}
        strange.symlink_to(targets.get(kind, tmp_path / "nowhere"))
    other = CheckpointPath("abc:train:1", "weights", "fine")
    store = CheckpointStore(tmp_path / "root")
    store.write(other, RUN, _fill("one"), overwrite=False)
    assert [found.path for found in store.list()] == [other]
    store.close()
    assert (tmp_path / "elsewhere").is_dir(), "what a link leads to is not ours"


def test_a_checkpoint_behind_a_link_is_replaced_and_the_store_starts_again(
    tmp_path: Path,
) -> None:
    store = CheckpointStore(tmp_path)
    store.write(PATH, RUN, _fill("one"), overwrite=False)
    folder = store.read(PATH)[1]
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    store.write(PATH, RUN, _fill("two"), overwrite=True)
    assert _text(CheckpointStore(tmp_path)) == "two"
    assert (tmp_path / "moved/adapter_model.safetensors").read_text() == "one"


def test_engines_that_share_a_root_start_and_write_beside_each_other(tmp_path: Path) -> None:
    script = """
        import pathlib, sys
        from art.engine.checkpoint_metadata import TrainingRun
        from art.engine.checkpoints import CheckpointStore
        from art.executors.types import LoraConfig
        from art.formats.checkpoint_paths import CheckpointPath

        run = TrainingRun(run_id="abc:train:0", base_model="b", lora=LoraConfig(rank=4, alpha=32.0))
        path = CheckpointPath("abc:train:0", "weights", "shared")
        for number in range(30):
            store = CheckpointStore(pathlib.Path(sys.argv[1]))
            fill = lambda folder: (folder / "a").write_text(str(number)) and None
            store.write(path, run, fill, overwrite=True)
            if number % 7 == 0:
                try:
                    store.delete(path)
                except Exception as error:
                    assert "there is no checkpoint" in str(error), error
            store.close()
    """
    with ThreadPoolExecutor() as pool:
        for ran in [pool.submit(run_python, script, tmp_path) for _ in range(3)]:
            ran.result()
    assert [found.path.name for found in CheckpointStore(tmp_path).list()] == ["shared"]


def test_a_pinned_checkpoint_outlives_its_name(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.write(PATH, RUN, _fill("one"), overwrite=False)
    checkpoint, pinned = store.pin(PATH)
    store.write(PATH, RUN, _fill("two"), overwrite=True)
    store.delete(PATH)
    assert (pinned / "adapter_model.safetensors").read_text() == "one"
    assert read_metadata(pinned, PATH) == checkpoint
    with pytest.raises(NotFoundError):
        store.pin(PATH)
    store.delete_unnamed(pinned)
    assert sorted(entry.name for entry in store._scratch.path.iterdir()) == ["in-use"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"a":' * 5000,
        '{"format": 2}',
        json.dumps({"created": "2026-01-01T00:00:00"}),
        '{"user_metadata": {"note": "\\ud800"}}',
    ],
)
def test_damaged_metadata_is_an_error_and_hides_no_other(tmp_path: Path, text: str) -> None:
    store = CheckpointStore(tmp_path)
    other = CheckpointPath("abc:train:0", "sampler_weights", "step-1")
    store.write(PATH, RUN, _fill("one"), overwrite=False)
    store.write(other, RUN, _fill("one"), overwrite=False)
    metadata = store.read(PATH)[1] / "metadata.json"
    if text.startswith('{"created"') or text.startswith('{"user'):
        text = json.dumps(json.loads(metadata.read_text()) | json.loads(text))
    metadata.write_text(text)
    with pytest.raises(CheckpointError, match="cannot be read"):
        store.read(PATH)
    assert [found.path for found in store.list()] == [other]


def test_unnamed_adapters_go_with_their_process(tmp_path: Path) -> None:
    script = f"""
import os, pathlib
from art.engine.checkpoints import CheckpointStore
store = CheckpointStore(pathlib.Path({str(tmp_path)!r}))
store.write_unnamed(lambda folder: (folder / "a").write_text("x") and None)
os._exit(9)
"""
    run_python(script, status=9)
    assert len(list(tmp_path.glob("scratch-*"))) == 1
    store = CheckpointStore(tmp_path)
    kept = store.write_unnamed(_fill("x"))
    other = CheckpointStore(tmp_path)
    assert kept.exists(), "the folder of a process that lives is left alone"
    for each in (store, other):
        each.close()
    assert not list(tmp_path.glob("scratch-*"))


def test_a_checkpoint_goes_when_it_is_deleted_or_expires(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.write(PATH, RUN, _fill("one"), overwrite=False, ttl_seconds=3600)
    store.delete_expired()
    checkpoint, folder = store.read(PATH)
    assert checkpoint.expires is not None
    store.set_ttl(PATH, None)
    assert store.read(PATH)[0].expires is None
    with pytest.raises(InvalidRequestError, match="3600"):
        store.set_ttl(PATH, 10)
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["expires"] = "2020-01-01T00:00:00+00:00"
    (folder / "metadata.json").write_text(json.dumps(metadata))
    store.delete_expired()
    with pytest.raises(NotFoundError):
        store.read(PATH)
    with pytest.raises(NotFoundError):
        store.delete(PATH)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot use"):
        CheckpointStore(tmp_path / "file")
