"""The table of ``docs/chat-families.md``, measured on the published templates.

``python -m tests.light.chat.family_table`` prints it.
"""

from art.chat.tool_calls.protocol import ParsedText
from tests.light.chat.episodes import Episode, Scripted, arguments_of
from tests.light.chat.families import FAMILIES, family
from tests.light.chat.native import NATIVE, Arguments

HEADER = "| family | template of | turn end | tools in | tools out | reasoning | history |"
_CALLS: list[Arguments] = [{"query": "fern", "limit": 3, "exact": True}]
_THOUGHT = "Let me think."


def family_table() -> list[str]:
    """The lines of the table."""
    return [HEADER, "|---|---|---|---|---|---|---|", *(_row(name) for name in FAMILIES)]


def _row(name: str) -> str:
    each = family(name)
    ends = each.template.end_of_turn_ids
    right_ends = [each.ids(token)[0] in ends for token in NATIVE[name].ends]
    cells = [
        f"`{name}`",
        each.source["model"].partition(";")[0],
        _degree(right_ends),
        "yes" if each.template.renders_tools else "no",
        _tools_out(name),
        _reasoning(name),
        _history(name),
    ]
    return f"| {' | '.join(cells)} |"


def _degree(results: list[bool]) -> str:
    if all(results):
        return "yes"
    return "partial" if any(results) else "no"


def _sampled(name: str, calls: list[Arguments]) -> tuple[Episode, ParsedText]:
    native = NATIVE[name]
    episode = Episode(family(name))
    episode.say("Find ferns.")
    content = "Looking." if native.text_beside_calls or not calls else ""
    thought = _THOUGHT if native.thinking else None
    return episode, episode.sample(Scripted(content, thought, calls))


def _tools_out(name: str) -> str:
    if not family(name).template.renders_tools:
        return "no"
    return "yes" if arguments_of(_sampled(name, _CALLS)[1]) == _CALLS else "no"


def _reasoning(name: str) -> str:
    """``yes``: it comes out, and the template shows it again while the turn's tools are used."""
    if NATIVE[name].thinking is None:
        return "none"
    episode, parsed = _sampled(name, _CALLS if NATIVE[name].calls else [])
    if parsed.reasoning != _THOUGHT:
        return "no"
    if not parsed.tool_calls:
        episode.say("And mosses?")
    return "yes" if _THOUGHT in family(name).text(episode.prompt()) else "partial"


def _history(name: str) -> str:
    """``partial``: turns join after a tool's result, but not after the user's next message."""
    native = NATIVE[name]
    episode, _ = _sampled(name, _CALLS if native.calls else [])
    thought = _THOUGHT if native.thinking else None
    if episode.tools:
        episode.sample(Scripted("There are seven.", thought))
    episode.say("And mosses?")
    episode.sample(Scripted("None.", thought))
    return _degree([episode.joins(turn) for turn in range(1, len(episode.choices))])


if __name__ == "__main__":
    print("\n".join(family_table()))
