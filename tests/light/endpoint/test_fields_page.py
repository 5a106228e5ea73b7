"""docs/endpoint.md against the code: every field of every dialect, with what becomes of it.

After a change of fields, ``python -m tests.light.endpoint.test_fields_page`` writes the table.
"""

from pathlib import Path

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsBase as CompletionParams
from openai.types.responses.response_create_params import ResponseCreateParamsBase as ResponseParams

from art.endpoint.dialects.anthropic_request import MessagesRequest
from art.endpoint.dialects.openai_chat_request import ChatCompletionRequest
from art.endpoint.dialects.openai_completions import CompletionRequest
from art.endpoint.dialects.openai_responses_request import ResponsesRequest
from art.endpoint.dialects.vllm_generate import GenerateRequest, VllmSamplingParams
from art.endpoint.fields import RequestBody
from tests.processes import ROOT

PAGE = ROOT / "docs" / "endpoint.md"
BODIES: dict[str, type[RequestBody]] = {
    "chat completions": ChatCompletionRequest,
    "completions": CompletionRequest,
    "responses": ResponsesRequest,
    "messages": MessagesRequest,
    "generate": GenerateRequest,
    "its `sampling_params`": VllmSamplingParams,
}
_BEGIN, _END = "<!-- fields -->\n", "<!-- /fields -->"


def known_fields(body: type[RequestBody]) -> set[str]:
    return {*body.honoured_fields(), *body.NEUTRAL, *body.NO_EFFECT}


def state(body: type[RequestBody], field: str) -> str:
    if field in body.honoured_fields():
        return "honoured"
    if field in body.NO_EFFECT:
        return "no effect"
    if field not in body.NEUTRAL:
        return ""
    values = [f"`{value!r}`" for value in body.NEUTRAL[field]]
    return f"only {' or '.join(values)}" if values else "refused"


def table() -> str:
    fields = sorted(set().union(*map(known_fields, BODIES.values())))
    rows = [["field", *BODIES], ["---"] * (1 + len(BODIES))]
    rows += [[f"`{field}`", *(state(body, field) for body in BODIES.values())] for field in fields]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def test_the_page_has_every_field_with_what_becomes_of_it() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition(_BEGIN)[2].partition(_END)[0] == table()


@pytest.mark.parametrize(
    ("body", "params"),
    [
        (ChatCompletionRequest, ChatParams),
        (CompletionRequest, CompletionParams),
        (ResponsesRequest, ResponseParams),
    ],
)
def test_every_field_of_the_official_client_is_known(
    body: type[RequestBody], params: type[object]
) -> None:
    assert set(params.__annotations__) - known_fields(body) == set()


def test_every_field_of_anthropics_client_is_known() -> None:
    params = pytest.importorskip("anthropic.types.message_create_params")
    fields = set(params.MessageCreateParamsBase.__annotations__)
    assert fields - known_fields(MessagesRequest) == set()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_field_has_one_state(body: type[RequestBody]) -> None:
    states = [body.honoured_fields(), body.NEUTRAL.keys(), body.NO_EFFECT]
    assert sum(map(len, states)) == len(known_fields(body))


def _write(page: Path) -> None:
    before, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}{table()}{_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    _write(PAGE)
