"""POST /v1/quality: quality control of one record; medray's own. Names are those of
`medray.quality`."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from medray.quality.verdict import Reason
from medray.serving.schema.base import ApiError, Request, Usage, example
from medray.serving.schema.record import MOST_RECORD_CHARS

RECORD = "手术记录：\n于前降支植入支架一枚。术后残余狭窄10%。TIMI血流3级。"
MOST_INDICATORS = 100


class QualityRequest(Request):
    """A record, and what to judge it by."""

    model_config = example({"record": RECORD, "indicators": ["pci-angio-success"]})

    model: str | None = None
    """None: the model that is served."""
    record: str = Field(pattern=r"\S", max_length=MOST_RECORD_CHARS)
    """Text, the headings of its sections on lines of their own or in 【】. Some indicators read
    certain sections alone."""
    indicators: list[str] = Field(default=[], max_length=MOST_INDICATORS)
    """Ids; empty: all, and those that do not apply to the record are left out of the answer."""

    def chosen(self, known: Mapping[str, str]) -> list[str]:
        """Ids of the indicators to judge by, each once.

        Args:
            known: id → title of all that there are.
        Raises:
            ApiError: 400 if one is unknown.
        """
        ids = list(dict.fromkeys(self.indicators)) or list(known)
        if not known.keys() >= set(ids):
            raise ApiError(
                400, f"no such indicator; there are: {', '.join(sorted(known))}",
                code="unknown_indicator", param="indicators",
            )  # fmt: skip
        return ids


class SubTaskVerdict(BaseModel):
    """The verdict on one sub-task."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    task: str
    """Its name in the indicator's definition."""
    question: str
    value: bool | None
    """What the indicator's logic sees; null: unknown."""
    reason: Reason
    """`absent`: the record does not mention it, which some tasks count as no. `no_evidence`: a yes
    whose words the record does not hold, `unparsed`: no verdict at all; both are unknown."""
    quote: str | None = None
    """The words of the record that the verdict rests on."""
    start: int | None = None
    """Where they begin in the record as it was sent, in code points."""
    end: int | None = None


class IndicatorVerdict(BaseModel):
    """The verdict by one indicator."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    indicator: str
    title: str
    verdict: Literal["met", "unmet", "unknown"]
    """`unknown` too where the indicator does not apply."""
    applies: bool | None
    """Whether the record counts in the indicator's population; null: that is open."""
    deciding: list[str]
    """Tasks whose values decide that, or are still to be known."""
    sub_tasks: list[SubTaskVerdict]


class QualityReport(BaseModel):
    """The verdicts on a record."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "quality.report",
                    "id": "qual-0d9f3c5be4a84c1f8f6f0f6b3b1f2a10",
                    "created": 1767225600,
                    "model": "medray",
                    "model_version": "3f9a0c",
                    "results": [
                        {
                            "indicator": "pci-angio-success",
                            "title": "冠状动脉介入治疗即刻造影成功率",
                            "verdict": "met",
                            "applies": True,
                            "deciding": ["T1", "T3"],
                            "sub_tasks": [
                                {
                                    "task": "T3",
                                    "question": "冠状动脉血流TIMI分级达到3级",
                                    "value": True,
                                    "reason": "met",
                                    "quote": "TIMI血流3级。",
                                    "start": 27,
                                    "end": 36,
                                }
                            ],
                        }
                    ],
                    "usage": {"prompt_tokens": 212, "completion_tokens": 40, "total_tokens": 252},
                }
            ]
        }
    )

    object: Literal["quality.report"] = "quality.report"
    id: str
    created: int
    model: str
    model_version: str
    results: list[IndicatorVerdict]
    usage: Usage


class IndicatorTitle(BaseModel):
    """An indicator by name."""

    id: str
    title: str


class IndicatorList(BaseModel):
    """GET /v1/quality/indicators."""

    object: Literal["list"] = "list"
    data: list[IndicatorTitle]
