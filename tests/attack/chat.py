"""Hostile requests to the OpenAI-compatible endpoint."""

from dataclasses import replace
from random import Random

from tests.attack.fuzz import Attacker
from tests.attack.http_client import Client, Request
from tests.attack.mutations import Json, broken, junk, mutated, text_of

_ROLES = ("system", "developer", "user", "assistant", "tool", "function", "User", "", "\ud800")
_TEXTS = (
    *(
        "hi",
        "",
        "é",
        "\ud800",
        "a\udc00b",
        "\x00",
        "<|im_end|>",
        "<|im_start|>system\n",
        "{{ 7*7 }}",
    ),
    *(
        "{% for i in range(10**9) %}x{% endfor %}",
        "<tool_call>",
        "</tool_call>",
        "w " * 400,
        "\u2028",
    ),
)
_HEADERS: tuple[dict[str, str], ...] = (
    {"Content-Type": "text/plain"},
    {"Content-Type": "application/x-www-form-urlencoded"},
    {"Content-Type": ""},
    {"Authorization": "Bearer x"},
    {"Authorization": "Bearer \xe9"},
    {"Authorization": "Basic eDp5"},
    {"Authorization": ""},
    {"Host": "evil.example"},
    {"Host": "[::1"},
    {"Origin": "http://["},
    {"Origin": "https://evil.example"},
)
_PATHS = (
    ("GET", "/v1/models"),
    ("GET", "/v1/models/agent"),
    ("GET", "/v1/models/agent@0"),
    ("GET", "/v1/models/%ED%A0%80"),
    ("GET", "/v1/models/" + "a" * 5_000),
    ("GET", "/v1/models/../../x"),
    ("GET", "/v1/models/"),
    ("GET", "/health"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("POST", "/v1/completions"),
    ("GET", "/v1/chat/completions"),
    ("DELETE", "/v1/models/agent"),
    ("POST", "/v1/chat/completions/"),
    ("OPTIONS", "/v1/chat/completions"),
)


class ChatAttacker(Attacker):
    """Makes hostile requests to the endpoint.

    Args:
        client: The connection.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def request(self, rng: Random) -> Request:
        """Make a request, mostly a chat completion."""
        if rng.random() < 0.03:
            method, path = rng.choice(_PATHS)
            return Request("other", method, path)
        body = _conversation(rng)
        how = rng.random()
        if how < 0.15:
            data = text_of(body).encode()
        elif how < 0.9:
            data = text_of(mutated(body, rng)).encode()
        else:
            data = broken(text_of(body).encode(), rng)
        request = Request(
            "POST chat/completions",
            "POST",
            "/v1/chat/completions",
            {"Content-Type": "application/json"},
            data,
            chunked=rng.random() < 0.05,
        )
        if rng.random() < 0.05:
            request = replace(request, headers={**request.headers, **rng.choice(_HEADERS)})
        if rng.random() < 0.02 and data:
            request = replace(request, cut=rng.randint(1, len(data)), patience=2.0)
        return request


def _conversation(rng: Random) -> dict[str, Json]:
    body: dict[str, Json] = {
        "model": "agent",
        "messages": [_message(rng) for _ in range(rng.randint(1, 4))],
    }
    optional: dict[str, Json] = {
        "n": rng.choice((1, 2, 128, 129, 0)),
        "temperature": rng.choice((0, 0.5, 1, 2, -1, 1e300)),
        "top_p": rng.choice((1, 0.5, 0, 1.5, 1e-300)),
        "top_k": rng.choice((-1, 0, 1, 2**40)),
        "max_tokens": rng.choice((1, 8, 10**6, 0, 2**70)),
        "max_completion_tokens": rng.choice((1, 8, None)),
        "stop": rng.choice((None, "x", ["a", "b"], [""], "\ud800", ["x"] * 17, [["x"]])),
        "seed": rng.choice((0, 1, -1, 2**63, 2**64, -(2**80))),
        "logprobs": rng.choice((True, False)),
        "top_logprobs": rng.choice((0, 5, 21)),
        "tools": [_tool(rng) for _ in range(rng.randint(0, 3))],
        "tool_choice": rng.choice(("auto", "none", "required", {"type": "function"})),
        "parallel_tool_calls": rng.choice((True, False)),
        "stream": rng.choice((True, True, False)),
        "stream_options": {"include_usage": True},
        "chat_template_kwargs": rng.choice(
            (
                {"enable_thinking": False},
                {"messages": []},
                {"tools": None},
                {"chat_template": "x"},
                {"tokenize": True},
                {"return_dict": True},
                {"conversation": []},
                {"\ud800": "\ud800"},
            )
        ),
        "frequency_penalty": rng.choice((0, 1)),
        "user": rng.choice(_TEXTS),
        "metadata": {"a": rng.choice(_TEXTS)},
    }
    for name in rng.sample(sorted(optional), k=rng.choice((0, 0, 1, 1, 2, 4))):
        body[name] = optional[name]
    return body


def _message(rng: Random) -> Json:
    role = rng.choice((*("user", "assistant", "tool", "system") * 8, *_ROLES))
    message: dict[str, Json] = {"role": role, "content": _content(rng)}
    if role == "assistant" and rng.random() < 0.6:
        message["tool_calls"] = rng.choice(([_call(rng)], [_call(rng)] * 3, [], _call(rng), None))
    if role == "tool":
        message["tool_call_id"] = rng.choice(("call_1", None, 5))
    if rng.random() < 0.1:
        message[rng.choice(("name", "refusal", "audio", "x", "\ud800"))] = junk(rng)
    return message


def _content(rng: Random) -> Json:
    if rng.random() < 0.85:
        return rng.choice(("hi", "hello", *_TEXTS))
    parts: tuple[Json, ...] = (
        {"type": "text", "text": rng.choice(_TEXTS)},
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        {"type": "text"},
        "x",
        None,
    )
    return rng.choice((None, [rng.choice(parts)], [parts[0], parts[0]], [], junk(rng)))


def _call(rng: Random) -> Json:
    arguments = ('{"q": 1}', "{}", "", "not json", "[1]", "null", '"x"', "[" * 3000, '{"a": NaN}')
    function: Json = {"name": rng.choice(("search", *_TEXTS)), "arguments": rng.choice(arguments)}
    if rng.random() < 0.2:
        function = rng.choice(
            ({"name": "x", "arguments": junk(rng)}, {"name": "x"}, {}, None, junk(rng))
        )
    return {"id": "call_1", "type": "function", "function": function}


def _tool(rng: Random) -> Json:
    parameters: Json = {"type": "object", "properties": {"q": {"type": "string"}}}
    if rng.random() < 0.4:
        parameters = mutated(parameters, rng)
    function: dict[str, Json] = {
        "name": rng.choice(("search", "search", *_TEXTS)),
        "description": rng.choice(_TEXTS),
        "parameters": parameters,
    }
    return {"type": rng.choice(("function", "function", "x")), "function": function}
