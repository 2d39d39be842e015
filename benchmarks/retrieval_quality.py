"""Retrieval on public questions: BM25, an encoder before and after its contrastive training, and
both as the search fuses them.

The value is nDCG@10 of the whole search over that of the best BM25, the mean of the sets. Questions
of split dev are asked, at most --questions of each set: half choose the weight of the two rankings,
every figure is of the others. An index is built in Parquet and searched as the service does, by
Milvus Lite. --data DIR holds retrieval_zh and retrieval_en as the README lays them out; --encoder
DIR is an encoder artefact (`model/`, and `mlm/` for before), of `medray run encoder`. Without an
encoder the rows of BM25 stand alone, and there is no value.
"""

import argparse
import gzip
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bm25s import BM25
from frame import print_result

from medray.common.records import Passage
from medray.common.rows import arrow_schema
from medray.common.split import unit_hash
from medray.corpus.terms.words import Segmenter
from medray.retrieval.embed import Embedder
from medray.retrieval.lexical import LexicalConfig
from medray.retrieval.measure import (
    Asked,
    index_figures,
    measured_weight,
    split_for_tuning,
)
from medray.retrieval.recall import retrieval_metrics
from medray.retrieval.search import INFO, HybridConfig, open_index
from medray.retrieval.terms import lexical_terms

DEV = 0.2
"""Share of the English questions, which come without a split, by hash."""
Set = tuple[list[tuple[str, str]], list[tuple[str, list[str]]]]
"""(id, text) of passages; (question, ids of its passages)."""


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a compressed file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def chinese(data: Path) -> Set:
    """Questions of patients, answers of doctors."""
    passages = [(row["aid"], row["text"]) for row in lines(data / "retrieval_zh/corpus.jsonl.gz")]
    rows = lines(data / "retrieval_zh" / "queries.jsonl.gz")
    return passages, [(row["query"], row["gold"]) for row in rows if row["split"] == "dev"]


def english(data: Path) -> Set:
    """Questions and answers of NIH pages; a text that repeats is one passage."""
    rows = list(lines(data / "retrieval_en" / "medquad.jsonl.gz"))
    ids = {row["answer"]: row["id"] for row in rows}
    asked = [row for row in rows if unit_hash(row["id"]) < DEV]
    passages = [(name, text) for text, name in ids.items()]
    return passages, [(row["question"], [ids[row["answer"]]]) for row in asked]


SETS: dict[str, Callable[[Path], Set]] = {"zh": chinese, "en": english}


def bm25(cut: Callable[[str], list[str]], passages: list[tuple[str, str]], asked: Asked) -> Any:
    """Figures of BM25 with words cut in another way."""
    config = LexicalConfig()
    index = BM25(method="lucene", k1=config.k1, b=config.b)
    index.index([cut(text) for _, text in passages], show_progress=False)
    names, ranked = [name for name, _ in passages], []
    for question in asked.texts:
        scores_N = index.get_scores_from_ids(index.get_tokens_ids(cut(question)))
        ranked.append([names[i] for i in np.argsort(-scores_N, kind="stable")[:10]])
    return retrieval_metrics(ranked, asked.gold)


def searched(encoder: Path, passages: list[tuple[str, str]], asked: Asked) -> dict[str, Any]:
    """Figures of the search with an encoder."""
    embedder = Embedder(encoder)
    vectors_ND = embedder.embed([text for _, text in passages])
    tuning, rest = split_for_tuning(asked._replace(vectors_QD=embedder.embed_queries(asked.texts)))
    rows = [
        Passage(
            passage_id=name, doc_id=name, start=0, end=len(text), section="", title="", text=text,
            kind="encyclopaedic",
        ).model_dump()
        for name, text in passages
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=arrow_schema(Passage))
    column = pa.FixedSizeListArray.from_arrays(vectors_ND.ravel(), vectors_ND.shape[1])
    table = table.append_column("vector", column)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        (directory / "passages").mkdir()
        pq.write_table(table, directory / "passages" / "part-00000.parquet")
        (directory / INFO).write_text(json.dumps({"uri": "", "config": {}}))
        with open_index(directory) as searcher:
            searcher.hybrid = HybridConfig(dense_weight=measured_weight(searcher, tuning))
            weight = {"dense_weight": searcher.hybrid.dense_weight}
            return weight | index_figures(searcher, rest, table)


def main() -> int:
    """Prints the result line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="directory of the public sets")
    parser.add_argument("--encoder", type=Path, help="an encoder artefact")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--questions", type=int, default=2000, help="of each set")
    parser.add_argument("--quick", action="store_true", help="200 questions of each")
    arguments = parser.parse_args()
    most = 200 if arguments.quick else arguments.questions
    segmenter = Segmenter()
    cuts = {"jieba": segmenter.words, "characters and pairs": lexical_terms}
    ours: dict[str, Any] = {}
    ratios, num = [], 0
    for name in arguments.sets:
        started = time.monotonic()
        passages, questions = SETS[name](arguments.data)
        questions = list(islice(questions, most))
        texts, gold = [text for text, _ in questions], [ids for _, ids in questions]
        asked = Asked(texts, gold, np.zeros((len(texts), 1)))
        rest = split_for_tuning(asked)[1]
        found: dict[str, Any] = {f"BM25, {cut}": bm25(cuts[cut], passages, rest) for cut in cuts}
        best = max(row["ndcg@10"] for row in found.values())
        if arguments.encoder:
            for moment, part in (("before", "mlm"), ("after", "model")):
                found[moment] = searched(arguments.encoder / part, passages, asked)
            ratios.append(found["after"]["ndcg@10"] / best)
        num += len(rest.texts)
        ours[name] = {"passages": len(passages), "questions": len(rest.texts), **found}
        sys.stderr.write(f"{name}: {time.monotonic() - started:.0f} s\n")
    print_result(
        "retrieval_quality",
        round(float(np.mean(ratios)), 4) if ratios else None,
        unit="nDCG@10 of the search / of the best BM25",
        goal=">= 1.15",
        ours=ours,
        other=None,
        n=num,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
