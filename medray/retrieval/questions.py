"""Questions and the passages that answer them. In: instructions, the passages of a corpus or of an
index. Out: those to train on, those that are held out.
"""

import heapq
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medray.common.errors import DataError
from medray.common.manifest import Counts
from medray.common.records import RetrievalQuestion
from medray.common.rows import read_rows
from medray.common.split import Split, unit_hash


def load_passages(directory: Path) -> pa.Table:
    """Reads id, title and text of all passages; Arrow keeps them compact.

    Raises:
        DataError: if there are none.
    """
    paths = sorted(directory.glob("*.parquet"))
    if not paths:
        raise DataError(f"no Parquet shards in {directory}; run the corpus job first")
    columns = ["passage_id", "title", "text"]
    table = pa.concat_tables([pq.read_table(path, columns=columns) for path in paths])
    return table.combine_chunks()


def load_questions(directory: Path, passages: pa.Table) -> list[tuple[str, list[int]]]:
    """Returns the training questions with the rows of their passages; others are left out."""
    row_of = {name: row for row, name in enumerate(passages["passage_id"].to_pylist())}
    questions = []
    for question in read_rows(directory, RetrievalQuestion):
        gold = [row_of[name] for name in question.passage_ids if name in row_of]
        if question.split == "train" and gold:
            questions.append((question.question, gold))
    return questions


def questions_of(directory: Path, split: Split, most: int) -> list[str]:
    """At most `most` questions of a split, chosen by the hash of their ids."""
    rows = (row for row in read_rows(directory, RetrievalQuestion) if row.split == split)
    chosen = heapq.nsmallest(most, rows, key=lambda row: (unit_hash(row.id), row.id))
    return [row.question for row in chosen]


def held_out_questions(
    directory: Path, known: set[str], most: int
) -> tuple[list[RetrievalQuestion], Counts]:
    """Questions of split dev in id order. One whose passages are not all indexed is left out and
    counted."""
    counts, asked = Counts(), []
    for question in sorted(read_rows(directory, RetrievalQuestion), key=lambda row: row.id):
        counts.rows_in += 1
        if question.split != "dev":
            counts.reject("split_train")
        elif not known.issuperset(question.passage_ids):
            counts.reject("passage_not_indexed")
        elif len(asked) == most:
            counts.reject("beyond_max_questions")
        else:
            asked.append(question)
            counts.rows_out += 1
    return asked, counts
