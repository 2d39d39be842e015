"""Serve's own processes: how they talk to one another, and what the HTTP proxy does first.

No name of a request is the client's own: Serve takes the header X-Request-ID over and writes it
into its access logs, where a client that puts a patient's number there would have it stand. Ray
calls `middlewares` in each proxy where `CALLBACK_VARIABLE` names it. `ENVIRONMENT` is that of
`ray start`; `medray serve` and the image of cluster/ set it.
"""

from typing import Any

from starlette.middleware import Middleware

CALLBACK_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
CALLBACK = "medray.serving.proxy:middlewares"
ENVIRONMENT = {
    CALLBACK_VARIABLE: CALLBACK,
    # gRPC from the proxy to the gateway: a message of a stream costs half of what it costs as an
    # object of Ray. The gateway asks for it itself towards the others.
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    # A thread less for every message to go through.
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
}
REQUEST_ID = b"x-request-id"


class OwnRequestId:
    """Middleware that drops the client's X-Request-ID; Serve then makes one up."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI application."""
        if "headers" in scope:
            kept = [pair for pair in scope["headers"] if pair[0].lower() != REQUEST_ID]
            scope = {**scope, "headers": kept}
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """As Ray wants them."""
    return [Middleware(OwnRequestId)]
