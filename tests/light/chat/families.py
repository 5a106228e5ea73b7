"""Families of models: their published chat templates, each with a small tokenizer made here.

``data/<family>/chat_template.jinja`` is a published template, ``source.toml`` beside it says where
it comes from, under which licence, and which tokens its tokenizer adds. A template of another
name, such as ``tool_use.jinja``, is one that the tokenizer has by that name.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from art.chat.template import ChatTemplate
from tests.light.chat.native import NATIVE

DATA = Path(__file__).parent / "data"
FAMILIES = sorted(path.name for path in DATA.iterdir() if path.is_dir())


@dataclass(frozen=True)
class Family:
    """A published template with its tokenizer."""

    name: str
    source: dict[str, Any]
    tokenizer: PreTrainedTokenizerFast

    @property
    def template(self) -> ChatTemplate:
        return chat_template(self.name)

    def ids(self, *tokens: str) -> list[int]:
        """The ids of added tokens."""
        vocabulary = self.tokenizer.get_added_vocab()
        return [vocabulary[token] for token in tokens]

    def text(self, token_ids: list[int]) -> str:
        """The text of tokens, special ones included."""
        text = self.tokenizer.decode(token_ids, skip_special_tokens=False)
        assert isinstance(text, str)
        return text

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))


@cache
def family(name: str) -> Family:
    """A family by the name of its folder in ``data``."""
    source = tomllib.loads((DATA / name / "source.toml").read_text("utf-8"))
    tokenizer = _tokenizer(source)
    named = {path.stem: path.read_text("utf-8") for path in (DATA / name).glob("*.jinja")}
    plain = named.pop("chat_template")
    tokenizer.chat_template = {"default": plain, **named} if named else plain
    return Family(name, source, tokenizer)


@cache
def chat_template(name: str) -> ChatTemplate:
    """The family's chat template, with the variables that let the model think."""
    return ChatTemplate(family(name).tokenizer, template_kwargs=NATIVE[name].variables)


def _tokenizer(source: dict[str, Any]) -> PreTrainedTokenizerFast:
    # A few merges, so that a text has more encodings than its canonical one.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("a", "n"), ("an", "d"), ("o", "r"), ("Ċ", "Ċ")]
    pieces = [*alphabet, *("".join(merge) for merge in merges)]
    raw = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    # As in most published tokenizers, the turn markers are special but have no name.
    added = [(token, True) for token in source["special_tokens"]]
    added += [(token, False) for token in source["plain_tokens"]]
    for token, special in added:
        raw.add_tokens([AddedToken(token, special=special, normalized=False)])
    named = {"eos_token": source["eos_token"]}
    if source["bos_token"]:
        named["bos_token"] = source["bos_token"]
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # of transformers
        tokenizer_object=raw, **named
    )
