"""Questions with what would be right. A part of rag_gain.py.

In: a finished pipeline, or public sets and an encoder. Out: held-out questions, reference answers,
the passages that answer; for the public ones an index of their own.
"""

import gzip
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rag_scores import Case

from medray.common.records import Instruction, Passage
from medray.common.rows import arrow_schema, read_rows
from medray.retrieval.directory import INFO, build_lexical, save_lexical
from medray.retrieval.embed import Embedder
from medray.retrieval.lexical import LexicalConfig
from medray.retrieval.measure import Asked, calibrated_threshold, measured_weights, split_for_tuning
from medray.retrieval.questions import held_out_questions
from medray.retrieval.search import Searcher
from medray.retrieval.sparse import COLUMN, weights_column
from medray.serving.artefacts import newest

HELD_OUT = 2000
"""Questions that the index job asks (`index.max_questions`)."""


def facts(root: str, index: Path, most: int) -> list[Case]:
    """Held-out questions that did not tune the index."""
    directory = newest(root, ("instructions",), part="questions").fetch()
    table = pq.read_table(index / "passages", columns=["passage_id", "doc_id", "text"])
    passages = {row["passage_id"]: row for row in table.to_pylist()}
    rows, _ = held_out_questions(directory, {*passages}, HELD_OUT)
    asked = Asked(
        [r.question for r in rows], [r.passage_ids for r in rows], np.zeros((len(rows), 1))
    )
    rest = split_for_tuning(asked)[1]
    return [
        Case(
            question,
            [passages[name]["text"].split("。")[0] for name in gold],
            gold,
            frozenset(passages[name]["doc_id"] for name in gold),
        )
        for question, gold in islice(zip(rest.texts, rest.gold, strict=True), most)
    ]


def scenarios(root: str, task: str, most: int) -> list[Case]:
    """Held-out fine-tuning rows of a task that is asked without passages."""
    directory = newest(root, ("instructions",), part="sft").fetch()
    rows = sorted(read_rows(directory, Instruction), key=lambda row: row.id)
    held_out = (row for row in rows if row.split == "dev" and row.task == task)
    return [
        Case(row.messages[0].content, [row.messages[-1].content]) for row in islice(held_out, most)
    ]


def write_public(data: Path, directory: Path, embedder: Embedder, num: int) -> None:
    """An index of doctors' answers."""
    rows = list(islice(lines(data / "retrieval_zh" / "corpus.jsonl.gz"), num))
    passages = [
        Passage(
            passage_id=row["aid"], doc_id=row["aid"], start=0, end=len(row["text"]), section="",
            title="", text=row["text"], kind="encyclopaedic",
        ).model_dump()
        for row in rows
    ]  # fmt: skip
    vectors_ND, weights_N = embedder.encode([row["text"] for row in rows])
    column = pa.FixedSizeListArray.from_arrays(vectors_ND.ravel(), embedder.dim)
    table = pa.Table.from_pylist(passages, schema=arrow_schema(Passage))
    table = table.append_column("vector", column)
    if weights_N:
        table = table.append_column(COLUMN, weights_column(weights_N))
    (directory / "passages").mkdir()
    pq.write_table(table, directory / "passages" / "part-00000.parquet")
    save_lexical(directory, build_lexical(directory / "passages", LexicalConfig()))
    (directory / INFO).write_text(json.dumps({"uri": "", "config": {}}), encoding="utf-8")


def public(
    data: Path, directory: Path, embedder: Embedder, searcher: Searcher, most: int
) -> list[Case]:
    """Held-out questions of patients; as many more set the index' weight and threshold."""
    table = pq.read_table(directory / "passages", columns=["passage_id", "text"])
    texts = dict(zip(*(table[name].to_pylist() for name in table.schema.names), strict=True))
    rows = [
        row for row in lines(data / "retrieval_zh" / "queries.jsonl.gz")
        if row["split"] == "dev" and texts.keys() >= {*row["gold"]}
    ][: 2 * most]  # fmt: skip
    questions = [row["query"] for row in rows]
    asked = Asked.of(questions, [row["gold"] for row in rows], embedder.encode_queries(questions))
    tuning, rest = split_for_tuning(asked)
    searcher.hybrid = measured_weights(searcher, tuning)
    searcher.min_cosine = calibrated_threshold(searcher, tuning).min_cosine
    return [
        Case(question, [texts[name] for name in gold], gold, frozenset(gold))
        for question, gold in zip(rest.texts, rest.gold, strict=True)
    ]


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a compressed file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)
