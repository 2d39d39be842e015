"""Corpus sources. In: lines of the export. Out: `RawRecord`s and `RawDocument`s.

Sections may come as a list of {heading, text, date}, as a mapping heading → text, or as one
`text` with headings in it (`medray.corpus.readers.headings`).
"""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from medray.common.records import RawDocument, RawRecord
from medray.common.sources import Rejected, Source, SourceRow, to_row
from medray.corpus.readers.headings import split_sections

TABLES: dict[str, tuple[str, ...]] = {
    "files": (),
    "fhir": (),
    "mimic": ("admissions", "diagnoses_icd", "d_icd_diagnoses"),
    "omop": ("visit_occurrence", "condition_occurrence", "measurement", "concept"),
}
"""Format → the tables that may stand beside its notes, under the names of its standard."""


class CorpusSource(Source):
    """Records or published texts, and what they are used for."""

    kind: Literal["record", "document"]  # pyright: ignore[reportIncompatibleVariableOverride]
    """record: patients' records, de-identified. document: published text, taken as it is."""
    format: Literal["files", "mimic", "fhir", "omop"] = "files"
    """files: rows of JSON Lines, JSON, CSV, TSV or Parquet, or one document a file (JATS or CDA
    XML, Markdown, text, PDF), by suffix. mimic: NOTEEVENTS or discharge.csv at `path`, omop: NOTE
    at `path`, each with its `tables`, one record a visit. fhir: all NDJSON of a bulk export at
    `path`, one record an encounter. Joins pass through unnamed files in TMPDIR of each node."""
    tables: dict[str, str] = Field(default_factory=dict)
    """Table → glob, to be joined to the notes. mimic: admissions, diagnoses_icd, d_icd_diagnoses.
    omop: visit_occurrence, condition_occurrence, measurement, concept."""
    pretrain: bool = True
    """Goes into the token blocks."""
    passages: bool = False
    """Goes into the knowledge base that retrieval searches."""
    medical: Literal["trusted", "filter"] = "trusted"
    """filter: documents that `corpus.medical_filter` takes for general text are left out."""
    general: bool = False
    """Text that is not medical: replayed in training by `corpus.replay_fraction`, so that the model
    does not forget it, and what the medical filter learns to leave out."""
    dev_fraction: float | None = Field(default=None, ge=0, lt=1)
    """Share held out; None: the corpus's. A row's own `split` goes before both."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        unknown = [name for name in self.tables if name not in TABLES[self.format]]
        if unknown:
            allowed = ", ".join(TABLES[self.format]) or "none"
            raise ValueError(
                f"tables of format {self.format} are: {allowed}; got {', '.join(unknown)}"
            )
        for path in self.tables.values():
            self._relative(path)
        if self.general and (self.kind == "record" or self.medical == "filter"):
            raise ValueError("general text is of kind document, and is not filtered")
        if self.format != "files" and self.kind != "record":
            raise ValueError(f"format {self.format} holds records; set kind: record")
        return self


def raw_row(
    row: SourceRow, kind: Literal["record", "document"]
) -> RawRecord | RawDocument | Rejected:
    """One line as a raw row; sections without text are left out."""
    sections = _sections(row.values, kind == "record")
    if isinstance(sections, str):
        return Rejected(row.file, row.line, sections)
    full = row._replace(values={**row.values, "sections": sections})
    return to_row(full, RawRecord if kind == "record" else RawDocument)


def _sections(values: dict[str, Any], is_record: bool) -> list[Any] | str:
    """The sections of a line in the first form, or the reason why there are none."""
    sections = values.get("sections")
    if sections is None:
        text = values.get("text")
        if text is None:
            return "missing_field:sections"
        if not isinstance(text, str):
            return "invalid_field:text"
        title = str(values.get("title") or "")
        return split_sections(text, title, is_record=is_record) or "no_text"
    if isinstance(sections, dict):
        if not all(isinstance(text, str | None) for text in sections.values()):
            return "invalid_field:sections"
        sections = [{"heading": heading, "text": text} for heading, text in sections.items()]
    if not isinstance(sections, list):
        return "invalid_field:sections"
    kept = [s for s in sections if not isinstance(s, dict) or s.get("text") not in (None, "")]
    return kept or "no_text"
