"""Hard negatives: passages that rank high for a question and do not answer it.

In: rankings, the passages that answer. Out: a Parquet file of question, gold and negatives, ids.
The reranker takes the ranking of the search; the encoder, which the search waits for, that of the
words (BM25), made on Ray Data actors.
Source: FlagEmbedding's `hn_mine`: some of the first ranks are left out, for what ranks above all
often answers too, as is what repeats a text that answers. Differs: it ranks by an encoder, and
fills up with random passages; here a question that finds too few has fewer.
"""

import logging
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medray.retrieval.lexical import LexicalConfig, LexicalIndex
from medray.retrieval.passage_vectors import texts_of
from medray.retrieval.questions import load_passages, load_questions

logger = logging.getLogger(__name__)
KEPT = 15
"""Of a question's negatives by words, drawn by the seed. Source: FlagEmbedding."""
SCHEMA = pa.schema(
    [
        ("question", pa.string()),
        ("gold", pa.list_(pa.string())),
        ("negatives", pa.list_(pa.string())),
    ]
)
LEXICAL = "lexical"


def negatives_of(
    ranked: Iterable[tuple[str, str]], gold: Collection[str], gold_texts: Collection[str]
) -> list[str]:
    """Ids of the passages that do not answer, in their order.

    Args:
        ranked: (id, text) of passages; gold, gold_texts: ids and texts of those that answer.
    """
    return [name for name, text in ranked if name not in gold and text not in gold_texts]


def write_mined(table: pa.Table, target: Path) -> None:
    """Writes rows of SCHEMA, whole or not at all."""
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_suffix(".tmp")
    pq.write_table(table, temporary)
    os.replace(temporary, target)


def load_mined(path: Path, passages: pa.Table) -> list[list[int]]:
    """Rows of each question's negatives in `passages`."""
    row_of = {name: row for row, name in enumerate(passages["passage_id"].to_pylist())}
    lists = pq.read_table(path, columns=["negatives"])["negatives"].to_pylist()
    return [[row_of[name] for name in names] for names in lists]


class MineByWords:
    """A Ray Data actor: adds negatives to a table of question and gold (rows of passages)."""

    def __init__(
        self, lexical: str, passages: str, first_rank: int, last_rank: int, seed: int
    ) -> None:
        table = load_passages(Path(passages))
        self.index = LexicalIndex.load(Path(lexical))
        self.names, self.texts = table["passage_id"].to_pylist(), texts_of(table)
        self.first_rank, self.last_rank, self.seed = first_rank, last_rank, seed

    def __call__(self, asked: pa.Table) -> pa.Table:
        columns = (asked[name].to_pylist() for name in ("place", "question", "gold"))
        rows = [self.mined(*row) for row in zip(*columns, strict=True)]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def mined(self, place: int, question: str, gold: list[int]) -> dict[str, Any]:
        """A row of the file; `place` of the question among all tells what is drawn for it."""
        scores_N = self.index.scores(question)
        # Equal scores in the order of the passages, of which no more than needed are sorted.
        num = min(self.last_rank, len(scores_N))
        least = np.partition(scores_N, -num)[-num]
        found = np.flatnonzero((scores_N >= least) & (scores_N > 0))
        found = found[np.argsort(-scores_N[found], kind="stable")][self.first_rank : num]
        names = [self.names[row] for row in gold]
        negatives = negatives_of(
            ((self.names[row], self.texts[row]) for row in found),
            set(names),
            {self.texts[row] for row in gold},
        )
        rng = np.random.default_rng([self.seed, 5, place])
        drawn = sorted(rng.permutation(len(negatives))[:KEPT])
        return {
            "question": question, "gold": names, "negatives": [negatives[i] for i in drawn]
        }  # fmt: skip


def mine_by_words(
    passages: Path,
    questions: Path,
    target: Path,
    ranks: tuple[int, int],
    seed: int,
    num_actors: int,
) -> None:
    """Writes a row for each training question, in the order of `load_questions`; its negatives, of
    which it may find none, are drawn from the given ranks (first, last) of all passages by words.

    Args:
        target: a file; the index of words is left beside it.
    """
    import ray.data

    table = load_passages(passages)
    asked = load_questions(questions, table)
    if not asked:
        write_mined(SCHEMA.empty_table(), target)
        return
    lexical = target.with_name(LEXICAL)
    LexicalIndex.build(texts_of(table), LexicalConfig()).save(lexical)
    rows = pa.table(
        {
            "place": range(len(asked)),
            "question": [text for text, _ in asked],
            "gold": [gold for _, gold in asked],
        }
    )
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    with ray.data.DataContext.current(context):
        mined = (
            ray.data.from_arrow(rows)
            .repartition(num_actors)
            .map_batches(
                MineByWords,  # pyright: ignore[reportArgumentType]
                fn_constructor_kwargs={
                    "lexical": str(lexical),
                    "passages": str(passages),
                    "first_rank": ranks[0],
                    "last_rank": ranks[1],
                    "seed": seed,
                },
                batch_format="pyarrow",
                batch_size=256,
                compute=ray.data.ActorPoolStrategy(size=num_actors),
            )
            .to_arrow_refs()
        )
        tables: list[pa.Table] = ray.get(mined)  # pyright: ignore[reportCallIssue, reportArgumentType]
    table = pa.concat_tables(tables)
    write_mined(table, target)
    found = sum(map(bool, table["negatives"].to_pylist()))
    logger.info("encoder: hard negatives of %d questions of %d", found, len(asked))
