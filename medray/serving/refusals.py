"""Errors as HTTP answers in OpenAI's shape. No text of a request stands in a body or a log line."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from starlette.exceptions import HTTPException

from medray.serving.schema.base import ApiError

logger = logging.getLogger(__name__)


def add_error_handlers(app: FastAPI) -> None:
    """Registers the handlers below."""
    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RayError, on_unavailable)
    app.add_exception_handler(RayServeException, on_unavailable)
    app.add_exception_handler(Exception, on_bug)


async def on_api_error(request: Request, error: Exception) -> Response:
    """Our own refusals."""
    assert isinstance(error, ApiError)
    request.app.state.service.metrics.refused(error.status, error.code or "")
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
    if error.challenge:
        headers["WWW-Authenticate"] = error.challenge
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


async def on_invalid(request: Request, error: Exception) -> Response:
    """Malformed requests. Field names and reasons only: pydantic's own report holds the input."""
    assert isinstance(error, RequestValidationError)
    faults = {_place(fault): fault["msg"] for fault in error.errors()}
    told = "; ".join(f"{place or 'body'}: {message}" for place, message in faults.items())
    return await on_api_error(request, ApiError(400, told, param=next(iter(faults)) or None))


def _place(fault: dict[str, Any]) -> str:
    parts = [str(part) for part in fault["loc"][1:]]
    # The name of a field that is not known is the client's own word.
    return ".".join(parts[:-1] if fault["type"] == "extra_forbidden" else parts)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods."""
    assert isinstance(error, HTTPException)
    return await on_api_error(request, ApiError(error.status_code, str(error.detail)))


async def on_unavailable(request: Request, error: Exception) -> Response:
    """A deployment died or is being replaced."""
    return await on_api_error(request, unavailable(error))


async def on_bug(request: Request, error: Exception) -> Response:
    """What should not happen; Starlette raises it again, so that Serve logs it."""
    return await on_api_error(request, ApiError(500, f"internal error: {type(error).__name__}"))


def unavailable(error: Exception) -> ApiError:
    """The answer while a deployment is gone. Its own message may quote what a task was given."""
    logger.error("a deployment failed: %s", type(error).__name__)
    return ApiError(
        503, "a part of the service is not available; try again shortly",
        code="unavailable", retry_after_s=5,
    )  # fmt: skip
