"""The medical filter as a stage of the corpus. In: .prepared/. Out: .not_medical.parquet with
row numbers and reasons; medical/ with the filter and its figures.

It stands after de-identification, so that no name becomes a feature; after decontamination, so that
no question of an exam does; and after the duplicates, so that no text is held out from a filter
that was trained on its copy.
"""

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator
from tqdm import tqdm

from medray.common.config import Config
from medray.common.manifest import Counts, remove
from medray.common.split import unit_hash
from medray.corpus.duplicates.find import DROPPED, DROPPED_SCHEMA
from medray.corpus.duplicates.near import Documents
from medray.corpus.medical.classifier import MedicalClassifier
from medray.corpus.medical.train import Example, FilterTraining, train_classifier
from medray.corpus.prepared import prepared_table
from medray.corpus.sources import CorpusSource
from medray.corpus.stages import Outcome
from medray.corpus.tasks import in_tasks, max_tasks_of_cluster

NOT_MEDICAL, MEDICAL = ".not_medical.parquet", "medical"
METRICS = "metrics.json"
TASK_ROWS = 1_000


class MedicalFilterConfig(Config):
    """Which documents of sources with `medical: filter` are left out as not medical."""

    model: str = ""
    """A trained filter: the medical/ directory of another corpus. Give this or `train`."""
    train: FilterTraining | None = None
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Least probability of being medical, at equal shares of both. Source: not given; the least
    error at equal costs. medical/metrics.json lists what other thresholds let pass."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.model) == (self.train is not None):
            raise ValueError("needs either model, a trained filter, or train, its sources")
        return self

    @property
    def directory(self) -> Path:
        """Where the trained filter lies."""
        return Path(self.model).expanduser()


def check_filter(sources: list[CorpusSource], config: MedicalFilterConfig | None) -> None:
    """Raises ValueError if the sources do not fit the medical filter."""
    filtered = {source.name for source in sources if source.medical == "filter"}
    if filtered and config is None:
        raise ValueError(f"{', '.join(sorted(filtered))}: medical: filter needs medical_filter")
    if config is None or config.train is None:
        return
    general = {source.name for source in sources if source.general}
    trusted = {source.name for source in sources} - general - filtered
    for side, names, allowed in (
        ("medical", config.train.medical, trusted), ("general", config.train.general, general),
    ):  # fmt: skip
        if wrong := set(names) - allowed:
            raise ValueError(
                f"medical_filter.train.{side} may name {', '.join(sorted(allowed)) or 'no source'}"
                f"; not {', '.join(sorted(wrong))}"
            )


def filter_medical(
    target: Path,
    sources: list[CorpusSource],
    config: MedicalFilterConfig,
    max_tasks: int | None = None,
) -> Outcome:
    """Decides which prepared rows are left out as not medical; writes both below `target`.

    Metrics: the headline figures of a filter that was trained here, and of every filtered source
    how many documents have which probability, in tenths, and how many were not judged.
    Raises:
        DataError: if the sources hold too little to train on.
        CheckpointError: if `model` holds no filter.
    """
    table = prepared_table(target)
    gone = pq.read_table(target / DROPPED, columns=["row"]).column("row").to_numpy()
    is_left = table.column("reason").is_null().to_numpy()
    rows_N = np.setdiff1d(np.flatnonzero(is_left), gone)
    column = table.column("source").combine_chunks().dictionary_encode()
    place_N = column.indices.to_numpy()[rows_N]
    rows_of = {source.name: rows_N[:0] for source in sources} | {
        name: rows_N[place_N == place] for place, name in enumerate(column.dictionary.to_pylist())
    }
    classifier, metrics = _classifier(table, rows_of, config)
    _publish(classifier, metrics, target)
    judged = {s.name: rows_of[s.name] for s in sources if s.medical == "filter"}
    chosen_N = np.sort(np.concatenate([*judged.values(), rows_N[:0]]))
    documents = Documents(table.column("document"), texts_of, chosen_N)
    probabilities_N = _score(documents, classifier, max_tasks or max_tasks_of_cluster())
    out_N = chosen_N[probabilities_N < config.threshold]  # NaN, not judged, stays
    columns = [pa.array(out_N, pa.int64()), pa.array(["not_medical"] * len(out_N), pa.string())]
    temporary = target / f"{NOT_MEDICAL}.tmp"
    pq.write_table(pa.table(columns, schema=DROPPED_SCHEMA), temporary)
    temporary.replace(target / NOT_MEDICAL)
    counts = Counts(rows_in=len(rows_N), rows_out=len(rows_N) - len(out_N))
    if len(out_N):
        counts.reject("not_medical", len(out_N))
    return {"medical_filter": counts}, {
        "medical_filter": {
            **_headline(metrics),
            "probabilities": {
                name: _tenths(probabilities_N[np.isin(chosen_N, rows)])
                for name, rows in judged.items()
            },
        }
    }


def texts_of(column: pa.ChunkedArray) -> list[str]:
    """What is judged of each document: the texts of its sections.

    Titles and headings would tell a record by its form, and a crawled page by its lack of one.
    """
    return [
        "\n".join(section["text"] for section in values["sections"])
        for values in column.to_pylist()
    ]


def _classifier(
    table: pa.Table, rows_of: dict[str, np.ndarray], config: MedicalFilterConfig
) -> tuple[MedicalClassifier, dict[str, Any]]:
    """The filter and its figures, trained here or loaded."""
    if config.train is None:
        path = config.directory / METRICS
        metrics = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return MedicalClassifier.load(config.directory), metrics
    examples = []
    for names, is_medical in ((config.train.medical, True), (config.train.general, False)):
        max_chars = config.train.max_chars // len(names)
        for name in names:
            rows_N = rows_of[name]
            examples += _examples(table, rows_N, name, is_medical, config.train, max_chars)
    return train_classifier(examples, config.train, config.threshold)


def _examples(
    table: pa.Table,
    rows_N: np.ndarray,
    source: str,
    is_medical: bool,
    config: FilterTraining,
    max_chars: int,
) -> list[Example]:
    """Pieces of a source's documents, those of least hash, `max_chars` characters together."""
    columns = table.flatten().select(["document.patient_id", "doc_id", "digest", "chars"])
    keys = columns.take(pa.array(rows_N)).to_pylist()
    units = [key["document.patient_id"] or key["doc_id"] for key in keys]
    order = sorted(
        range(len(keys)), key=lambda i: (unit_hash(f"train/{units[i]}"), keys[i]["digest"])
    )
    chars = np.cumsum([min(keys[i]["chars"], config.piece_chars) for i in order])
    members = np.sort(np.array(order[: int((chars <= max_chars).sum())], np.int64))
    taken = Documents(table.column("document"), texts_of, rows_N).take(members)
    return [
        Example(_piece(text, units[i], config.piece_chars), is_medical, source, units[i])
        for i, text in zip(members.tolist(), texts_of(taken.column(0)), strict=True)
    ]


def _piece(text: str, unit: str, num_chars: int) -> str:
    start = int(unit_hash(f"piece/{unit}") * max(1, len(text) - num_chars + 1))
    return text[start : start + num_chars]


def _score(documents: Documents, classifier: MedicalClassifier, max_tasks: int) -> np.ndarray:
    """The probability of each of `documents`."""
    import ray

    shared = ray.put(classifier)
    firsts = range(0, len(documents), TASK_ROWS)
    calls = (
        (first, documents.take(np.arange(first, min(first + TASK_ROWS, len(documents)))), shared)
        for first in firsts
    )
    probabilities_N = np.zeros(len(documents))
    done = in_tasks(_probabilities, calls, max_tasks)
    for first, found in tqdm(done, desc="medical filter", total=len(firsts)):
        probabilities_N[first : first + len(found)] = found
    return probabilities_N


def _probabilities(
    first: int, table: pa.Table, classifier: MedicalClassifier
) -> tuple[int, np.ndarray]:
    """Worker: the probabilities of a batch."""
    return first, classifier.probabilities(texts_of(table.column(0)))


def _publish(classifier: MedicalClassifier, metrics: dict[str, Any], target: Path) -> None:
    """Writes medical/ below `target`, whole or not at all."""
    directory = target / f".{MEDICAL}"
    remove(directory)
    classifier.save(directory)
    (directory / METRICS).write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    remove(target / MEDICAL)
    directory.replace(target / MEDICAL)


def _headline(metrics: dict[str, Any]) -> dict[str, Any]:
    held_out = metrics.get("held_out", {})
    return {name: held_out[name] for name in ("auc", "precision", "recall") if name in held_out}


def _tenths(probabilities_N: np.ndarray) -> dict[str, Any]:
    judged_N = probabilities_N[~np.isnan(probabilities_N)]
    tenths = np.minimum((judged_N * 10).astype(int), 9)
    return {
        "tenths": np.bincount(tenths, minlength=10).tolist(),
        "not_judged": len(probabilities_N) - len(judged_N),
    }
