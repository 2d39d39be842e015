"""POST /v1/feedback: kept in the audit log, beside the answer that it is about."""

from typing import Annotated, Any

from fastapi import APIRouter

from medray.serving.identity.access import FEEDBACK, Caller, may
from medray.serving.schema.base import ApiError
from medray.serving.schema.feedback import FeedbackRequest
from medray.serving.service import Served

router = APIRouter()


@router.post("/v1/feedback", status_code=201)
async def feedback(
    request: FeedbackRequest, service: Served, caller: Annotated[Caller, may(FEEDBACK)]
) -> dict[str, Any]:
    """Keeps it. Whether there was such an answer is found when feedback is exported."""
    if not service.keeps_texts:
        raise ApiError(
            404, "feedback is not kept here; set gateway.audit_dir, and MEDRAY_AUDIT_KEY for texts",
            code="feedback_not_kept",
        )  # fmt: skip
    service.log(
        "feedback", request.texts(), request=request.request, caller=caller.id, role=caller.role,
        score=request.score,
    )  # fmt: skip
    return {"object": "feedback", "request": request.request}
