"""Writes the sample hospital: a directory of synthetic records, knowledge and known truth.

In: `SampleConfig`. Out: the hospital directory. Every row depends on (seed, row number) alone, so
shards can be written by any number of workers, in any order, and the bytes are the same.
Source: issue 2, "The sample hospital".
"""

import json
from collections.abc import Callable, Iterator
from math import ceil, sqrt
from pathlib import Path
from typing import Any

from pydantic import Field

from medray.common.config import Config
from medray.sample import consult, grounded, literature
from medray.sample.audit import write_audit
from medray.sample.bayes import posterior_D
from medray.sample.identity import draw_hospital
from medray.sample.model import Model, shipped_model
from medray.sample.patient import draw_patient
from medray.sample.record import RecordWriter, Written
from medray.sample.sampler import Sampler
from medray.sample.shards import dump, open_rows, write_rows
from medray.sample.text import Speller

Progress = Callable[[int], None]


class SampleConfig(Config):
    """The synthetic hospital."""

    num_records: int = Field(default=2000, ge=100, le=1_000_000)
    """Records, one visit each; the other files grow with it."""
    seed: int = 7
    """Everything follows from it."""
    shard_records: int = Field(default=1000, ge=1)
    """Records a file, and a task. Source: not given; 1 000 records are about one second's work."""
    misspelling_rate: float = Field(default=0.01, ge=0, lt=0.5)
    """Chance of each character that has a usual misspelling to be misspelt. Source: not given;
    0.01 is about one misspelling in four records."""
    missing_rate: float = Field(default=0.06, ge=0, lt=1)
    """Chance of each section but the diagnosis, and of each single field, to be missing.
    Source: not given; 0.06 leaves out about two sections in five records."""
    routine_rate: float = Field(default=1.0, ge=0, le=1)
    """Chance of each routine entry (pertinent negatives, course, allergies, vital signs) to be
    written. Source: not given; below 1 gives the short records of a busy ward."""
    audit_fraction: float = Field(default=0.25, gt=0, le=10)
    """Audit records, as a share of `num_records`."""
    max_audit_records: int = Field(default=20_000, ge=1)
    """Quality control reads records by hand: the audit sample stops growing here."""
    dialogue_fraction: float = Field(default=0.25, ge=0, le=1)
    """Dialogues, as a share of `num_records`."""
    consultation_fraction: float = Field(default=1.0, ge=0, le=10)
    """Consultations, and as many scored answers, as a share of `num_records`."""
    preference_fraction: float = Field(default=0.5, ge=0, le=10)
    """Preference pairs, and as many scenarios, as a share of `num_records`."""
    grounded_fraction: float = Field(default=1.0, ge=0, le=10)
    """Grounded examples, as a share of `num_records`; at most 20 000."""

    @property
    def num_audit_records(self) -> int:
        """Records of the audit sample."""
        return min(ceil(self.num_records * self.audit_fraction), self.max_audit_records)


def num_shards(config: SampleConfig) -> int:
    """Files that the records fill."""
    return ceil(config.num_records / config.shard_records)


def num_audit_shards(config: SampleConfig) -> int:
    """Files that the audit records fill."""
    return ceil(config.num_audit_records / config.shard_records)


def write_shard(config: SampleConfig, directory: Path, shard: int) -> dict[str, Any]:
    """Writes records/part-NNNNN and truth/records-NNNNN; returns sums for `summarise`."""
    model = shipped_model()
    speller = Speller(model.knowledge.misspellings, config.misspelling_rate)
    first = shard * config.shard_records
    last = min(first + config.shard_records, config.num_records)
    sums: dict[str, Any] = {
        "shard": shard,
        "rows": last - first,
        "chars": 0,
        "nll_nats": 0.0,
        "departments": {},
    }
    with (
        open_rows(directory / "records" / f"part-{shard:05d}.jsonl.gz") as records,
        open_rows(directory / "truth" / f"records-{shard:05d}.jsonl.gz") as truths,
    ):
        for number in range(first, last):
            record, truth = make_record(config, model, speller, number)
            records.write(dump(record))
            truths.write(dump(truth))
            _add(sums, record, truth)
    sums["eligible_characters"] = speller.num_eligible
    sums["misspelt_characters"] = speller.num_changed
    return sums


def make_record(
    config: SampleConfig, model: Model, speller: Speller, number: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Record and truth of one number."""
    sampler = Sampler(f"{config.seed}:record:{number}")
    patient = draw_patient(model, sampler.rng)
    hospital = draw_hospital(sampler.free)
    writer = RecordWriter(
        model, patient, sampler, speller, hospital, config.missing_rate, config.routine_rate
    )
    written = writer.write()
    disease = patient.info(model)
    posterior = posterior_D(model, written.evidence)
    record_id = f"R{number:07d}"
    truth = {
        "record_id": record_id,
        "disease": disease.name,
        "icd10": disease.icd10,
        "department": disease.department,
        "posterior_max": float(posterior.max()),
        "bayes_disease": model.knowledge.diseases[int(posterior.argmax())].name,
        "nll_nats": written.nll_nats,
        "phi": written.phi,
    }
    return record_row(record_id, disease.department, written), truth


def record_row(record_id: str, department: str, written: Written) -> dict[str, Any]:
    """A record as the hospital exports it. The patient's number follows from the record's."""
    return {
        "record_id": record_id,
        "patient_id": f"P{record_id}",
        "visit_id": f"V{record_id}",
        "hospital": written.identity.hospital,
        "department": department,
        "visit_date": written.identity.admitted.isoformat(),
        "sections": written.sections,
    }


def write_audit_shard(config: SampleConfig, directory: Path, shard: int) -> int:
    """Writes audit_records/part-NNNNN and their truth; returns the number of rows.

    The labels are in quality_labels, which `write_knowledge` writes.
    """
    model = shipped_model()
    first = shard * config.shard_records
    last = min(first + config.shard_records, config.num_audit_records)
    records = directory / "audit_records" / f"part-{shard:05d}.jsonl.gz"
    truths = directory / "truth" / f"audit_records-{shard:05d}.jsonl.gz"
    with open_rows(records) as rows, open_rows(truths) as truth_rows:
        for number in range(first, last):
            record, _, truth = make_audit(config, model, number)
            rows.write(dump(record))
            truth_rows.write(dump(truth))
    return last - first


def make_audit(
    config: SampleConfig, model: Model, number: int
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Audit record, labels and truth of one number."""
    speller = Speller(model.knowledge.misspellings, config.misspelling_rate)
    key = f"{config.seed}:audit:{number}"
    hospital = draw_hospital(Sampler(f"{key}:hospital").free)
    written, labels, name = write_audit(model, key, speller, hospital, config.routine_rate)
    disease = model.knowledge.disease(name)
    record_id = f"A{number:07d}"
    truth = {
        "record_id": record_id,
        "disease": name,
        "icd10": disease.icd10,
        "department": disease.department,
        "phi": written.phi,
    }
    record = record_row(record_id, disease.department, written)
    return record, {"record_id": record_id, **labels}, truth


def write_knowledge(config: SampleConfig, directory: Path) -> dict[str, int]:
    """Writes everything but records and hospital.json; returns the rows of each file."""
    model, seed, n = shipped_model(), config.seed, config.num_records
    knowledge = model.knowledge
    num_consultations = ceil(n * config.consultation_fraction)
    num_preferences = ceil(n * config.preference_fraction)
    files: dict[str, Iterator[dict[str, Any]]] = {
        "literature": literature.documents(model, seed, n),
        "triples": literature.triples(knowledge),
        "exam": literature.exam(knowledge, seed),
        "questions": literature.questions(knowledge),
        "grounded": grounded.grounded(knowledge, seed, ceil(n * config.grounded_fraction)),
        "dialogues": consult.dialogues(model, seed, ceil(n * config.dialogue_fraction)),
        "consultations": consult.consultations(model, seed, num_consultations),
        "scores": consult.scores(model, seed, num_consultations),
        "preferences": consult.preferences(model, seed, num_preferences),
        "quality_labels": (
            make_audit(config, model, i)[1] for i in range(config.num_audit_records)
        ),
    }
    rows = {name: write_rows(directory / f"{name}.jsonl.gz", it) for name, it in files.items()}
    with (
        open_rows(directory / "scenarios.jsonl.gz") as prompts,
        open_rows(directory / "truth" / "scenarios.jsonl.gz") as truths,
    ):
        for row, truth in consult.scenarios(model, seed, num_preferences):
            prompts.write(dump(row))
            truths.write(dump(truth))
    audit = [write_audit_shard(config, directory, k) for k in range(num_audit_shards(config))]
    return rows | {"scenarios": num_preferences, "audit_records": sum(audit)}


def summarise(config: SampleConfig, shards: list[dict[str, Any]]) -> dict[str, Any]:
    """What hospital.json holds, from the sums of all shards.

    `ceiling` is the mean of the largest posterior: the expected accuracy of the best reader.
    `bayes_accuracy` is how often the posterior's first disease was right on these records.
    """
    departments: dict[str, dict[str, float]] = {}
    for shard in sorted(shards, key=lambda s: s["shard"]):  # order fixes the rounding of sums
        for name, sums in shard["departments"].items():
            total = departments.setdefault(name, dict.fromkeys(sums, 0.0))
            for key, value in sums.items():
                total[key] += value
    n = sum(s["rows"] for s in shards)
    total = {k: sum(d[k] for d in departments.values()) for k in ("max", "max_squared", "right")}
    ceiling = total["max"] / n
    model = shipped_model()
    return {
        "n": n,
        "seed": config.seed,
        "ceiling": ceiling,
        "ceiling_se": sqrt(max(total["max_squared"] / n - ceiling**2, 0.0) / n),
        "bayes_accuracy": total["right"] / n,
        "departments": {
            name: {
                "n": int(d["n"]),
                "ceiling": d["max"] / d["n"],
                "bayes_accuracy": d["right"] / d["n"],
            }
            for name, d in sorted(departments.items())
        },
        "diseases": len(model.knowledge.diseases),
        "mean_chars": sum(s["chars"] for s in shards) / n,
        "mean_nll_nats": sum(s["nll_nats"] for s in shards) / n,
        "eligible_characters": sum(s["eligible_characters"] for s in shards),
        "misspelt_characters": sum(s["misspelt_characters"] for s in shards),
        "config": config.model_dump(mode="json"),
    }


def write_summary(
    config: SampleConfig, directory: Path, shards: list[dict[str, Any]]
) -> dict[str, Any]:
    """Writes hospital.json."""
    summary = summarise(config, shards)
    text = json.dumps(summary, ensure_ascii=False, indent=1)
    (directory / "hospital.json").write_text(text + "\n", encoding="utf-8")
    return summary


def write_hospital(
    config: SampleConfig, directory: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Writes the whole hospital in this process; returns what hospital.json holds.

    Args:
        progress: called with the number of records after each shard.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shards = []
    for shard in range(num_shards(config)):
        shards.append(write_shard(config, directory, shard))
        if progress:
            progress(shards[-1]["rows"])
    write_knowledge(config, directory)
    return write_summary(config, directory, shards)


def _add(sums: dict[str, Any], record: dict[str, Any], truth: dict[str, Any]) -> None:
    sums["chars"] += sum(len(s["text"]) for s in record["sections"] if s["heading"] != "患者信息")
    sums["nll_nats"] += truth["nll_nats"]
    department = sums["departments"].setdefault(
        truth["department"], {"n": 0, "max": 0.0, "max_squared": 0.0, "right": 0}
    )
    department["n"] += 1
    department["max"] += truth["posterior_max"]
    department["max_squared"] += truth["posterior_max"] ** 2
    department["right"] += truth["bayes_disease"] == truth["disease"]
