"""/v1/consult: what is open, and the clinician's side of a consultation.

Only a clinician takes over. From then on the model is silent and the patient's messages wait for
the clinician's, until the clinician hands back. No model is asked here, so that the emergency
switch stops nothing of it.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from medray.serving.consult import words
from medray.serving.identity.access import ATTEND, CONSULT, RIGHTS, Caller, may
from medray.serving.schema.base import ApiError
from medray.serving.schema.consult import (
    Consultation,
    ConsultationList,
    ConsultMessage,
    ReplyRequest,
)
from medray.serving.service import Served, Service

router = APIRouter()
ENDPOINT = "consult"
FAULTS: dict[str, tuple[int, str, str, int | None]] = {
    "unknown": (404, "no_such_consultation", "no such consultation of yours; it may have been "
                "forgotten after nobody wrote for some time: open another", None),
    "busy": (409, "turn_in_progress", "the message before is still being answered", 2),
    "ended": (409, "consultation_ended", "this consultation has its judgement; open another", None),
    "long": (409, "consultation_too_long", "this consultation holds as many messages as one may; "
             "open another", None),
    "crowded": (429, "too_many_consultations", "as many consultations are open as the service "
                "holds; try again later", 60),
    "attended": (409, "attended", "a clinician has taken over and judges; write to them", None),
    "not_attending": (409, "not_attending", "you have not taken this consultation over, or "
                      "another clinician has since", None),
}  # fmt: skip
"""What the sessions say no with → status, code, message, when to try again."""


@router.get("/v1/consult")
async def consultations(
    service: Served, caller: Annotated[Caller, may(CONSULT)]
) -> ConsultationList:
    """Consultations without their texts: a clinician's are all that are open, anybody else's
    their own."""
    attends = ATTEND in RIGHTS[caller.role]
    data = await service.deployed.consult("summaries", None if attends else caller.id)
    return ConsultationList(attends=attends, data=data)


@router.get("/v1/consult/{identifier}")
async def read(
    identifier: str, service: Served, caller: Annotated[Caller, may(CONSULT)],
    after: Annotated[int, Query(ge=0, description="Only messages from this number on.")] = 0,
) -> Consultation:  # fmt: skip
    """One consultation. Whoever reads another's is logged."""
    owner = None if ATTEND in RIGHTS[caller.role] else caller.id
    found: Consultation = checked(await service.deployed.consult("find", identifier, owner))
    told = found.since(after)
    own = await service.deployed.consult("find", identifier, caller.id) if owner is None else found
    if told.messages and isinstance(own, str):
        service.log(
            "read", {}, consultation=identifier, caller=caller.id, role=caller.role,
            messages=[message.number for message in told.messages],
        )  # fmt: skip
    return told


@router.delete("/v1/consult/{identifier}")
async def close(
    identifier: str, service: Served, caller: Annotated[Caller, may(CONSULT)]
) -> dict[str, Any]:
    """Forgets a consultation at the wish of whoever opened it."""
    checked(await service.deployed.consult("remove", identifier, caller.id))
    service.log("closed", {}, consultation=identifier, caller=caller.id, role=caller.role)
    return {"object": "consultation.deleted", "id": identifier, "deleted": True}


@router.post("/v1/consult/{identifier}/take-over")
async def take_over(
    identifier: str, service: Served, caller: Annotated[Caller, may(ATTEND)]
) -> Consultation:
    """The caller speaks with the patient from now on, the model no longer."""
    return await _attend(service, caller, identifier, "take_over", words.TAKEN_OVER)


@router.post("/v1/consult/{identifier}/hand-back")
async def hand_back(
    identifier: str, service: Served, caller: Annotated[Caller, may(ATTEND)]
) -> Consultation:
    """The model goes on; a sign of an emergency that was found is settled."""
    return await _attend(service, caller, identifier, "hand_back", words.HANDED_BACK)


@router.post("/v1/consult/{identifier}/reply")
async def reply(
    identifier: str, request: ReplyRequest, service: Served,
    caller: Annotated[Caller, may(ATTEND)],
) -> Consultation:  # fmt: skip
    """The clinician writes to the patient."""
    text = request.content.strip()
    with await service.admit(
        caller, ENDPOINT, {"reply": text}, consultation=identifier, action="reply"
    ) as turn:
        message = ConsultMessage(
            author="clinician", kind="statement", content=text, request=turn.id
        )
        told = checked(await service.deployed.consult("reply", identifier, caller.id, message))
        turn.answered(None, {}, status=told.status)
        return told.since(len(told.messages) - 1)


async def _attend(
    service: Service, caller: Caller, identifier: str, action: str, notices: dict[Any, str]
) -> Consultation:
    """Begins or ends attending, with what the patient is told of it; the answer holds the whole
    consultation."""
    found = checked(await service.deployed.consult("find", identifier, None))
    with await service.admit(caller, ENDPOINT, {}, consultation=identifier, action=action) as turn:
        notice = ConsultMessage(
            author="service", kind="notice", content=notices[found.language], request=turn.id
        )
        told = checked(await service.deployed.consult(action, identifier, caller.id, notice))
        turn.answered(None, {}, status=told.status)
        return told


def checked(found: Any) -> Any:
    """What the sessions gave.

    Raises:
        ApiError: if they said no.
    """
    if isinstance(found, str):
        status, code, message, retry_after_s = FAULTS[found]
        raise ApiError(status, message, code=code, retry_after_s=retry_after_s)
    return found
