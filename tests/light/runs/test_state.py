"""The state of a model: replaced whole, merged deep, and never half written."""

from pathlib import Path

import pytest

from art.errors import CheckpointError
from art.runs.state import STATE, merge_state, read_state, write_state


def test_a_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    write_state(tmp_path, {"a": {"b": [1, None]}})
    assert read_state(tmp_path) == {"a": {"b": [1, None]}}


def test_dicts_within_are_merged_and_other_values_replaced(tmp_path: Path) -> None:
    assert merge_state(tmp_path, {"a": {"b": 1, "c": [1]}}) == {"a": {"b": 1, "c": [1]}}
    merged = merge_state(tmp_path, {"a": {"c": [2]}, "d": None})
    assert merged == {"a": {"b": 1, "c": [2]}, "d": None}
    assert read_state(tmp_path) == merged


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    write_state(tmp_path, {"a": 1})
    with pytest.raises(TypeError):
        write_state(tmp_path, {"a": object()})
    assert read_state(tmp_path) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[1]", b'"x"', b"\xff{}", b"[" * 100_000], ids=lambda data: repr(data[:9])
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, data: bytes) -> None:
    (tmp_path / STATE).write_bytes(data)
    with pytest.raises(CheckpointError, match=r"state\.json"):
        read_state(tmp_path)


def test_a_folder_that_is_none_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for use in (read_state, lambda folder: write_state(folder, {})):
        with pytest.raises(CheckpointError, match=r"state\.json cannot be"):
            use(tmp_path / "file")
