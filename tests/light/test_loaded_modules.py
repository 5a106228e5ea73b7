"""Which modules each way into art loads, held to the lists in ``loaded_modules.toml``."""

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.processes import run_python

DATA = tomllib.loads(Path(__file__).with_name("loaded_modules.toml").read_text())
ENTRIES: list[dict[str, Any]] = DATA["entry"]


def loaded_by(code: str) -> set[str]:
    """The modules in `sys.modules` after `code`, that Python had not loaded before it."""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    return set(run_python(script).stdout.split())


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["code"].strip() for entry in ENTRIES])
def test_an_entry_point_loads_what_its_list_says(entry: dict[str, Any]) -> None:
    loaded = loaded_by(entry["code"])
    ours = {name for name in loaded if name.partition(".")[0] == "art"}
    assert sorted(ours) == sorted(entry["art"])
    roots = {name.partition(".")[0] for name in loaded - ours}
    # Extension modules may register parts under names of their own: `_cython_3_1_2`.
    others = {root for root in roots - set(sys.stdlib_module_names) if not root.startswith("_")}
    assert others <= set(entry["packages"])
    standard = {name for name in loaded if name.partition(".")[0] in sys.stdlib_module_names}
    if "standard_library" in entry:
        assert standard <= set(entry["standard_library"])
    elif entry["may"] != ["*"]:
        assert standard & set(DATA["never"]) <= set(entry["may"])


def test_the_lists_are_in_order_and_say_what_can_be() -> None:
    never = DATA["never"]
    assert never == sorted(set(never))
    assert {name.partition(".")[0] for name in never} <= set(sys.stdlib_module_names)
    for entry in ENTRIES:
        assert ("standard_library" in entry) != ("may" in entry), entry["code"]
        for key in ("art", "packages"):
            assert entry[key] == sorted(set(entry[key])), entry["code"]
        assert not set(entry.get("standard_library", ())) & set(never)


def test_bare_python_has_loaded_nothing_that_is_never_to_be_loaded() -> None:
    """Otherwise the lists could not see that art loads it."""
    loaded = run_python("import sys; print(*sys.modules)", flags=("-I", "-S")).stdout.split()
    assert not set(loaded) & set(DATA["never"])
