"""/v1/ratings: physicians judge sampled answers, blinded. Who they are is told by their key's id,
which is random; only the key file names its holder."""

import asyncio
import json
from typing import Annotated

from fastapi import APIRouter

from medray.common.ratings import RatingTask
from medray.serving.identity.access import RATE, Caller, may
from medray.serving.ratings import AlreadyJudged, Judgement, OtherNumber, Progress, RatingRound
from medray.serving.schema.base import ApiError
from medray.serving.schema.ratings import (
    RatingProgress,
    RatingRequest,
    RatingTaskShown,
    SkipRequest,
)
from medray.serving.service import Served, Service

router = APIRouter()
Rater = Annotated[Caller, may(RATE)]


@router.get("/v1/ratings")
async def progress(service: Served, caller: Rater) -> RatingProgress:
    """How many scenarios the caller has judged and skipped, of how many."""
    return _told(await asyncio.to_thread(_round(service).progress, caller.id))


@router.get("/v1/ratings/next")
async def next_task(service: Served, caller: Rater) -> RatingTaskShown:
    """The scenario that the caller is to judge next. Asked again it is the same one, with its
    answers in the same order, until it is judged or skipped."""
    task, far = await asyncio.to_thread(_round(service).next, caller.id)
    if task is None:
        return RatingTaskShown(task=None, progress=_told(far))
    _log(service, caller, "rating_shown", task)
    return RatingTaskShown(
        task=task.scenario_id,
        scenario=task.scenario,
        answers=[response.text for response in task.responses],
        progress=_told(far),
    )


@router.post("/v1/ratings", status_code=201)
async def rate(request: RatingRequest, service: Served, caller: Rater) -> RatingProgress:
    """Keeps the caller's scores and ranks of a scenario's answers."""
    round_ = _round(service)
    task = _task(round_, request.task)
    judgement = Judgement(request.scores, request.ranks, request.comments or ())
    try:
        rows = await asyncio.to_thread(round_.keep, task, caller.id, judgement)
    except OtherNumber as error:
        raise ApiError(400, str(error), code="other_number_of_answers") from None
    except AlreadyJudged:
        raise _twice() from None
    comments = {row.response_id: row.comment for row in rows if row.comment}
    _log(
        service, caller, "rating", task,
        {"comments": json.dumps(comments, ensure_ascii=False)} if comments else {},
        scores={row.response_id: row.score for row in rows},
        ranks={row.response_id: row.rank for row in rows},
    )  # fmt: skip
    return await progress(service, caller)


@router.post("/v1/ratings/skip")
async def skip(request: SkipRequest, service: Served, caller: Rater) -> RatingProgress:
    """Has a scenario not shown to the caller again."""
    round_ = _round(service)
    task = _task(round_, request.task)
    try:
        await asyncio.to_thread(round_.skip, task, caller.id)
    except AlreadyJudged:
        raise _twice() from None
    _log(service, caller, "rating_skipped", task)
    return await progress(service, caller)


def _round(service: Service) -> RatingRound:
    if service.ratings is None:
        raise ApiError(
            404, "no answers are to be rated here; set gateway.ratings_dir to a directory that "
            "holds a responses.jsonl of sample_responses", code="no_ratings",
        )  # fmt: skip
    return service.ratings


def _task(round_: RatingRound, scenario_id: str) -> RatingTask:
    task = round_.task(scenario_id)
    if task is None:
        raise ApiError(
            404, "no such task in this round; ask for the next one",
            code="no_such_task", param="task",
        )  # fmt: skip
    return task


def _twice() -> ApiError:
    return ApiError(
        409, "you have judged or skipped this one before; ask for the next one",
        code="already_judged",
    )  # fmt: skip


def _told(far: Progress) -> RatingProgress:
    return RatingProgress(**far._asdict())


def _log(
    service: Service, caller: Caller, event: str, task: RatingTask,
    texts: dict[str, str] | None = None, **fields: object,
) -> None:  # fmt: skip
    service.log(
        event, texts or {}, scenario=task.scenario_id, caller=caller.id, role=caller.role, **fields
    )
