"""ASGI middleware that names, in a header of the response, the fields that were ignored."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-art-ignored-fields"


class ReportIgnoredFields:
    """Adds the header :data:`HEADER` where a request had fields that this server does not know.

    Args:
        app: The application behind it; it notes their names in ``request.state.ignored_fields``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""

        async def send_with_header(message: Message) -> None:
            if message["type"] == "http.response.start":
                ignored = scope.get("state", {}).get("ignored_fields")
                if ignored:
                    header = (HEADER.encode(), ", ".join(sorted(ignored)).encode("ascii"))
                    message = {**message, "headers": [*message.get("headers", []), header]}
            await send(message)

        await self._app(scope, receive, send_with_header)
