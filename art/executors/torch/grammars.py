"""Grammars that a sample follows, compiled by llguidance for the tokens of one model.

Shapes: V vocabulary.
"""

import json
from collections import OrderedDict
from collections.abc import Collection
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from art._lazy import explain_missing
from art.errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    import llguidance

BoolArray = npt.NDArray[np.bool_]

# Compiled grammars that are kept: an agent sends the same tools with every turn.
_MAX_KEPT = 32
# The compiler's own message may quote the whole grammar.
_MAX_MESSAGE_CHARACTERS = 1000


class GrammarCompiler:
    """Compiles grammars for one tokenizer. What it needs is loaded with the first grammar.

    Args:
        tokenizer: A fast tokenizer of ``transformers``.
        vocab_size: The model's; it may be larger than the tokenizer's.
    """

    def __init__(self, tokenizer: Any, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._tokens: llguidance.LLTokenizer | None = None
        self._kept: OrderedDict[str, llguidance.LLMatcher] = OrderedDict()

    def compile(self, grammar: str, stop_token_ids: Collection[int]) -> "GrammarState":
        """Compile a grammar, or take it from those that were compiled lately.

        Args:
            grammar: In the Lark dialect of llguidance.
            stop_token_ids: Tokens that end a sample, allowed where the grammar may end.

        Returns:
            Its state before the first token.

        Raises:
            InvalidRequestError: The grammar cannot be compiled; holds the compiler's message.
            ConfigurationError: The model has no fast tokenizer.
            MissingExtraError: llguidance is not installed.
        """
        matcher = self._kept.get(grammar)
        if matcher is None:
            matcher = self._compile(grammar)
            self._kept[grammar] = matcher
        self._kept.move_to_end(grammar)
        if len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
        stops = frozenset(token for token in stop_token_ids if 0 <= token < self._vocab_size)
        # Ids beyond the tokenizer's are padding of the model's, and llguidance's own end.
        num_tokens = min(self._vocab_size, len(self._tokenizer))
        return GrammarState(matcher.deep_copy(), stops, num_tokens, self._vocab_size)

    def _compile(self, grammar: str) -> "llguidance.LLMatcher":
        lib = _load()
        if self._tokens is None:
            self._tokens = _tokens_for_grammars(self._tokenizer)
        matcher = lib.LLMatcher(
            self._tokens,
            # In an envelope, since text that begins with a brace is taken for one.
            json.dumps({"grammars": [{"lark_grammar": grammar}]}),
            log_level=0,
            limits=_limits(lib),
        )
        _check(matcher, "the grammar cannot be compiled")
        return matcher


class GrammarState:
    """The place of one sample in its grammar.

    A stop token is allowed where the grammar may end, and nowhere else, unless the grammar itself
    ends with it: so a sample that a stop token ends follows the grammar to its end.

    Args:
        matcher: llguidance's state, which this object owns.
        stop_token_ids: The request's, each below ``vocab_size``.
        num_tokens: How many tokens of the vocabulary have a text.
        vocab_size: The model's.
    """

    def __init__(
        self,
        matcher: "llguidance.LLMatcher",
        stop_token_ids: frozenset[int],
        num_tokens: int,
        vocab_size: int,
    ) -> None:
        self._matcher = matcher
        self._stop_token_ids = stop_token_ids
        self._num_tokens, self._vocab_size = num_tokens, vocab_size

    def copy(self) -> "GrammarState":
        """Copy it, for another sample."""
        return GrammarState(
            self._matcher.deep_copy(), self._stop_token_ids, self._num_tokens, self._vocab_size
        )

    @property
    def is_complete(self) -> bool:
        """True where the grammar allows no further token and no stop token is left to sample."""
        return not self._stop_token_ids and self._matcher.is_stopped()

    def allowed(self) -> BoolArray:
        """Compute which tokens may come next: bool ``[V]``, at least one of them True.

        Raises:
            InvalidRequestError: The grammar is too costly, or has come to a dead end.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        _check(self._matcher, "the grammar cannot be followed")
        allowed_V = np.zeros(self._vocab_size, np.bool_)
        allowed_V[: self._num_tokens] = np.unpackbits(
            bits, count=self._num_tokens, bitorder="little"
        )
        may_end = self._matcher.is_accepting()
        for token in self._stop_token_ids:
            allowed_V[token] = may_end or (bool(allowed_V[token]) and self._ends_with(token))
        if not allowed_V.any():
            raise InvalidRequestError(
                "the grammar has come to a dead end: no token of the model continues it"
            )
        return allowed_V

    def note(self, token: int) -> None:
        """Go on by a token that was allowed.

        Raises:
            InvalidRequestError: The grammar is too costly.
        """
        if token not in self._stop_token_ids:
            self._matcher.consume_token(token)
            _check(self._matcher, "the grammar cannot be followed")

    def _ends_with(self, token: int) -> bool:
        ahead = self._matcher.deep_copy()
        return bool(ahead.consume_token(token) and ahead.is_accepting())


class _TextTokenizer:
    """A tokenizer as llguidance asks for one: the bytes of each token, and tokens of text.

    Text is never made into special tokens, so that a string such as ``"<|im_end|>"`` in a JSON
    schema is text, and not the end of the turn.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None
    # llguidance then adds an end of its own behind the vocabulary. What ends a sample is up to
    # the request, and differs between requests.
    eos_token_id = None

    def __init__(
        self, tokens: list[bytes], special_token_ids: list[int], text: "llguidance.LLTokenizer"
    ) -> None:
        self.tokens, self.special_token_ids = tokens, special_token_ids
        self._text = text

    def __call__(self, text: str) -> list[int]:
        return list(self._text.tokenize_str(text))


def _tokens_for_grammars(tokenizer: Any) -> "llguidance.LLTokenizer":
    """Make llguidance's tokenizer; takes a second or more.

    Raises:
        ConfigurationError: The tokenizer is not of the ``tokenizers`` library, or of a kind that
            llguidance cannot read.
    """
    lib = _load()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigurationError(
            f"a grammar needs a fast tokenizer; {type(tokenizer).__name__} of this model is none"
        )
    definition = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    size = len(tokenizer)

    def read() -> "llguidance.LLTokenizer":
        return lib.LLTokenizer(json.dumps(definition), n_vocab=size, eos_token=[0], slices=[])

    try:
        full = read()
        special = [token for token in range(size) if full.is_special_token(token)]
        tokens = [full.decode_bytes([token]) for token in range(size)]
        definition["added_tokens"] = [
            added for added in definition["added_tokens"] if added["id"] not in set(special)
        ]
        return lib.LLTokenizer(_TextTokenizer(tokens, special, read()))
    except ValueError as error:
        raise ConfigurationError(
            f"the tokenizer of this model cannot be used with grammars: {error}"
        ) from error


def _limits(lib: Any) -> Any:
    """Make the bounds of a grammar: about 0.3 s to compile it, and 0.1 s a step at worst."""
    return lib.LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_items_in_row=2_000,
        max_lexer_states=50_000,
        max_grammar_size=200_000,
        verbose_errors=False,
    )


def _check(matcher: "llguidance.LLMatcher", what: str) -> None:
    if matcher.is_error():
        message = matcher.get_error().replace("<non-verbose/>", "").strip()
        raise InvalidRequestError(f"{what}: {message:.{_MAX_MESSAGE_CHARACTERS}}")


def can_compile_grammars() -> bool:
    """Tell whether llguidance is installed, without loading it."""
    return find_spec("llguidance") is not None


def _load() -> Any:
    try:
        return import_module("llguidance")
    except ModuleNotFoundError as error:
        explained = explain_missing(error, "art.executors.torch.grammars")
        if explained is error:
            raise
        raise explained from error
