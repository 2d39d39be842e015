"""POST /v1/quality and GET /v1/quality/indicators."""

import json
from collections import Counter
from typing import Annotated

from fastapi import APIRouter

from medray.serving.identity.access import JUDGE, Caller, may
from medray.serving.schema.base import ApiError, Usage
from medray.serving.schema.quality import (
    IndicatorList,
    IndicatorTitle,
    QualityReport,
    QualityRequest,
)
from medray.serving.service import Served

router = APIRouter()


@router.get("/v1/quality/indicators")
async def indicators(service: Served, caller: Annotated[Caller, may(JUDGE)]) -> IndicatorList:
    """What a record can be judged by."""
    titles = await service.deployed.indicators()
    data = [IndicatorTitle(id=name, title=title) for name, title in titles.items()]
    return IndicatorList(data=data)


@router.post("/v1/quality")
async def judge(
    request: QualityRequest, service: Served, caller: Annotated[Caller, may(JUDGE)]
) -> QualityReport:
    """Judges one record by quality-control indicators, with the words that decide; nothing of it is
    kept but, encrypted, in the audit log."""
    model = service.config.model_name if request.model is None else request.model
    service.check_model(model, *service.policy_names)
    service.check_size(len(request.record))
    ids = request.chosen(await service.deployed.indicators())
    asked = {"record": request.record}
    policy = service.answering(model)
    with await service.admit(caller, "qual", asked, model=policy, indicators=ids) as turn:
        meter = turn.meter(service.deployed.policy)
        judging = service.deployed.judge(policy, request.record, ids, meter.spent)
        judged = await turn.unless_stopped(judging)
        if judged.problem:
            raise ApiError(400, judged.problem, code="context_length_exceeded", param="record")
        turn.goes_on()
        results = [
            result for result in judged.results if request.indicators or result.applies is not False
        ]
        usage = Usage(
            prompt_tokens=judged.num_prompt_tokens,
            completion_tokens=judged.num_tokens,
            total_tokens=judged.num_prompt_tokens + judged.num_tokens,
        )
        told = [result.model_dump() for result in results]
        turn.answered(
            usage, {"results": json.dumps(told, ensure_ascii=False)},
            model_version=judged.version, verdicts=Counter(result.verdict for result in results),
        )  # fmt: skip
        return QualityReport(
            **turn.identity(model), model_version=judged.version, results=results, usage=usage
        )
