"""Grammars of the torch sampler: what is sampled follows them, and their faults stay their own."""

import json
import re
from typing import Any

import numpy as np
import pytest

from art.errors import InvalidRequestError
from art.executors.torch.executor import TorchExecutor
from art.executors.torch.grammars import GrammarCompiler, GrammarState
from art.executors.types import EndedRequest, SampleRequest
from art.formats.sampling_controls import SamplingControls
from tests.executors.torch_cases import (
    CROSS_ENTROPY,
    VOCABULARY,
    next_token_datum,
    request,
    result,
    run_to_end,
    sample,
    tokens_of,
)

pytest.importorskip("llguidance")

IM_START, IM_END = 1, 2
ENDLESS = (VOCABULARY,)
PROMPT = list(range(30, 50))
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["get_weather", "<|im_end|>"]},
        "days": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
        "sure": {"type": "boolean"},
    },
    "required": ["name", "days", "sure"],
    "additionalProperties": False,
    # A random model would write blanks without end.
    "x-guidance": {"whitespace_flexible": False},
}
JSON_SCHEMA = f"start: %json {json.dumps(SCHEMA)}"


def following(grammar: str, **params: Any) -> SampleRequest:
    params = {"stop_token_ids": (IM_END,), "max_tokens": 60, **params}
    return request(PROMPT, controls=SamplingControls(grammar=grammar), **params)


def texts(executor: TorchExecutor, sample_request: SampleRequest) -> list[tuple[str, str]]:
    """Each sample's text, its special tokens included, and its stop reason."""
    (found,) = sample(executor, [sample_request])
    decode = executor._language_model.tokenizer.decode
    return [(decode(each.tokens), each.stop_reason) for each in found.sequences]


@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
def test_samples_follow_a_json_schema_to_their_end(
    executor: TorchExecutor, temperature: float
) -> None:
    found = texts(
        executor,
        following(JSON_SCHEMA, temperature=temperature, num_samples=16, seed=1, max_tokens=200),
    )
    ended = [text.removesuffix("<|im_end|>") for text, reason in found if reason == "stop"]
    assert len(ended) >= 8
    if not temperature:
        assert ended == ended[:1] * 16
    for text in ended:
        value = json.loads(text)
        assert value.keys() == {"name", "days", "sure"}
        assert value["name"] in ("get_weather", "<|im_end|>")
        assert all(type(day) is int for day in value["days"])
        assert type(value["sure"]) is bool


def test_the_logprobs_are_those_of_the_unconstrained_policy(
    executor: TorchExecutor, model: str, adapter: str
) -> None:
    each = request(
        PROMPT,
        adapter,
        controls=SamplingControls(grammar=JSON_SCHEMA),
        stop_token_ids=(IM_END,),
        max_tokens=60,
        seed=2,
        num_samples=4,
    )
    (found,) = sample(executor, [each])
    for sequence in found.sequences:
        datum = next_token_datum(np.concatenate([PROMPT, sequence.tokens]))
        trained = executor.forward_backward(model, [datum], CROSS_ENTROPY, backward=False)
        logprobs = trained.outputs[0]["logprobs"][-len(sequence.tokens) :]
        np.testing.assert_allclose(logprobs, sequence.logprobs, atol=1e-5)
        assert sequence.logprobs.sum() < -20  # nothing that this model would have said


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        ('start: "yes" | "no"', r"(yes|no)<\|im_end\|>"),
        ("start: /[0-9]{3,5}/", r"[0-9]{3,5}<\|im_end\|>"),
        # A special token by its name and by its id, and text that only looks like one.
        ('start: <|im_start|> "a"', r"<\|im_start\|>a<\|im_end\|>"),
        ('start: <[1]> "b"', r"<\|im_start\|>b<\|im_end\|>"),
        ('start: "<tool_call>" /[a-z]{2}/ "</tool_call>"', r"<tool_call>[a-z]{2}</tool_call>.*"),
        ('start: "<|im_start|>x"', r"<\|im_start\|>x<\|im_end\|>"),
        # One that ends with the stop token itself.
        ('start: "hm" <|im_end|>', r"hm<\|im_end\|>"),
        # A stop token is text here too: it ends a sample where the grammar may end, only.
        ("start: /[^<]{2,4}/", r"[^<]{2,4}<\|im_end\|>"),
    ],
)
def test_samples_follow_a_grammar_and_end_with_the_stop_token(
    executor: TorchExecutor, grammar: str, pattern: str
) -> None:
    for text, reason in texts(executor, following(grammar, num_samples=6, seed=3)):
        assert re.fullmatch(pattern, text, re.DOTALL)
        assert reason == "stop"


def test_special_tokens_are_tokens_by_name_and_text_in_quotes(executor: TorchExecutor) -> None:
    named, quoted = sample(
        executor, [following('start: <|im_start|> "x"'), following('start: "<|im_start|>x"')]
    )
    assert tokens_of(named)[0][0] == IM_START
    assert IM_START not in tokens_of(quoted)[0]


@pytest.mark.parametrize("stop_token_ids", [(), ENDLESS])
def test_without_a_stop_token_a_sample_ends_with_its_grammar(
    executor: TorchExecutor, stop_token_ids: tuple[int, ...]
) -> None:
    each = following('start: "yes" | "no"', stop_token_ids=stop_token_ids, num_samples=4, seed=1)
    assert {reason for _, reason in texts(executor, each)} == {"stop"}
    assert {text for text, _ in texts(executor, each)} <= {"yes", "no"}


def test_a_text_token_that_stops_does_so_only_where_the_grammar_may_end(
    executor: TorchExecutor,
) -> None:
    (digit,) = executor._language_model.tokenizer.encode("7")
    each = following("start: /[0-9]{4}/", stop_token_ids=(digit,), num_samples=8, seed=1)
    for text, reason in texts(executor, each):
        assert re.fullmatch("[0-689]{3}[0-9]7?", text)
        assert reason == "stop"


def test_a_stop_string_ends_a_sample_within_its_grammar(executor: TorchExecutor) -> None:
    each = following("start: /[a-z]{1,9} [0-9]+/", stop_strings=(" ",), num_samples=4, seed=1)
    for text, reason in texts(executor, each):
        assert re.fullmatch(r"[a-z]+ [0-9]*", text)
        assert reason == "stop"


def test_a_sample_that_is_too_short_for_its_grammar_ends_by_length(
    executor: TorchExecutor,
) -> None:
    each = following(JSON_SCHEMA, max_tokens=3, num_samples=4)
    assert [reason for _, reason in texts(executor, each)] == ["length"] * 4


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("start: nosuch", 'unknown name: "nosuch"'),
        ("start: /(/", "unclosed group"),
        ('start: %json {"type": "strin"}', "Invalid type: strin"),
        ('start: %json {"$ref": "#/nope"}', "Pointer '/nope' does not exist"),
        ("start: <tool_call>", 'unknown special token: "<tool_call>"'),
        ("", "the grammar cannot be compiled"),
        ("start: " + "x" * 5000, "the grammar cannot be compiled"),
        ('{"grammars": [{"json_schema": {}}]}', "the grammar cannot be compiled"),
    ],
)
def test_a_grammar_that_does_not_compile_is_refused_with_the_reason(
    executor: TorchExecutor, grammar: str, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(message)) as caught:
        executor.submit("bad", following(grammar))
    assert len(str(caught.value)) < 1200
    assert executor.step() == []


@pytest.mark.parametrize(
    "grammar",
    [
        # It can begin, and never go on.
        'start: "a" NOTHING "b"\nNOTHING: /[a-z]/ & /[0-9]/',
        # It takes more memory than a step may.
        'start: "a"{100000,}',
    ],
)
def test_a_grammar_that_fails_while_it_is_followed_fails_its_request_alone(
    executor: TorchExecutor, grammar: str
) -> None:
    free = request(PROMPT, max_tokens=6, seed=1, temperature=0.3, stop_token_ids=ENDLESS)
    (alone,) = sample(executor, [free])
    executor.submit("fine", free)
    executor.submit("dead", following(grammar, num_samples=2))
    outcomes = {each.request_id: each.outcome for each in run_to_end(executor)}
    with pytest.raises(InvalidRequestError, match="the grammar cannot be followed: "):
        result(outcomes["dead"])
    assert tokens_of(result(outcomes["fine"])) == tokens_of(alone)


def test_samples_that_join_and_leave_keep_their_own_place(executor: TorchExecutor) -> None:
    wanted = {"a": "start: /a{3,9}/", "b": "start: /b{3,9}/", "c": 'start: "c" /[0-9]{3,9}/'}
    ended: list[EndedRequest] = []
    for number, (name, grammar) in enumerate(wanted.items()):
        executor.submit(name, following(grammar, num_samples=number + 1, seed=number))
        ended += executor.step()
    ended += run_to_end(executor)
    outcomes = {each.request_id: result(each.outcome) for each in ended}
    decode = executor._language_model.tokenizer.decode
    for name, pattern in {"a": "a{3,9}", "b": "b{3,9}", "c": "c[0-9]{3,9}"}.items():
        for tokens in tokens_of(outcomes[name]):
            assert re.fullmatch(pattern + re.escape("<|im_end|>"), decode(tokens))


def test_every_token_that_is_allowed_can_follow(executor: TorchExecutor) -> None:
    # A walk at random: no token of a mask is refused afterwards.
    language_model = executor._language_model
    rng = np.random.default_rng(0)
    state: GrammarState = language_model.grammars.compile("start: %json {}", (IM_END,))
    for _ in range(20):
        walk = state.copy()
        for _ in range(30):
            allowed_V = walk.allowed()
            assert allowed_V.shape == (VOCABULARY,)
            token = int(rng.choice(np.flatnonzero(allowed_V)))
            if token == IM_END:
                break
            walk.note(token)


def test_a_vocabulary_that_is_padded_allows_no_padding(executor: TorchExecutor) -> None:
    compiler = GrammarCompiler(executor._language_model.tokenizer, VOCABULARY + 64)
    allowed = compiler.compile("start: /(.|\\n)*/", (IM_END,)).allowed()
    assert allowed.shape == (VOCABULARY + 64,)
    assert not allowed[VOCABULARY:].any()
    assert allowed[IM_END]
    assert not allowed[IM_START]
