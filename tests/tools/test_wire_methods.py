"""The page of the SDK's methods: what a state file must say."""

from pathlib import Path

import pytest

from tools.marked_block import BlockError
from tools.wire_methods import STATES, main, read_methods, table

TEXT = STATES.read_text(encoding="utf-8")


def test_the_table_counts_each_method_and_its_twin() -> None:
    methods = read_methods()
    text = table(methods)
    assert f"Of {sum(method.count for method in methods)} methods" in text
    assert "| `get_session`, `get_session_async` | served |" in text
    assert "| `whoami` | refused |" in text


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('get_session = { served = "', 'get_sessions = { served = "', "get_session, get_sessions"),
        ("[AdminClient]", "[Admin]", "differ in AdminClient: get_audit_log"),
        (
            "whoami = { refused",
            "whoami = { denied",
            "whoami must have one of served, local, refused",
        ),
        ("whoami = {", 'whoami = { local = "x",', "RestClient.whoami must have one of"),
        ("whoami = {", 'whoami = { why = "x",', "at most a note"),
    ],
)
def test_a_state_file_that_does_not_fit_the_sdk_is_refused(
    tmp_path: Path, old: str, new: str, text: str
) -> None:
    file = tmp_path / "states.toml"
    assert old in TEXT
    file.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(BlockError, match=text):
        read_methods(file)


def test_the_page_is_current() -> None:
    assert main(["--check"]) == 0
