"""Sampling with the controls that the Tinker API lacks, from a server that announces them.

The SDK's request has no place for them: it drops the fields of a subclass of ``SamplingParams``. So
these requests are sent here, over the same endpoints (docs/wire.md), for the sampling session that
the SDK opened and keeps alive.
"""

import asyncio
import base64
import contextlib
import functools
import itertools
import json
import ssl
import uuid
from collections.abc import Sequence

import httpx
import tenacity
import tinker
from tinker.proto.response_conv import deserialize_sample_response

from art.endpoint.types import SamplingOptions
from art.errors import ConfigurationError, EngineError, InvalidRequestError
from art.formats.sampling_controls import SamplingControls
from art.tinker.connection import Connection

_PROTOBUF = "application/x-protobuf"
# Copies of a sampling session number their requests from blocks of their own.
_SEQ_IDS_PER_COPY = 1_000_000_000
# The server answers a poll within 30 seconds.
_TIMEOUT_S = 60.0
_CANCEL_TIMEOUT_S = 5.0


class _NotYet(Exception):
    """The same request can be sent again: the answer is not there, or the server is busy."""


# For as long as it takes: Connection.guard ends what waits for a silent server.
_repeat = tenacity.retry(
    retry=tenacity.retry_if_exception_type((httpx.TransportError, _NotYet)),
    wait=tenacity.wait_random_exponential(multiplier=0.05, max=2),
)


class ControlledSampler:
    """Samples with controls from the sampling session of one client of the SDK.

    Args:
        connection: The connection to the client's server.
        client: The SDK's client for one set of weights.
    """

    def __init__(self, connection: Connection, client: tinker.SamplingClient) -> None:
        self._connection = connection
        handle = json.loads(base64.urlsafe_b64decode(client.get_sampler_handle()))
        self._sampling_session_id: str = handle["sampling_session_id"]
        copy = uuid.uuid4().int % (_SEQ_IDS_PER_COPY - 1) + 1
        self._seq_ids = itertools.count(copy * _SEQ_IDS_PER_COPY)
        self._announced: frozenset[str] | None = None

    async def sample(
        self, prompt_token_ids: Sequence[int], options: SamplingOptions
    ) -> tinker.SampleResponse:
        """Sample completions of a prompt. Cancelling the call cancels the request on the server.

        Raises:
            InvalidRequestError: The server does not announce one of the controls, which the error
                names; or it refuses the request.
            ConfigurationError: The server refuses the key.
            EngineError: The server failed.
        """
        body = {
            "sampling_session_id": self._sampling_session_id,
            "seq_id": next(self._seq_ids),
            "num_samples": options.num_samples,
            "prompt": {"chunks": [{"type": "encoded_text", "tokens": [*prompt_token_ids]}]},
            "sampling_params": {
                "max_tokens": options.max_tokens,
                "seed": options.seed,
                "stop": [*options.stop],
                "temperature": options.temperature,
                "top_k": options.top_k,
                "top_p": options.top_p,
                "art_controls": controls_field(options.controls),
            },
            "topk_sample_logprobs": options.top_logprobs,
        }
        async with self._http() as http:
            await self._check_announced(http, options.controls)
            answer = await _send(http, "POST", "asample", body)
            target = {"request_id": answer.json()["request_id"]}
            try:
                result = await _send(http, "POST", "retrieve_future", target)
            except asyncio.CancelledError:
                with contextlib.suppress(httpx.HTTPError):
                    await http.post("cancel_future", json=target, timeout=_CANCEL_TIMEOUT_S)
                raise
        return _sample_response(result)

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"{self._connection.url}/api/v1/",
            headers={"X-API-Key": self._connection.api_key, "Accept": _PROTOBUF},
            timeout=_TIMEOUT_S,
            verify=_ssl_context(),
        )

    async def _check_announced(self, http: httpx.AsyncClient, controls: SamplingControls) -> None:
        if self._announced is None:
            answer = await _send(http, "GET", "get_server_capabilities", None)
            self._announced = frozenset(answer.json().get("art_sampling_controls", ()))
        missing = [name for name in controls.changed() if name not in self._announced]
        if missing:
            raise InvalidRequestError(
                f"the Tinker server at {self._connection.url} cannot honour {', '.join(missing)}: "
                "leave it out, or sample from `art serve`, which can"
            )


def controls_field(controls: SamplingControls) -> dict[str, object]:
    """Make the wire's ``art_controls`` of what is not neutral."""
    fields: dict[str, object] = {name: getattr(controls, name) for name in controls.changed()}
    if controls.logit_bias:
        fields["logit_bias"] = {str(token): bias for token, bias in controls.logit_bias}
    return fields


@_repeat
async def _send(
    http: httpx.AsyncClient, method: str, path: str, body: dict[str, object] | None
) -> httpx.Response:
    """Send a request until it is answered; one that is repeated is not executed twice."""
    answer = await http.request(method, path, json=body)
    if answer.status_code in (408, 409, 429) or answer.status_code >= 500:
        raise _NotYet
    if answer.status_code in (401, 403):
        raise ConfigurationError(f"sampling: the Tinker server refused the API key: {answer.text}")
    if answer.is_error:
        raise InvalidRequestError(f"sampling: the Tinker server refused: {_error_text(answer)}")
    return answer


def _sample_response(answer: httpx.Response) -> tinker.SampleResponse:
    if answer.headers.get("content-type", "").startswith(_PROTOBUF):
        return deserialize_sample_response(answer.content)
    if answer.json().get("category") == "user":
        raise InvalidRequestError(f"sampling: the Tinker server refused: {_error_text(answer)}")
    raise EngineError(f"sampling: the Tinker server failed: {_error_text(answer)}")


def _error_text(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.text:.2000}"


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    # Its certificates take longer to read than a request takes.
    return httpx.create_ssl_context()
