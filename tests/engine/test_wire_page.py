"""docs/wire.md against the code: every endpoint of the servers and of the SDK, and every test."""

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import tinker
from fastapi import APIRouter
from fastapi.routing import APIRoute

from art.endpoint.app import DIALECTS as ENDPOINT_DIALECTS
from art.endpoint.app import _open_routes
from art.engine.routes import ROUTERS
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([A-Z]+) ([^`]+)` \| (\w+)[^|]* \|([^|]*)\|$", re.MULTILINE)


class Row(NamedTuple):
    """One endpoint on the page."""

    method: str
    path: str
    state: str
    test: str


def rows(heading: str) -> list[Row]:
    section = PAGE.split(f"\n## {heading}\n")[1].partition("\n## ")[0]
    found = [Row(*(part.strip(" `") for part in match)) for match in ROW.findall(section)]
    assert found, f"there is no table below {heading}"
    return found


def routes(routers: Sequence[APIRouter]) -> set[tuple[str, str]]:
    return {
        # A converter such as `:path` says which texts fit, not what the endpoint is.
        (method, re.sub(r":\w+}", "}", route.path))
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }


WIRE = rows("Endpoints")
DIALECTS = rows("The OpenAI-compatible endpoint")


@pytest.mark.parametrize(
    ("page", "routers", "prefix"),
    [
        (WIRE, ROUTERS, "/"),
        (DIALECTS, (_open_routes, *(each.router for each in ENDPOINT_DIALECTS)), ""),
    ],
    ids=["the Tinker API", "the OpenAI-compatible endpoint"],
)
def test_the_page_has_the_routes_of_the_server_and_no_others(
    page: list[Row], routers: Sequence[APIRouter], prefix: str
) -> None:
    assert len({row[:2] for row in page}) == len(page), "an endpoint stands there twice"
    present = {(row.method, prefix + row.path) for row in page if row.state != "absent"}
    assert present == routes(routers)
    assert {row.state for row in page} <= {"served", "refused", "absent"}


def test_every_endpoint_of_the_sdk_has_a_row() -> None:
    package = Path(tinker.__file__).parent
    sources = [path for path in package.rglob("*.py") if not path.stem.endswith("_test")]
    texts = "".join(path.read_text(encoding="utf-8") for path in sources)
    called = {_shape(path) for path in re.findall(r"\"/api/v1/([^\"?]+)\"", texts)}
    assert len(called) > 40
    # The SDK has a checkpoint's kind and name in one part.
    documented = {_shape(row.path.replace("{kind}/{name}", "{checkpoint_id}")) for row in WIRE}
    assert called - documented == set()


def _shape(path: str) -> str:
    return re.sub(r"{\w+}", "{}", path)


TESTS = {row.test for row in (*WIRE, *DIALECTS) if row.test}


@pytest.mark.parametrize("test", sorted(TESTS | set(re.findall(r"`(\S+::\w+)`", PAGE))))
def test_a_test_that_the_page_names_exists(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in tree.body if isinstance(node, functions)}


def test_whatever_has_a_route_has_a_test() -> None:
    assert [row for row in (*WIRE, *DIALECTS) if row.state != "absent" and not row.test] == []
