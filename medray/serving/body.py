"""Bounds on what a client sends: how much, and for how long. ASGI middleware, and safe headers.

A body that is too long is refused while it comes in, with what came thrown away; one that trickles
is refused when its time is over. Neither has taken a place among the requests in flight by then.
"""

import asyncio
from typing import Any

from fastapi.responses import JSONResponse

from medray.serving.schema.base import ApiError

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        b"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)
"""Of every answer: the page loads its own files only, and stands in nobody else's."""
HSTS = (b"strict-transport-security", b"max-age=31536000")
"""Of answers over TLS, Serve's or a proxy's before it: for a year browsers ask this host in no
other way. On plain HTTP it means nothing (RFC 6797, section 7.2)."""


class BoundedBody:
    """Middleware that hands on requests whose bodies are bounded."""

    def __init__(self, app: Any, max_bytes: int, timeout_s: float) -> None:
        self._app, self._max_bytes, self._timeout_s = app, max_bytes, timeout_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        headers = (*HEADERS, HSTS) if scope.get("scheme") == "https" else HEADERS

        async def send_safely(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                extra = [pair for pair in headers if pair[0] not in given]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        try:
            body = await self._read(scope, receive)
        except ApiError as error:
            answer = JSONResponse(error.body(), status_code=error.status)
            await answer(scope, receive, send_safely)
            return
        if body is None:
            return  # the client has gone
        handed = False

        async def receive_whole() -> Any:
            nonlocal handed
            if handed:
                return await receive()  # tells when the client goes
            handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_whole, send_safely)

    async def _read(self, scope: Any, receive: Any) -> bytes | None:
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if told.isdigit() and int(told) > self._max_bytes:
            raise self._too_long()
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > self._max_bytes:
                        raise self._too_long()
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise ApiError(
                408, f"the body did not arrive within {self._timeout_s:.0f} s", code="timeout"
            ) from None

    def _too_long(self) -> ApiError:
        return ApiError(
            413, f"the body is longer than {self._max_bytes} bytes", code="body_too_long"
        )
