"""The names of checkpoints, and the folders behind them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from art.errors import InvalidRequestError
from art.formats.checkpoint_paths import CheckpointPath, run_id_of_folder


def test_a_folder_is_named_after_the_run_the_kind_and_the_name() -> None:
    path = CheckpointPath("abc:train:0", "weights", "step-1")
    folder = path.folder(Path("root"))
    assert folder == Path("root/checkpoints/abc.train.0/weights/step-1")
    assert run_id_of_folder(folder.parent.parent.name) == "abc:train:0"


@pytest.mark.parametrize("name", ["abc", "abc.train", "abc.train.x", ".tmp-abc.train.0", ""])
def test_a_folder_of_another_name_is_no_training_run(name: str) -> None:
    assert run_id_of_folder(name) is None


@given(name=st.text(max_size=140) | st.sampled_from(["..", ".", "a/b", "a\\b", "CON", "-a", ".a"]))
def test_no_name_leaves_its_folder(name: str) -> None:
    try:
        path = CheckpointPath("abc:train:0", "weights", name)
    except InvalidRequestError:
        return
    assert len(Path(path.name).parts) == 1
    assert path.name[0] not in ".-"
    assert CheckpointPath.parse(str(path)) == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "weights/x",
        "tinker://abc:train:0/weights",
        "tinker://abc:train:0/weights/../x",
        "tinker://abc:train:0/other/x",
        "tinker://../weights/x",
        "tinker://a/b:train:0/weights/x",
        "tinker://abc:train:0/weights/x\n",
    ],
)
def test_paths_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        CheckpointPath.parse(text)
