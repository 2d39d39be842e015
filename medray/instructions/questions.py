"""Questions for retrieval. In: raw questions and the corpus's passages. Out: `RetrievalQuestion`s,
whose gold are passage ids.

A gold document that the corpus dropped (a duplicate, a rejected row) leaves its question without
answer: it is skipped and counted.
"""

from collections.abc import Iterable
from pathlib import Path

from medray.common.records import RetrievalQuestion
from medray.common.rows import read_batches
from medray.common.split import Split
from medray.instructions.examples import Mask, Skipped
from medray.instructions.raw import Question

PassageIds = dict[str, list[tuple[str, str]]]
"""Document → (section, passage id), in the order of the corpus."""


def gold_documents(row: Question) -> list[str]:
    """The documents that a question names."""
    return [*([row.doc_id] if row.doc_id else []), *row.doc_ids]


def find_passages(directory: Path, doc_ids: Iterable[str]) -> PassageIds:
    """Looks up the passages of `doc_ids`; keeps ids only, so memory grows with the questions."""
    wanted = set(doc_ids)
    found: PassageIds = {}
    for batch in read_batches(directory):
        columns = (batch.column(name).to_pylist() for name in ("doc_id", "section", "passage_id"))
        for doc_id, section, passage_id in zip(*columns, strict=True):
            if doc_id in wanted:
                found.setdefault(doc_id, []).append((section, passage_id))
    return found


def retrieval_question(
    row: Question, split: Split, mask: Mask, passages: PassageIds
) -> RetrievalQuestion | Skipped:
    """Resolves a question's gold to passage ids."""
    documents = gold_documents(row)
    if not documents:
        return Skipped("no_gold")
    found = [entry for doc_id in documents for entry in passages.get(doc_id, [])]
    if not found:
        return Skipped("gold_not_in_corpus")
    ids = [passage for section, passage in found if not row.section or section == row.section]
    if not ids:
        return Skipped("section_not_in_corpus")
    return RetrievalQuestion(
        id=row.id, question=mask(row.question).strip(), passage_ids=ids, split=split
    )
