"""Hostile requests to every route of the engine: bodies, paths, queries, heads and framing."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from urllib.parse import quote

from tests.attack.fuzz import Attacker
from tests.attack.http_client import Answer, Client, Request
from tests.attack.mutations import Json, broken, mutated, text_of
from tests.attack.world import SDK_VERSION, World

# A client hangs up on a long poll, so that an input takes little time.
_POLL_PATIENCE_S = 0.5
_POLLS = ("POST retrieve_future", "POST retrieve_futures")

_Make = Callable[[World, Random], tuple[str, Json]]


def _checkpoint(world: World) -> str:
    return f"training_runs/{world.model_id}/checkpoints/weights/a"


def _sequenced(world: World, rng: Random, **fields: Json) -> Mapping[str, Json]:
    return {"model_id": world.model_id, "seq_id": world.next_seq(rng), **fields}


def _adam() -> Json:
    return {
        "type": "adam",
        "learning_rate": 0.01,
        "beta1": 0.9,
        "beta2": 0.95,
        "eps": 1e-8,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
    }


def _model(world: World, rng: Random) -> Json:
    return {
        "session_id": world.session_id,
        "model_seq_id": rng.randint(0, 5),
        "base_model": world.base_model,
        "user_metadata": {"note": "é", "n": 1},
        "lora_config": {
            "rank": 2,
            "seed": 3,
            "train_unembed": False,
            "train_mlp": True,
            "train_attn": True,
        },
        "optimizer_config": {"type": "adamw"},
    }


def _load(world: World, rng: Random) -> Json:
    common: dict[str, Json] = {"path": world.checkpoints[0], "optimizer": rng.random() < 0.5}
    if rng.random() < 0.5:
        return {**common, **_sequenced(world, rng)}
    return {**common, "session_id": world.session_id, "model_seq_id": rng.randint(6, 9)}


def _sampling(world: World, rng: Random) -> Json:
    return {
        "session_id": world.session_id,
        "sampling_session_seq_id": rng.randint(1, 9),
        "base_model": world.base_model,
        "model_path": rng.choice(world.checkpoints),
    }


def _sample(world: World, rng: Random) -> Json:
    return {
        "sampling_session_id": world.sampling_id,
        "seq_id": rng.choice((rng.randint(0, 10**6), rng.randint(0, 2**62))),
        "num_samples": rng.randint(1, 3),
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": [1, 2, 3]}]},
        "sampling_params": {
            "max_tokens": 2,
            "seed": 1,
            "stop": rng.choice((None, ["\n"], [3], "x")),
            "temperature": 0.7,
            "top_k": 5,
            "top_p": 0.9,
            "art_controls": {
                "min_p": 0.1,
                "logit_bias": {"1": -100, "2": 5.5},
                "frequency_penalty": 0.5,
                "presence_penalty": -0.5,
                "repetition_penalty": 1.1,
                "grammar": 'start: "a" /[0-9]+/',
            },
        },
        "prompt_logprobs": True,
        "topk_prompt_logprobs": 0,
        "prompt_logprobs_last_n": 1,
        "topk_sample_logprobs": 2,
        "prompt_alt_tokens_k": 1,
        "target_prompt_logprobs": {
            "data": [1, -1, 2],
            "dtype": "int64",
            "shape": [2, 9],
            "sparse_crow_indices": [0, 1, 3],
            "sparse_col_indices": [4, 0, 8],
        },
    }


def _session(world: World, rng: Random) -> Json:
    return {
        "sdk_version": SDK_VERSION,
        "tags": ["a", "b"],
        "user_metadata": {"note": "é", "list": [1, {"a": None}]},
        "display_name": "name",
        "project_id": None,
    }


def _futures(world: World, rng: Random) -> Json:
    return {
        "target": {"sampling_session_id": world.sampling_id, "cloned_sampler_id": 0},
        "prev_cursor": 0,
        "timeout": 0.01,
        "retrieved_request_ids": ["x"],
    }


def _search(world: World, rng: Random) -> Json:
    return {
        "session_id": world.session_id,
        "project_ids": ["p", "default"],
        "user_metadata": {"note": "é"},
        "display_name": "a b",
        "owner": {"type": "user", "owner_urns": ["local"]},
        "statuses": [{"type": "client_finished", "reasons": ["success"]}, {"type": "active"}],
        "limit": rng.randint(1, 9),
        "cursor": {"last_created_at": "2026-01-01T00:00:00Z", "last_session_id": "x"},
    }


_FILES = ("archive.tar", "adapter_model.safetensors", "metadata.json")

ROUTES: dict[str, _Make] = {
    "GET healthz": lambda world, rng: ("healthz", None),
    "POST client/config": lambda world, rng: ("client/config", {"sdk_version": SDK_VERSION}),
    "POST client/dynamic_config": lambda world, rng: (
        "client/dynamic_config",
        {"sdk_version": SDK_VERSION},
    ),
    "GET get_server_capabilities": lambda world, rng: ("get_server_capabilities", None),
    "POST create_session": lambda world, rng: ("create_session", _session(world, rng)),
    "POST session_heartbeat": lambda world, rng: (
        "session_heartbeat",
        {"session_id": world.session_id},
    ),
    "GET sessions": lambda world, rng: ("sessions?limit=5&offset=0", None),
    "GET sessions/{session_id}": lambda world, rng: (
        f"sessions/{rng.choice(world.sessions)}",
        None,
    ),
    "POST sessions/{session_id}/finish": lambda world, rng: (
        "sessions/none/finish",
        {"reason": {"type": "success"}, "detail": "done"},
    ),
    "PUT sessions/{session_id}/project": lambda world, rng: (
        f"sessions/{world.session_id}/project",
        {"project_id": "p"},
    ),
    "POST sessions/search": lambda world, rng: ("sessions/search", _search(world, rng)),
    "POST create_model": lambda world, rng: ("create_model", _model(world, rng)),
    "POST get_info": lambda world, rng: ("get_info", {"model_id": world.model_id}),
    "POST forward_backward": lambda world, rng: ("forward_backward", {"model_id": "x"}),
    "POST optim_step": lambda world, rng: (
        "optim_step",
        _sequenced(world, rng, adam_params=_adam()),
    ),
    "POST save_weights": lambda world, rng: (
        "save_weights",
        _sequenced(
            world,
            rng,
            path=f"n{rng.randint(0, 3)}",
            overwrite=True,
            ttl_seconds=3600,
            user_metadata={"note": "é"},
        ),
    ),
    "POST save_weights_for_sampler": lambda world, rng: (
        "save_weights_for_sampler",
        _sequenced(world, rng, path=f"n{rng.randint(0, 3)}", kind="snapshot")
        if rng.random() < 0.5
        else _sequenced(
            world,
            rng,
            sampling_session_seq_id=rng.randint(10, 19),
            kind=rng.choice(("snapshot", "inflight")),
        ),
    ),
    "POST save_weights_external": lambda world, rng: (
        "save_weights_external",
        _sequenced(world, rng, path=f"n{rng.randint(0, 3)}", ttl_seconds=3600),
    ),
    "POST load_weights": lambda world, rng: ("load_weights", _load(world, rng)),
    "POST create_sampling_session": lambda world, rng: (
        "create_sampling_session",
        _sampling(world, rng),
    ),
    "POST join_sampling_session": lambda world, rng: (
        "join_sampling_session",
        {"sampling_session_id": world.sampling_id},
    ),
    "GET samplers/{sampler_id}": lambda world, rng: (f"samplers/{world.sampling_id}", None),
    "POST asample": lambda world, rng: ("asample", _sample(world, rng)),
    "POST retrieve_future": lambda world, rng: (
        "retrieve_future",
        {"request_id": rng.choice(world.results), "allow_metadata_only": False},
    ),
    "POST retrieve_futures": lambda world, rng: ("retrieve_futures", _futures(world, rng)),
    "POST cancel_future": lambda world, rng: (
        "cancel_future",
        {"request_id": rng.choice(world.results)},
    ),
    "GET training_runs": lambda world, rng: ("training_runs?limit=3&offset=0", None),
    "GET training_runs/{run_id}": lambda world, rng: (f"training_runs/{world.model_id}", None),
    "GET training_runs/{run_id}/checkpoints": lambda world, rng: (
        f"training_runs/{world.model_id}/checkpoints",
        None,
    ),
    "DELETE training_runs/{run_id}/checkpoints/{kind}/{name}": lambda world, rng: (
        f"training_runs/{world.model_id}/checkpoints/weights/n{rng.randint(0, 3)}",
        None,
    ),
    "PUT training_runs/{run_id}/checkpoints/{kind}/{name}/ttl": lambda world, rng: (
        f"{_checkpoint(world)}/ttl",
        {"ttl_seconds": rng.choice((None, 3600))},
    ),
    "POST training_runs/{run_id}/checkpoints/{kind}/{name}/publish": lambda world, rng: (
        f"{_checkpoint(world)}/publish",
        None,
    ),
    "DELETE training_runs/{run_id}/checkpoints/{kind}/{name}/publish": lambda world, rng: (
        f"{_checkpoint(world)}/publish",
        None,
    ),
    "GET training_runs/{run_id}/checkpoints/{kind}/{name}/external_weights_urls": (
        lambda world, rng: (f"{_checkpoint(world)}/external_weights_urls", None)
    ),
    "GET training_runs/{run_id}/checkpoints/{kind}/{name}/archive": lambda world, rng: (
        f"{_checkpoint(world)}/archive",
        None,
    ),
    "GET downloads/{run_id}/{kind}/{name}/{file}": lambda world, rng: (
        f"downloads/{world.model_id}/weights/a/{rng.choice(_FILES)}",
        None,
    ),
    "POST copy_weights": lambda world, rng: (
        "copy_weights",
        {
            "source_path": rng.choice(world.checkpoints),
            "session_id": world.session_id,
            "model_seq_id": rng.randint(10, 12),
            "ttl_seconds": 3600,
        },
    ),
    "GET checkpoints": lambda world, rng: ("checkpoints?limit=3&offset=0", None),
    "POST weights_info": lambda world, rng: (
        "weights_info",
        {"tinker_path": world.checkpoints[0]},
    ),
    "POST telemetry": lambda world, rng: (
        "telemetry",
        {"session_id": world.session_id, "events": [{"event": "x"}]},
    ),
}
"""Every route, with a valid path and body."""

_SEGMENTS = (
    *("", ".", "..", "%2e%2e", "%2F", "..%2F..%2Fx", "%00", "%ff", "%ED%A0%80", "a" * 3000, "%"),
    *("é".encode().hex(), "x:train:0", "x:train:99999999999", "weights", "~", "'", "%0d%0a", "%25"),
)
_QUERIES = (
    *("limit=-1", "limit=0", "limit=x", "offset=-5", "limit=99999999999999999999", "limit=1e3"),
    *("offset=1.5", "limit=", "limit=1&limit=2", "x=y", "limit=%FF", "offset=%ED%A0%80", "=", "&&"),
    "&".join(f"k{index}=1" for index in range(500)),
)
_HEADS = (
    b"GET\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET /api/v1/healthz HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /api/v1/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"GET /api/v1/healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /api/v1/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
    b"POST /api/v1/telemetry HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /api/v1/telemetry HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5, 6\r\n\r\nabcdef",
    b"POST /api/v1/telemetry HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    b"\r\nzz\r\n",
    b"POST /api/v1/telemetry HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /api/v1/\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [::1\r\nOrigin: http://[\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://[\r\n\r\n",
    b"GET /api/v1/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)
_HEADERS: tuple[dict[str, str], ...] = (
    {"Content-Type": "text/plain"},
    {"Content-Type": "application/x-protobuf"},
    {"Content-Type": "multipart/form-data; boundary=x"},
    {"Content-Type": "x" * 5_000},
    {"Content-Encoding": "gzip"},
    {"Content-Encoding": "zstd"},
    {"X-API-Key": ""},
    {"X-API-Key": "tml-\xff"},
    {"X-Stainless-Package-Version": "9" * 300},
    {"X-Stainless-Package-Version": "0.38.0rc1"},
    {"X-Stainless-Package-Version": "\xe9"},
    {"Host": "evil.example"},
    {"Host": "[::1"},
    {"Host": "127.0.0.1:99999999"},
    {"Host": ""},
    {"Origin": "https://evil.example"},
    {"Origin": "http://["},
    {"Origin": "null"},
    {"Expect": "100-continue"},
    {"Range": "bytes=0-1"},
    {"Cookie": "a=b"},
)
_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "X")


class JsonAttacker(Attacker):
    """Makes hostile requests to the routes of JSON.

    Args:
        client: The connection.
        base_model: The engine's base model.
    """

    def __init__(self, client: Client, base_model: str) -> None:
        self._world = World(client, base_model)

    def note(self, request: Request, answer: Answer) -> None:
        self._world.note(request, answer)

    def renew(self) -> None:
        self._world.renew()

    def request(self, rng: Random) -> Request:
        """Make a request to one of the routes."""
        if rng.random() < 0.01:
            return Request("no HTTP", "GET", "/", body=_head(rng), raw=True, patience=2.0)
        route = rng.choice(list(ROUTES))
        method = route.partition(" ")[0]
        path, body = ROUTES[route](self._world, rng)
        request = Request(
            route,
            method,
            f"/api/v1/{path}",
            {"Content-Type": "application/json"},
            b"" if body is None else _body(body, rng),
            patience=_POLL_PATIENCE_S if route in _POLLS else None,
        )
        return _misframed(request, rng)


def _body(body: Json, rng: Random) -> bytes:
    how = rng.random()
    if how < 0.12:
        return text_of(body).encode()
    if how < 0.85:
        return text_of(mutated(body, rng)).encode()
    return broken(text_of(body).encode(), rng)


def _misframed(request: Request, rng: Random) -> Request:
    how = rng.random()
    if how < 0.10:
        request = replace(request, path=_path(request.path, rng))
    elif how < 0.15:
        request = replace(request, headers={**request.headers, **rng.choice(_HEADERS)})
    elif how < 0.17:
        method = rng.choice([name for name in _METHODS if name != "HEAD"])
        request = replace(request, method=method)
    if rng.random() < 0.05:
        request = replace(request, chunked=True)
    if rng.random() < 0.02 and request.body:
        request = replace(request, cut=rng.randint(1, len(request.body)), patience=2.0)
    return request


def _path(path: str, rng: Random) -> str:
    bare, _, query = path.partition("?")
    if query or rng.random() < 0.2:
        return f"{bare}?{rng.choice(_QUERIES)}"
    segments = bare.split("/")
    index = rng.randrange(3, len(segments))
    match rng.randrange(4):
        case 0:
            segments.insert(index, rng.choice(_SEGMENTS))
        case 1:
            segments[index] = quote(segments[index].upper() + rng.choice("\x00é/?#"), safe="")
        case 2:
            segments.append("")
        case _:
            segments[index] = rng.choice(_SEGMENTS)
    return "/".join(segments)


def _head(rng: Random) -> bytes:
    head = rng.choice(_HEADS)
    return broken(head, rng) if rng.random() < 0.3 else head
