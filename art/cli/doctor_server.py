"""Reachability of the Tinker server that the environment names, checked without the SDK."""

import os
from typing import Literal, NamedTuple

# The SDK's default, where TINKER_BASE_URL is not set.
_HOSTED = "https://tinker.thinkingmachines.dev/services/tinker-prod"
_SECONDS = 5.0
_REFUSED = (401, 403)


class ServerAnswer(NamedTuple):
    """The answer of a server, or why there was none.

    Attributes:
        status: ``"absent"``: none is set up. ``"broken"``: one is, and cannot be used.
        detail: What happened.
        remedy: What to do, or ``""``.
    """

    status: Literal["ok", "absent", "broken"]
    detail: str
    remedy: str = ""


def ask_server() -> ServerAnswer:
    """Ask the server that ``TINKER_BASE_URL`` and ``TINKER_API_KEY`` name what it has.

    Returns:
        Its answer. Without either variable nothing is sent.
    """
    base_url, key = os.environ.get("TINKER_BASE_URL"), os.environ.get("TINKER_API_KEY")
    if not base_url and not key:
        return ServerAnswer(
            "absent",
            "not set up: neither TINKER_API_KEY nor TINKER_BASE_URL is set. The hosted service "
            "needs the key, another server both; art.LocalBackend() needs neither",
        )
    if key and not key.startswith(("tml-", "eyJ")):
        return ServerAnswer(
            "broken",
            "TINKER_API_KEY is not a Tinker key: the SDK takes those that start with tml-",
            "export TINKER_API_KEY=tml-…",
        )
    return _ask(base_url or _HOSTED, key)


def _ask(base_url: str, key: str | None) -> ServerAnswer:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from art._internal.proxies import bypass_proxies

    if not base_url.startswith(("http://", "https://")):
        return ServerAnswer("broken", f"TINKER_BASE_URL={base_url!r} is not an http(s) address")
    bypass_proxies(base_url)
    url = f"{base_url.rstrip('/')}/api/v1/get_server_capabilities"
    try:
        request = Request(url, headers={"X-API-Key": key} if key else {})
        with urlopen(request, timeout=_SECONDS) as response:
            return _of_body(base_url, response.read())
    except HTTPError as error:
        return _of_status(base_url, error.code, key)
    except (OSError, HTTPException, ValueError) as error:
        # URLError is an OSError that wraps what happened.
        reason = getattr(error, "reason", None) or error
        return ServerAnswer(
            "broken",
            f"{base_url} cannot be reached: {reason}",
            "check TINKER_BASE_URL, and that the server runs (art serve)",
        )


def _of_status(base_url: str, status: int, key: str | None) -> ServerAnswer:
    if status not in _REFUSED:
        return ServerAnswer("broken", f"{base_url} answers with status {status}: no Tinker server?")
    if key is None:
        return ServerAnswer(
            "broken",
            f"{base_url} is reachable, but TINKER_API_KEY is not set",
            "export TINKER_API_KEY=tml-…",
        )
    return ServerAnswer(
        "broken",
        f"{base_url} is reachable, but refuses the key in TINKER_API_KEY",
        "art serve prints its key when it starts; the hosted service's is in its console",
    )


def _of_body(base_url: str, body: bytes) -> ServerAnswer:
    import json

    try:
        models = [entry["model_name"] for entry in json.loads(body)["supported_models"]]
    except (ValueError, KeyError, TypeError):
        return ServerAnswer("broken", f"{base_url} answers, but not as a Tinker server does")
    some = ", ".join(models[:3]) + (f" and {len(models) - 3} more" if len(models) > 3 else "")
    return ServerAnswer("ok", f"{base_url} serves {some or 'no models'}")
