"""/v1/consult: the patient's side of a consultation.

Every message of a patient is first read by the rules for emergencies. Where they find one the
answer is what to do at once: no limit of a key, no number in flight, no emergency switch and no
turn in progress stands in its way, and no model is asked.
"""

import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from medray.serving.answering.answer import Generate
from medray.serving.answering.guard import Refusal, refusal
from medray.serving.consult import urgent, words
from medray.serving.consult.dialogue import Behind, Reply, reply
from medray.serving.consult.red_flags import red_flag
from medray.serving.consult.signs import Sign
from medray.serving.identity.access import CONSULT, Caller, may
from medray.serving.messages import Piece
from medray.serving.routes.attend import ENDPOINT, checked
from medray.serving.routes.events import stream_events
from medray.serving.schema.consult import (
    Consultation,
    ConsultMessage,
    OpenRequest,
    SayRequest,
    Status,
)
from medray.serving.schema.grounding import Grounding
from medray.serving.service import Served, Service, Turn

router = APIRouter()


@router.post("/v1/consult", status_code=201, response_model=Consultation)
async def open_consultation(
    request: OpenRequest, service: Served, caller: Annotated[Caller, may(CONSULT)]
) -> Response:
    """Opens a consultation with the patient's complaint; the answer holds the first question."""
    text = request.text()
    config = service.config.consult
    opened = Consultation(
        id=f"consultation-{uuid.uuid4().hex}",
        language=words.language_of(text),
        max_questions=min(request.max_questions or config.max_questions, config.max_questions),
    )
    sign = red_flag([text])
    if sign is None:
        service.switch.check(service.answering(service.config.model_name))
        return await _hear(service, caller, opened, text, opens=True, stream=bool(request.stream))
    # Where there is no room for it, it is not kept; what to do is said all the same.
    await service.deployed.consult("open", opened, caller.id)
    return await _alarm(service, caller, opened, text, sign, bool(request.stream))


@router.post("/v1/consult/{identifier}/messages", response_model=Consultation)
async def say(
    identifier: str, request: SayRequest, service: Served, caller: Annotated[Caller, may(CONSULT)]
) -> Response:
    """The patient's next words; the answer holds the next question, or the judgement. While a
    clinician has taken over they are kept for the clinician, and nothing is answered."""
    found = checked(await service.deployed.consult("find", identifier, caller.id))
    if request.content is not None:
        sign = red_flag([*found.said(), request.content], found.question())
        if sign is not None:
            return await _alarm(
                service, caller, found, request.content.strip(), sign, bool(request.stream)
            )
    return await _hear(
        service, caller, found, (request.content or "").strip(),
        judged=bool(request.judge), stream=bool(request.stream),
    )  # fmt: skip


async def _alarm(
    service: Service, caller: Caller, found: Consultation, text: str, sign: Sign, stream: bool
) -> Response:
    language = words.language_of(text)
    answer = urgent.what_to_do(sign, language)
    first = len(found.messages)
    with ExitStack() as stack:
        turn = stack.enter_context(
            await service.admit(
                caller, ENDPOINT, _asked(found, text), urgent=True, consultation=found.id
            )
        )
        messages = [
            ConsultMessage(author="patient", kind="statement", content=text, request=turn.id),
            ConsultMessage(author="service", kind="urgent", content=answer, request=turn.id),
        ]
        told = await service.deployed.consult("alarm", found.id, caller.id, sign, messages)
        if isinstance(told, str):  # forgotten, or never kept
            kept = [*found.messages, *messages]
            change = {"status": "urgent", "red_flag": sign, "messages": kept}
            told = found.model_copy(update=change)
        service.metrics.guarded(sign)
        turn.answered(None, {"answer": answer}, red_flag=sign, status=told.status)
        told = told.since(first)
        if stream:
            return await stream_events(_once(told), stack.pop_all())
        return JSONResponse(told.model_dump(), 201 if first == 0 else 200)


async def _once(told: Consultation) -> AsyncGenerator[dict[str, Any], None]:
    yield told.model_dump()


async def _hear(
    service: Service,
    caller: Caller,
    found: Consultation,
    text: str,
    *,
    opens: bool = False,
    judged: bool = False,
    stream: bool = False,
) -> Response:
    refused = _refused(text) if text else None
    with ExitStack() as stack:
        turn = stack.enter_context(
            await service.admit(
                caller, ENDPOINT, _asked(found, text), consultation=found.id,
                model=service.answering(service.config.model_name),
            )
        )  # fmt: skip
        if opens:  # what is not let in takes no room
            checked(await service.deployed.consult("open", found, caller.id))
        message = ConsultMessage(
            author="patient", kind="refused" if refused else "statement", content=text,
            request=turn.id,
        )  # fmt: skip
        begun: Consultation = checked(
            await service.deployed.consult(
                "begin", found.id, caller.id, turn.id, message if text else None
            )
        )
        stack.callback(service.deployed.abandon_consult, found.id, turn.id)
        first = len(begun.messages) - bool(text)
        items = _answer(service, turn, begun, refused, judged)
        if stream:
            return await stream_events(_chunks(turn, items, first), stack.pop_all())
        async with aclosing(items):
            async for item in items:
                if isinstance(item, Consultation):
                    told = item.since(first)
        return JSONResponse(told.model_dump(), 201 if first == 0 else 200)


async def _chunks(
    turn: Turn, items: AsyncGenerator[Piece | Consultation, None], first: int
) -> AsyncGenerator[dict[str, Any], None]:
    yield {"object": "consultation.chunk", "id": turn.id, "content": ""}
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Piece):
                yield {"object": "consultation.chunk", "id": turn.id, "content": item.text}
            else:
                yield item.since(first).model_dump()


async def _answer(
    service: Service, turn: Turn, begun: Consultation, refused: Refusal | None, judged: bool
) -> AsyncGenerator[Piece | Consultation, None]:
    """Yields pieces of the answer as they come, then the consultation with it."""
    if begun.status == "clinician":  # the message is with the clinician; the model stays out of it
        turn.answered(None, {}, status=begun.status)
        yield begun
        return
    if begun.status == "urgent":
        text = urgent.STILL_URGENT[begun.language]
        made = ConsultMessage(author="service", kind="notice", content=text, request=turn.id)
        yield Piece(text)
    elif refused is not None:
        service.metrics.guarded(refused.kind)
        made = ConsultMessage(
            author="service", kind="notice", content=refused.text, request=turn.id
        )
        yield Piece(refused.text)
    else:
        model = service.answering(service.config.model_name)
        service.switch.check(model)
        policy = turn.meter(service.deployed.others.get(model, service.deployed.chats))
        said = None
        async with aclosing(reply(begun, _behind(service, policy), judged)) as items:
            async for item in items:
                if isinstance(item, Reply):
                    said = item
                else:
                    turn.goes_on(item.text)
                    yield item
        assert said is not None
        yield await _finish(service, turn, begun, said)
        return
    told = checked(
        await service.deployed.consult("finish", begun.id, turn.id, [made], begun.status)
    )
    turn.answered(None, {"answer": made.content}, kind=made.kind, status=told.status)
    yield told


async def _finish(service: Service, turn: Turn, begun: Consultation, said: Reply) -> Consultation:
    """Adds what the model said, unless a clinician or an emergency came between, and logs it."""
    made = ConsultMessage(
        author=said.author,
        kind=said.kind,
        content=said.text,
        request=turn.id,
        medray=said.grounding,
    )
    status: Status = "judged" if said.kind == "judgement" else "asking"
    told: Consultation = checked(
        await service.deployed.consult("finish", begun.id, turn.id, [made], status)
    )
    grounding = said.grounding or Grounding(retrieval=False)
    verdicts = [verdict.verdict for verdict in grounding.verdicts]
    if said.grounding is not None:
        service.metrics.answered(grounding)
    turn.answered(
        said.usage,
        {"answer": said.text},
        kind=said.kind,
        shown=any(m.request == turn.id and m.author != "patient" for m in told.messages),
        status=told.status,
        model_version=said.version,
        index_version=grounding.index_version,
        passages=[passage.passage_id for passage in grounding.passages],
        sentences=len(verdicts),
        left_out=verdicts.count("failed"),
    )
    return told


def _behind(service: Service, policy: Generate) -> Behind:
    config, deployed = service.config, service.deployed
    return Behind(config.answer, config.consult, deployed.embed_question, deployed.search, policy)


def _refused(text: str) -> Refusal | None:
    """What the guard says to a patient; words of despair are for the rules of emergencies, which
    know a denial."""
    found = refusal(text, "patient")
    return refusal(text, "clinician") if found and found.kind == "self_harm" else found


def _asked(found: Consultation, text: str) -> dict[str, str]:
    """The conversation so far and the newest words, for the audit log."""
    chat = [*found.chat(), *([{"role": "user", "content": text}] if text else [])]
    return {"messages": json.dumps(chat, ensure_ascii=False)}
