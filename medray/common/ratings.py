"""Answers for physicians to judge, and their judgements: the two files that go between.

responses.jsonl, a line a scenario, shown to raters without a word on where an answer comes from:

    {"scenario_id": "SC7", "scenario": "…", "responses": [{"response_id": "SC7-0", "text": "…"}, …]}

ratings.jsonl, a line a judgement, with a score, a rank among the scenario's answers (1 is best), or
both:

    {"scenario_id": "SC7", "response_id": "SC7-0", "rater": "a", "score": 7.5, "rank": 1}

Source: scenario–response pairs with expert scores [EMR-LLM 1.4], ranked answers [ClinicalGPT 2.3].
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from medray.common.errors import DataError
from medray.common.records import Row

RowType = TypeVar("RowType", bound=Row)
MAX_SCORE = 10.0


class Response(Row):
    """One answer to judge."""

    response_id: str = Field(min_length=1)
    text: str


class RatingTask(Row):
    """A scenario and the answers to it, in the order in which they are shown."""

    scenario_id: str = Field(min_length=1)
    scenario: str
    responses: list[Response] = Field(min_length=1)


class Rating(Row):
    """What one rater says of one answer."""

    scenario_id: str = Field(min_length=1)
    response_id: str = Field(min_length=1)
    rater: str = Field(min_length=1)
    score: float | None = Field(default=None, ge=0, le=MAX_SCORE)
    rank: int | None = Field(default=None, ge=1)
    comment: str = ""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.score is None and self.rank is None:
            raise ValueError("a rating needs a score or a rank")
        return self


def read_lines(path: Path, model: type[RowType]) -> Iterator[tuple[int, RowType]]:
    """(line number, row) of either file.

    Raises:
        DataError: no file, or a line that is none; the message names fields, never their text.
    """
    if not path.is_file():
        raise DataError(f"no file at {path}")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, read_line(line, model, f"{path}, line {number}")


def read_line(line: bytes, model: type[RowType], where: str) -> RowType:
    """One row; `where` begins the message of the DataError for a line that is none."""
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        fields = ", ".join(
            f"{'.'.join(map(str, e['loc'])) or 'line'}: {e['msg']}" for e in error.errors()
        )
        raise DataError(f"{where}: {fields}") from None
