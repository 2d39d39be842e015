"""What is served: GET /v1/models, /healthz and the page."""

import html
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse, JSONResponse, Response

from medray.serving.handles import OTHER
from medray.serving.identity.access import caller
from medray.serving.schema.base import ApiError
from medray.serving.schema.record import MOST_RECORD_CHARS
from medray.serving.service import Served, Service

router = APIRouter()
PAGE = Path(__file__).parents[1] / "page"
STATIC = {
    "style.css": "text/css",
    "words.js": "text/javascript",
    "api.js": "text/javascript",
    "app.js": "text/javascript",
    "consult.js": "text/javascript",
    "attend.js": "text/javascript",
    "copy.js": "text/javascript",
    "record.js": "text/javascript",
    "ratings.js": "text/javascript",
    "reference.js": "text/javascript",
}
"""What the page loads; nothing else is served by name."""


@router.get("/v1/models", dependencies=[Depends(caller)])
async def models(service: Served) -> dict[str, Any]:
    """The models by name."""
    return {"object": "list", "data": [_model(service, name) for name in service.model_names]}


@router.get("/v1/models/{name}", dependencies=[Depends(caller)])
async def model(name: str, service: Served) -> dict[str, Any]:
    """One model by name."""
    service.check_model(name, *service.model_names)
    return _model(service, name)


@router.get("/healthz")
async def health(service: Served) -> Response:
    """200 if every deployment answers that chats by the served name need, else 503; versions of
    what is served."""
    deployments = await service.deployed.states(service.config.health_timeout_s)
    needed = [name for name in deployments if not name.startswith(OTHER)]
    ready = all(deployments[name]["ready"] for name in needed)
    body = {
        "status": "ok" if ready else "unready",
        "model": service.config.model_name,
        "index_version": deployments.get("retrieval", {}).get("version", ""),
        "in_flight": service.in_flight.count,
        "deployments": deployments,
    }
    return JSONResponse(body, status_code=200 if ready else 503)


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def page(service: Served) -> str:
    """A page to ask questions on."""
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    values = {
        "MODEL_NAME": html.escape(service.config.model_name),
        "RATINGS": "on" if service.ratings is not None else "",
        "RECORD_CHARS": str(MOST_RECORD_CHARS),
    }
    for name, value in values.items():
        text = text.replace(f'"{name}"', f'"{value}"')
    return text


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def reference() -> str:
    """The API's description to read."""
    return (PAGE / "reference.html").read_text(encoding="utf-8")


@router.get("/static/{name}", include_in_schema=False)
async def static(name: str) -> Response:
    """A file of the page."""
    if name not in STATIC:
        raise ApiError(404, "no such file")
    text = (PAGE / name).read_text(encoding="utf-8")
    return Response(text, media_type=STATIC[name], headers={"Cache-Control": "no-cache"})


def _model(service: Service, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": service.created, "owned_by": "medray"}
