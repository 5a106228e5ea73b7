"""The links of the pages: each leads to a file that is there, and to a name that it defines."""

import ast
import re
from pathlib import Path

import pytest

from tests.processes import ROOT

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (".", "docs", "examples", "examples/model_family_plugin")
    for path in (ROOT / folder).glob("*.md")
)
LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)")


def links(page: str) -> list[tuple[str, str]]:
    text = (ROOT / page).read_text(encoding="utf-8")
    # What stands between fences is code.
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = [(match["text"], match["target"]) for match in LINK.finditer(prose)]
    return [(text, target) for text, target in found if "://" not in target]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def names(source: Path) -> set[str]:
    """The names that a module defines, and those of its classes behind a dot."""
    defined: set[str] = set()
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                defined.add(name)
            case ast.ClassDef(name=name, body=body):
                functions = (ast.FunctionDef, ast.AsyncFunctionDef)
                methods = [each.name for each in body if isinstance(each, functions)]
                defined |= {name, *(f"{name}.{method}" for method in methods)}
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                defined.add(name)
    return defined


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    broken = []
    for text, target in links(page):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        name = re.fullmatch(r"`([\w.]+)`", text)
        if (
            not file.exists()
            or (anchor and anchor not in anchors(file))
            # A link whose text is a name in code leads to where that is defined.
            or (name and file.suffix == ".py" and name[1] not in names(file))
        ):
            broken.append(f"[{text}]({target})")
    assert broken == []
