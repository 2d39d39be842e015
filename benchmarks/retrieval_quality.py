"""Retrieval on public questions: BM25, words with learned weights, an encoder before and after its
contrastive training, and both as the search fuses them.

The value is nDCG@10 of the whole search over that of the best BM25, the mean of the sets. Questions
of split dev are asked, at most --questions of each set: half choose the weights of the rankings,
every figure is of the others. An index is built in Parquet and searched as the service does, by
Milvus Lite. --data DIR holds retrieval_zh and retrieval_en as the README lays them out. --train N
trains the small encoder of the default settings on each set's passages and training questions, N
steps contrastively, on a Ray cluster of its own; --encoder DIR takes an encoder artefact instead
(`model/`, and `mlm/` for before), of `medray run encoder`. Without either the rows of words stand
alone, and there is no value. --rerank N trains a reranker as well, N steps from the encoder before
its contrastive training, and the value is of the search with it.
"""

import gzip
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bm25s import BM25
from frame import argument_parser, print_result

from medray.common.manifest import Artefact
from medray.common.records import Document, Passage, RetrievalQuestion
from medray.common.rows import arrow_schema, write_rows
from medray.common.split import unit_hash
from medray.common.storage import Storage, StorageConfig
from medray.corpus.terms.words import Segmenter
from medray.retrieval.directory import INFO, build_lexical, save_lexical, save_sparse
from medray.retrieval.embed import Embedder
from medray.retrieval.lexical import LexicalConfig, LexicalIndex
from medray.retrieval.measure import (
    Asked,
    index_figures,
    measured_weights,
    split_for_tuning,
)
from medray.retrieval.recall import retrieval_metrics
from medray.retrieval.search import open_index
from medray.retrieval.sparse import COLUMN, weights_column
from medray.retrieval.term_weights import TermWeightsConfig, learn_term_weights
from medray.retrieval.terms import lexical_terms
from medray.retrieval.training.encoder import train_encoder
from medray.retrieval.training.encoder_model import EncoderConfig
from medray.retrieval.training.reranker import RerankerConfig, train_reranker

DEV = 0.2
"""Share of the English questions, which come without a split, by hash."""
SHORT = {"max_tokens": 128}
"""Of question and passage together, for two cores."""
Questions = list[tuple[str, list[str]]]
"""(question, ids of its passages)."""


class Set(NamedTuple):
    """A corpus that questions are asked of."""

    passages: list[tuple[str, str]]
    """(id, text)."""
    train: Questions
    dev: Questions


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a compressed file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def chinese(data: Path) -> Set:
    """Questions of patients, answers of doctors."""
    passages = [(row["aid"], row["text"]) for row in lines(data / "retrieval_zh/corpus.jsonl.gz")]
    train, dev = [], []
    for row in lines(data / "retrieval_zh" / "queries.jsonl.gz"):
        (dev if row["split"] == "dev" else train).append((row["query"], row["gold"]))
    return Set(passages, train, dev)


def english(data: Path) -> Set:
    """Questions and answers of NIH pages; a text that repeats is one passage."""
    rows = list(lines(data / "retrieval_en" / "medquad.jsonl.gz"))
    ids = {row["answer"]: row["id"] for row in rows}
    train, dev = [], []
    for row in rows:
        pair = row["question"], [ids[row["answer"]]]
        (dev if unit_hash(row["id"]) < DEV else train).append(pair)
    return Set([(name, text) for text, name in ids.items()], train, dev)


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


def passages_table(passages: list[tuple[str, str]]) -> pa.Table:
    """As the corpus job writes them."""
    rows = [
        Passage(
            passage_id=name, doc_id=name, start=0, end=len(text), section="", title="", text=text,
            kind="encyclopaedic",
        ).model_dump()
        for name, text in passages
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=arrow_schema(Passage))


def trained(given: Set, steps: int, scratch: Path) -> Path:
    """The artefact of an encoder that learned from this set's passages and training questions."""
    write_rows(scratch / "documents", Document, [])
    (scratch / "passages").mkdir()
    pq.write_table(passages_table(given.passages), scratch / "passages" / "part-00000.parquet")
    rows = [
        RetrievalQuestion(id=str(i), question=text, passage_ids=gold, split="train")
        for i, (text, gold) in enumerate(given.train)
    ]
    write_rows(scratch / "questions", RetrievalQuestion, rows)
    config = EncoderConfig()
    learning = config.contrastive.model_copy(update={"steps": steps})
    config = config.model_copy(update={"contrastive": learning})
    storage = Storage(StorageConfig(root=str(scratch / "storage")))
    artefact = Artefact(storage, "encoder", config, key="k")
    train_encoder(config, scratch, scratch, artefact)
    return artefact.dir


def searched(
    encoder: Path, given: Set, weights_V: np.ndarray | None, asked: Asked, directory: Path
) -> Any:
    """Figures of the search with an encoder, by an index that is written to `directory`."""
    embedder = Embedder(encoder)
    asked = Asked.of(asked.texts, asked.gold, embedder.encode_queries(asked.texts))
    tuning, rest = split_for_tuning(asked)
    vectors_ND, weights_N = embedder.encode([text for _, text in given.passages])
    column = pa.FixedSizeListArray.from_arrays(vectors_ND.ravel(), vectors_ND.shape[1])
    table = passages_table(given.passages).append_column("vector", column)
    if weights_N:
        table = table.append_column(COLUMN, weights_column(weights_N))
    (directory / "passages").mkdir(parents=True)
    pq.write_table(table, directory / "passages" / "part-00000.parquet")
    info: dict[str, Any] = {"uri": "", "config": {}}
    (directory / INFO).write_text(json.dumps(info))
    lexical = build_lexical(directory / "passages", LexicalConfig())
    lexical.weights_V = weights_V
    save_lexical(directory, lexical)
    save_sparse(directory)
    with open_index(directory) as searcher:
        searcher.hybrid = measured_weights(searcher, tuning)
        (directory / INFO).write_text(json.dumps(info | {"hybrid": searcher.hybrid.model_dump()}))
        weights = searcher.hybrid.model_dump(include={"dense_weight", "sparse_weight"})
        return weights | index_figures(searcher, rest, table)


def reranked(
    encoder: Path, index: Path, given: Set, asked: Asked, steps: int, scratch: Path
) -> dict[str, float]:
    """Figures of the search by `index` with a reranker that learned from the training questions."""
    rows = [
        RetrievalQuestion(id=f"train-{i}", question=text, passage_ids=gold, split="train")
        for i, (text, gold) in enumerate(given.train)
    ] + [  # in this order, so that the same half of them is measured
        RetrievalQuestion(id=f"dev-{i:06}", question=text, passage_ids=gold, split="dev")
        for i, (text, gold) in enumerate(zip(asked.texts, asked.gold, strict=True))
    ]
    write_rows(scratch / "questions", RetrievalQuestion, rows)
    config = RerankerConfig(steps=steps, max_held_out=len(asked.texts))
    config = config.model_copy(update={"groups": config.groups.model_copy(update=SHORT)})
    artefact = Artefact(
        Storage(StorageConfig(root=str(scratch / "storage"))), "reranker", config, key="k"
    )
    train_reranker(config, encoder, index, scratch / "questions", artefact)
    return artefact.metrics


def learned(given: Set) -> np.ndarray | None:
    """Weights of the terms, in the order of an index of these passages."""
    index = LexicalIndex.build((text for _, text in given.passages), LexicalConfig())
    row_of = {name: row for row, (name, _) in enumerate(given.passages)}
    questions = [
        (text, [row_of[name] for name in gold if name in row_of]) for text, gold in given.train
    ]
    return learn_term_weights(index, [one for one in questions if one[1]], TermWeightsConfig())


def words(given: Set, weights_V: np.ndarray | None, asked: Asked) -> dict[str, float]:
    """Figures of the words alone."""
    index = LexicalIndex.build((text for _, text in given.passages), LexicalConfig())
    index.weights_V = weights_V
    names = [name for name, _ in given.passages]
    ranked = [
        [names[i] for i in np.argsort(-index.scores(text), kind="stable")[:10]]
        for text in asked.texts
    ]
    return retrieval_metrics(ranked, asked.gold)


def main() -> int:
    """Prints the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory of the public sets")
    encoders = parser.add_mutually_exclusive_group()
    encoders.add_argument("--encoder", type=Path, help="an encoder artefact")
    encoders.add_argument("--train", type=int, metavar="N", help="steps of a small encoder")
    parser.add_argument("--rerank", type=int, metavar="N", help="steps of a reranker")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--questions", type=int, default=2000, help="of each set")
    parser.add_argument("--quick", action="store_true", help="200 questions of each")
    arguments = parser.parse_args()
    if arguments.rerank is not None and not (arguments.encoder or arguments.train is not None):
        parser.error("--rerank starts from an encoder: give --encoder or --train too")
    most = 200 if arguments.quick else arguments.questions
    segmenter = Segmenter()
    cuts = {"jieba": segmenter.words, "characters and pairs": lexical_terms}
    ours: dict[str, Any] = {}
    ratios, num = [], 0
    for name in arguments.sets:
        started = time.monotonic()
        given = SETS[name](arguments.data)
        questions = list(islice(given.dev, most))
        texts, gold = [text for text, _ in questions], [ids for _, ids in questions]
        asked = Asked(texts, gold, np.zeros((len(texts), 1)))
        rest = split_for_tuning(asked)[1]
        found: dict[str, Any] = {
            f"BM25, {cut}": bm25(cuts[cut], given.passages, rest) for cut in cuts
        }
        best = max(row["ndcg@10"] for row in found.values())
        weights_V = learned(given)
        found["words, learned weights"] = words(given, weights_V, rest)
        with tempfile.TemporaryDirectory() as scratch:
            encoder = arguments.encoder
            if arguments.train is not None:
                encoder = trained(given, arguments.train, Path(scratch))
            if encoder:
                for moment, part in (("before", "mlm"), ("after", "model")):
                    index = Path(scratch) / moment
                    found[moment] = searched(encoder / part, given, weights_V, asked, index)
                last = found["after"]
                if arguments.rerank is not None:
                    again = Path(scratch) / "reranker"
                    last = reranked(
                        encoder, Path(scratch) / "after", given, asked, arguments.rerank, again
                    )
                    found["reranked"] = last
                ratios.append(last["ndcg@10"] / best)
        num += len(rest.texts)
        ours[name] = {"passages": len(given.passages), "questions": len(rest.texts), **found}
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
