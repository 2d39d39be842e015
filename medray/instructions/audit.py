"""The audit sample: records that quality control judged, and its verdicts.

In: audit documents of the corpus, label sources. Out: (record, labels) pairs for fine-tuning;
quality/documents and quality/labels, the held-out part that verdicts are checked on.
"""

from collections.abc import Iterator

from medray.common.manifest import Counts
from medray.common.records import Document
from medray.common.rows import read_batches, read_rows, write_rows
from medray.common.split import split_of
from medray.common.spool import Spool, hash_key
from medray.instructions.quality import QualityLabel, flat_labels
from medray.instructions.raw import QualityLabels
from medray.instructions.step import Step


def record_documents(step: Step, *, audit: bool) -> Iterator[Document]:
    """Yields the de-identified records that are (not) of the audit sample, with their final split.

    A patient is held out if the corpus or the audit sample holds that patient out.
    """
    held_out = held_out_patients(step)
    sources = step.config.quality.document_sources
    for document in read_rows(step.corpus / "documents", Document):
        if document.kind == "emr" and (document.source in sources) == audit:
            if (document.patient_id or document.doc_id) in held_out:
                document = document.model_copy(update={"split": "dev"})
            yield document


def held_out_patients(step: Step) -> set[str]:
    """Patients with an audit record that is held out. Reads the columns that decide it only."""
    config = step.config.quality
    found: set[str] = set()
    for batch in read_batches(step.corpus / "documents"):
        for row in batch.select(["doc_id", "patient_id", "kind", "source", "split"]).to_pylist():
            if row["kind"] != "emr" or row["source"] not in config.document_sources:
                continue
            key = row["patient_id"] or row["doc_id"]
            split = row["split"]
            if config.dev_fraction is not None and split == "train":
                split = split_of(key, config.dev_fraction)
            if split == "dev":
                found.add(key)
    return found


def audit_pairs(step: Step, operator: str) -> Iterator[tuple[Document, QualityLabels]]:
    """Yields every label row with its record, in an order that the sources do not decide."""
    counts = step.counts[operator] = Counts()
    with Spool(step.directory) as spool:
        for document in record_documents(step, audit=True):
            spool.add(hash_key(document.doc_id), {"document": document.model_dump()})
        for labels in step.reader.rows(QualityLabels, "quality_label"):
            counts.rows_in += 1
            spool.add(hash_key(labels.record_id), {"labels": labels.model_dump()})
        for _, values in spool.groups():
            document = next((v["document"] for v in values if "document" in v), None)
            for value in values:
                if "labels" not in value:
                    continue
                if document is None:
                    counts.reject("record_not_in_corpus")
                    continue
                counts.rows_out += 1
                yield (
                    Document.model_validate(document),
                    QualityLabels.model_validate(value["labels"]),
                )


def make_quality(step: Step) -> None:
    """quality/documents and quality/labels: audit records of dev, and the verdicts on them."""
    held_out = (d for d in record_documents(step, audit=True) if d.split == "dev")
    documents = write_rows(step.directory / "quality" / "documents", Document, held_out)

    def labels() -> Iterator[QualityLabel]:
        for document, row in audit_pairs(step, "quality_labels"):
            if document.split == "dev":
                yield from flat_labels(row, "dev")

    verdicts = write_rows(step.directory / "quality" / "labels", QualityLabel, labels())
    step.metrics |= {"quality/dev_documents_rows": documents, "quality/dev_labels_rows": verdicts}
