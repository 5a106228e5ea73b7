"""The check of the words of docstrings."""

from pathlib import Path

import pytest

from tools.prose import WORDS, check_source, main


def said(text: str, path: str = "art/module.py") -> list[tuple[int, str]]:
    return [(fault.line, fault.message) for fault in check_source(Path(path), text)]


@pytest.mark.parametrize("word", ["What", "Who", "Where", "How", "Whether", "When", "Why", "That"])
@pytest.mark.parametrize(
    "source",
    [
        '\n"""{} it is."""\n',
        'x = 1\nclass A:\n    """{} it is."""\n',
        'x = 1\n\nasync def f():\n    """\n    {} it is.\n    """\n',
        'class A:\n    x: int = 1\n    """{} it is."""\n',
    ],
    ids=["module", "class", "function", "attribute"],
)
def test_a_summary_that_begins_as_a_question_is_reported_at_its_line(
    word: str, source: str
) -> None:
    text = source.format(word)
    line = text[: text.index('"""')].count("\n") + 1
    ((at, message),) = said(text)
    assert (at, message) == (
        line,
        f"a summary is a noun phrase or an imperative: it cannot begin with `{word}`",
    )


@pytest.mark.parametrize(
    "summary",
    [
        "The layers of a model.",
        "Read what a file says.",
        "Whatsoever.",
        "``what`` of a message.",
        "A flag: whether it is on.",
    ],
)
def test_a_noun_phrase_or_an_imperative_passes(summary: str) -> None:
    assert said(f'"""{summary}\n\nWhat follows is free.\n"""') == []


@pytest.mark.parametrize(
    ("prose", "word"),
    [
        ("A Floor for torch.", "minimum version"),
        ("Heads are shared\n    out over ranks.", "sharded"),
        ("It is there no more.", "no longer"),
        ("The user's values go before ours.", "takes precedence"),
        ("The gate of the server.", "middleware"),
    ],
)
def test_a_word_of_our_own_is_reported_with_the_fields(prose: str, word: str) -> None:
    ((line, message),) = said(f'"""Summary.\n\n    {prose}\n    """')
    assert line == 3
    assert word in message


@pytest.mark.parametrize(
    "prose", ["``floor`` is a field.", "See :meth:`gate`.", "No more than two.", "Flooring."]
)
def test_code_and_other_words_pass(prose: str) -> None:
    assert said(f'"""{prose}"""') == []


def test_a_word_is_allowed_where_it_is_the_fields_own() -> None:
    text = '"""The gate of an expert."""'
    assert said(text, "art/megatron/weights/experts.py") == []
    assert said(text, "art/engine/app.py")


def test_the_command_prints_places_and_writes_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "art").mkdir()
    (tmp_path / "art" / "new.py").write_text('x = 1\ny = 2\n"""How it is."""\n')
    page = tmp_path / "CONTRIBUTING.md"
    page.write_text("<!-- words:begin -->\n<!-- words:end -->\n")
    assert main(["--write", "--root", str(tmp_path)]) == 0
    assert all(f"| {word.shown} | {word.instead} |" in page.read_text() for word in WORDS)
    capsys.readouterr()
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("art/new.py:3: a summary is a noun phrase")
    (tmp_path / "art" / "new.py").write_text("")
    assert main(["--check", "--root", str(tmp_path)]) == 0
