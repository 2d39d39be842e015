"""/v1/ratings: sampled answers that physicians judge blinded, medray's own."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from medray.common.ratings import MAX_SCORE
from medray.serving.schema.base import Request, example

MOST_ANSWERS = 64


class SkipRequest(Request):
    """POST /v1/ratings/skip."""

    model_config = example({"task": "SC7"})

    task: str = Field(min_length=1, max_length=256)


class RatingRequest(Request):
    """POST /v1/ratings: a score of each answer, a rank of each, or both. All lists stand in the
    order in which the answers were shown."""

    model_config = example({"task": "SC7", "scores": [7, 4.5, 9], "ranks": [2, 3, 1]})

    task: str = Field(min_length=1, max_length=256)
    scores: list[Annotated[float, Field(ge=0, le=MAX_SCORE)]] | None = Field(
        None, min_length=1, max_length=MOST_ANSWERS
    )
    ranks: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, min_length=1, max_length=MOST_ANSWERS
    )
    """1 is best; equals are allowed."""
    comments: list[Annotated[str, Field(max_length=10_000)]] | None = Field(
        None, max_length=MOST_ANSWERS
    )

    @model_validator(mode="after")
    def _judges(self) -> "RatingRequest":
        if self.scores is None and self.ranks is None:
            raise ValueError("give scores, ranks or both")
        return self


class RatingProgress(BaseModel):
    """How far the rater is, in scenarios."""

    object: Literal["rating_progress"] = "rating_progress"
    rated: int
    skipped: int
    total: int


class RatingTaskShown(BaseModel):
    """GET /v1/ratings/next. `task` is null when none is left; nothing says whose an answer is."""

    object: Literal["rating_task"] = "rating_task"
    task: str | None
    scenario: str = ""
    answers: list[str] = []
    progress: RatingProgress
