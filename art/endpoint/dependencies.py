"""Dependencies that all routes share: the endpoint's state, and the check of the API key.

They are ``async``, as all handlers are: FastAPI runs other ones in threads, one hop for each.
"""

import secrets
from typing import Annotated

from fastapi import Depends, Request

from art.endpoint.errors import RequestError
from art.endpoint.state import Endpoint


async def _endpoint(request: Request) -> Endpoint:
    endpoint = request.app.state.endpoint
    assert isinstance(endpoint, Endpoint)
    return endpoint


EndpointDependency = Annotated[Endpoint, Depends(_endpoint)]


async def authorize(request: Request, endpoint: EndpointDependency) -> None:
    """Check a request's API key.

    Raises:
        RequestError: It is missing or wrong (401).
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    known = secrets.compare_digest(key.strip().encode(), endpoint.api_key.encode())
    if scheme.lower() != "bearer" or not known:
        raise RequestError(
            401,
            "the API key is missing or wrong; use model.openai_client(), or the model's "
            "inference_api_key",
            code="invalid_api_key",
        )
