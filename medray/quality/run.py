"""Quality control of records. In: de-identified records, an engine, optionally a search and expert
labels. Out: verdicts/*.parquet, measure_report.json (FHIR), report.html, accuracy.json.

Records are judged in shards; a shard that is there is read, not judged again, so a run that was
killed goes on where it stopped.
Source: [MedQC 3.3, 4.2]; EVALUATION.md 3.
"""

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from medray.common.config import Config
from medray.common.errors import DataError
from medray.common.manifest import Artefact, Counts
from medray.common.records import Document
from medray.common.rows import arrow_schema
from medray.quality.accuracy import Accuracy
from medray.quality.evidence import is_valid
from medray.quality.indicators import Indicator, load_indicators
from medray.quality.measure import Measure, classify
from medray.quality.protocols import ChatEngine, Greedy, Search
from medray.quality.questions import ANSWER_TOKENS
from medray.quality.report import Example, html_report, measure_reports
from medray.quality.verdict import VerdictRow, judge, values

logger = logging.getLogger(__name__)


class QualityConfig(Config):
    """Settings of a quality-control run."""

    indicators: list[str] = Field(
        ["af-risk-assessed", "pci-angio-success", "lung-cancer-margin-negative"], min_length=1
    )
    """Ids of the indicators to compute. Source: the worked examples of [MedQC 4.2]."""
    files: list[str] = Field(default_factory=list)
    """Own indicator files; empty: those shipped with medray."""
    max_records: int | None = Field(None, ge=1)
    """Only the first so many records; None: all."""
    batch_size: int = Field(default=32, ge=1)
    """Prompts handed to the engine at once."""
    records_per_shard: int = Field(default=256, ge=1)
    """Records judged between two writes; a kill loses at most these."""
    top_k: int | None = Field(None, ge=0, le=20)
    """Passages of knowledge per sub-task; None: as each indicator says."""
    max_examples: int = Field(default=50, ge=0)
    """Records shown per indicator in report.html, those in doubt first."""


def check_quality(
    config: QualityConfig,
    documents: Iterable[Document],
    engine: ChatEngine,
    search: Search | None,
    labels: Iterable[Mapping[str, Any]] | None,
    artefact: Artefact,
    *,
    doc_ids: Mapping[str, str] | None = None,
) -> list[Measure]:
    """Judges every record, writes the reports into `artefact.dir`, returns the measures.

    Args:
        search: finds knowledge for a sub-task; None: prompts hold none.
        labels: rows as the instructions step writes them in quality/labels: record_id, indicator,
            level (task, population), name, value (null = not mentioned), section, sentence.
        doc_ids: label's record id → document id, where they differ.
    Raises:
        QualityError: a wrong indicator. DataError: no records, or a shard of other records.
    """
    files = [Path(name) for name in config.files] or None
    indicators = list(load_indicators(files, config.indicators).values())
    measures = {indicator.id: Measure(indicator) for indicator in indicators}
    accuracy = None if labels is None else Accuracy(labels, doc_ids)
    examples: list[Example] = []
    counts = artefact.counts["judge"] = Counts()
    reasons: dict[str, int] = {}
    notes = _notes(config, search)
    # The sampling of a verdict is fixed: it is a measurement.
    sampling = Greedy(max_new_tokens=ANSWER_TOKENS)

    def judge_shard(shard: Sequence[Document]) -> list[VerdictRow]:
        return judge(
            shard, indicators, engine, notes, batch_size=config.batch_size, sampling=sampling
        )

    chosen = itertools.islice(documents, config.max_records)
    for number, shard in enumerate(_shards(chosen, config.records_per_shard)):
        path = artefact.dir / "verdicts" / f"part-{number:05d}.parquet"
        grouped = _judge_once(path, shard, judge_shard)
        for document in shard:
            for indicator in indicators:
                rows = grouped[document.doc_id, indicator.id]
                case = classify(indicator, values(rows))
                measures[indicator.id].add(document, case)
                if accuracy:
                    accuracy.add(document, indicator, rows)
                for row in rows:
                    reasons[row.reason] = reasons.get(row.reason, 0) + 1
                if case.status != "excluded":
                    examples.append(
                        Example(document.doc_id, indicator.id, case.status, case.deciding, rows)
                    )
        examples = _trim(examples, config.max_examples)
        counts.rows_in += len(shard)
        counts.rows_out += len(shard)
        logger.info("quality: %d records judged", counts.rows_out)
    if not counts.rows_in:
        raise DataError("no records to judge; check which documents are given to quality control")
    artefact.metrics |= _metrics(list(measures.values()), reasons)
    if accuracy:
        summary = accuracy.metrics()
        _write_json(artefact.dir / "accuracy.json", summary)
        artefact.metrics |= {k: v for k, v in summary.items() if not isinstance(v, dict)}
    date = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    _write_json(artefact.dir / "measure_report.json", measure_reports(measures.values(), date))
    page = html_report(measures.values(), examples, date)
    (artefact.dir / "report.html").write_text(page, encoding="utf-8")
    return list(measures.values())


def _judge_once(
    path: Path, shard: Sequence[Document], judge_shard: Callable[[Sequence[Document]], Any]
) -> dict[tuple[str, str], list[VerdictRow]]:
    """The shard's verdicts by document and indicator: read if they are there, else judged."""
    if path.exists():
        rows = [VerdictRow.model_validate(row) for row in pq.read_table(path).to_pylist()]
        if {row.doc_id for row in rows} != {document.doc_id for document in shard}:
            raise DataError(f"{path} holds verdicts on other records; remove its directory")
        texts = {document.doc_id: document for document in shard}
        if not all(is_valid(row.evidence, texts[row.doc_id]) for row in rows if row.evidence):
            raise DataError(f"{path} quotes other texts of these records; remove its directory")
    else:
        rows = judge_shard(shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([r.model_dump() for r in rows], arrow_schema(VerdictRow))
        pq.write_table(table, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    grouped: dict[tuple[str, str], list[VerdictRow]] = {}
    for row in rows:
        grouped.setdefault((row.doc_id, row.indicator), []).append(row)
    return grouped


def _notes(config: QualityConfig, search: Search | None) -> Callable[[Indicator, str], list[str]]:
    """Looks a sub-task's knowledge up, once for all records."""
    found: dict[tuple[str, str], list[str]] = {}

    def notes(indicator: Indicator, task: str) -> list[str]:
        top_k = indicator.defaults.knowledge.top_k if config.top_k is None else config.top_k
        if search is None or top_k == 0:
            return []
        key = (indicator.id, task)
        if key not in found:
            passages = search.search_text(indicator.tasks[task].question, top_k)
            found[key] = [str(passage.text) for passage in passages]
        return found[key]

    return notes


def _metrics(measures: Sequence[Measure], reasons: Mapping[str, int]) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for measure in measures:
        name, tally = measure.indicator.id, measure.total
        metrics[f"quality/{name}/rate"] = tally.rate
        metrics[f"quality/{name}/wilson95"] = tally.interval
        metrics[f"quality/{name}/bounds"] = tally.bounds
        for status in ("met", "unmet", "unknown", "undetermined", "excluded"):
            metrics[f"quality/{name}/num_{status}"] = getattr(tally, status)
    return metrics | {f"quality/num_{reason}_verdicts": n for reason, n in sorted(reasons.items())}


def _trim(examples: list[Example], limit: int) -> list[Example]:
    """The first `limit` examples per indicator, those in doubt before those decided."""
    doubt = ("unknown", "undetermined", "unmet", "met")
    kept: list[Example] = []
    taken: dict[str, int] = {}
    for example in sorted(examples, key=lambda e: doubt.index(e.status)):
        taken[example.indicator] = taken.get(example.indicator, 0) + 1
        if taken[example.indicator] <= limit:
            kept.append(example)
    return kept


def _shards(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while shard := list(itertools.islice(iterator, size)):
        yield shard


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
