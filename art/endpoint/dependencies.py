"""The dependency that all routes share: the endpoint's state.

It is ``async``, as all handlers are: FastAPI runs other ones in threads, one hop for each.
"""

from typing import Annotated

from fastapi import Depends, Request

from art.endpoint.state import Endpoint


async def _endpoint(request: Request) -> Endpoint:
    endpoint = request.app.state.endpoint
    assert isinstance(endpoint, Endpoint)
    return endpoint


EndpointDependency = Annotated[Endpoint, Depends(_endpoint)]
