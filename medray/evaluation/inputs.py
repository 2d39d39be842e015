"""Reads what an evaluation needs: held-out rows of the instructions and corpus artefacts, and the
generator's truth where there is one. The first rows by a hash of their id are taken, so a smaller
evaluation is a part of a larger one.
"""

import gzip
import heapq
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from medray.common.records import Document, ExamQuestion, Instruction, Row, Scenario
from medray.common.rows import read_rows
from medray.common.split import unit_hash
from medray.evaluation.lexicon import codes_in

RowType = TypeVar("RowType", bound=Row)


class Truth(NamedTuple):
    """What the sample's generator knows. `records`: record id → its row of truth/records-*."""

    ceiling: float | None
    ceiling_se: float | None
    records: dict[str, dict[str, Any]]


def sample_rows(rows: Iterable[RowType], key: str, limit: int) -> list[RowType]:
    """The `limit` rows with the lowest hash of field `key`, in that order."""
    keyed = ((unit_hash(str(getattr(row, key))), n, row) for n, row in enumerate(rows))
    return [row for _, _, row in heapq.nsmallest(limit, keyed)]


def read_instructions(directory: Path, task: str, split: str) -> Iterator[Instruction]:
    """Instructions of one task and split; none if the artefact has no sft/."""
    if any((directory / "sft").glob("*.parquet")):
        for row in read_rows(directory / "sft", Instruction):
            if row.task == task and row.split == split:
                yield row


def read_scenarios(directory: Path) -> Iterator[Scenario]:
    """Held-out scenarios."""
    if any((directory / "prompts").glob("*.parquet")):
        yield from (r for r in read_rows(directory / "prompts", Scenario) if r.split == "dev")


def read_exam(directory: Path) -> Iterator[ExamQuestion]:
    """Held-out exam questions."""
    if any((directory / "exam").glob("*.parquet")):
        yield from (r for r in read_rows(directory / "exam", ExamQuestion) if r.split == "dev")


def read_records(
    corpus: Path, limit: int, left_out_sources: Sequence[str]
) -> tuple[list[Document], dict[str, str]]:
    """`limit` held-out patient records, and ICD-10 code → name as all records write them."""
    codes: dict[str, str] = {}

    def held_out() -> Iterator[Document]:
        for document in read_rows(corpus / "documents", Document):
            if document.kind != "emr":
                continue
            for section in document.sections:
                if section.heading == "诊断":
                    codes.update(codes_in(section.text))
            if document.split == "dev" and document.source not in left_out_sources:
                yield document

    return sample_rows(held_out(), "doc_id", limit), codes


def read_truth(hospital: Path | None, wanted: set[str]) -> Truth | None:
    """Ceiling and truth of the `wanted` records; None without a hospital that knows its truth."""
    if hospital is None or not (hospital / "hospital.json").is_file():
        return None
    about = json.loads((hospital / "hospital.json").read_text(encoding="utf-8"))
    records = {}
    for path in sorted((hospital / "truth").glob("records-*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row["record_id"] in wanted:
                    records[row["record_id"]] = row
    return Truth(about.get("ceiling"), about.get("ceiling_se"), records)
