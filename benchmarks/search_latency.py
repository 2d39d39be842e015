"""What a search costs over pymilvus used directly, and what the approximate index misses.

Both sides ask one Milvus Lite of the same passages in turn, question by question. Dense: the ten
nearest by cosine, by `search_vectors` and by `MilvusClient.search`. Hybrid: the whole search of the
service, and the same by hand as it is commonly written (whole rows of the 100 nearest and of the
100 best by BM25, their weighted sum, the best ten), BM25 being bm25s on both sides. --milvus-bm25
adds pymilvus' own hybrid_search, whose index of words takes a minute per 10 000 passages to fill.

The value is the larger ratio of medians, over both kinds and all sizes. Recall@10 of HNSW is
against exact search over all vectors, once Lite does search its graph (it answers by exact search
until then); a passage as near as the tenth counts as found. Vectors of
384 come from latent semantic analysis of the texts, those of the sample hospital's records, or
of public ones where --data DIR holds retrieval_zh and pretrain_zh as the README lays them out.
Source: DESIGN.md 4, row 6.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from frame import argument_parser, print_result
from search_by_hand import CANDIDATES, TOP, WEIGHT, ByHand, GraphCalls, milvus_bm25, raw_dense
from search_texts import DIM, latent_vectors, public_texts, sample_texts

from medray.common.records import Passage
from medray.common.rows import arrow_schema
from medray.retrieval.collection import CollectionConfig, connect, search_vectors
from medray.retrieval.directory import INFO, LEXICAL, build_lexical, save_lexical
from medray.retrieval.lexical import LexicalConfig, LexicalIndex
from medray.retrieval.recall import exact_top
from medray.retrieval.search import PRIVATE, Searcher, open_index

EFS = (32, 64, 256)
"""Beside the default."""
SAME = 20
"""Questions on which the results of both hybrid searches are compared."""


class Questions(NamedTuple):
    """What is asked, with vectors."""

    texts: list[str]
    vectors_QD: np.ndarray

    def part(self, num: int) -> "Questions":
        """The first of them."""
        return Questions(self.texts[:num], self.vectors_QD[:num])


def write_index(directory: Path, passages: list[str], vectors_ND: np.ndarray) -> None:
    """An index artefact without its collection, which each process fills itself."""
    rows = [
        Passage(
            passage_id=f"P{k:07d}", doc_id=f"D{k // 5:07d}", start=0, end=len(text), section="",
            title="", text=text, kind="encyclopaedic",
        ).model_dump()
        for k, text in enumerate(passages)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=arrow_schema(Passage))
    column = pa.FixedSizeListArray.from_arrays(vectors_ND.ravel(), DIM)
    (directory / "passages").mkdir()
    pq.write_table(
        table.append_column("vector", column), directory / "passages" / "part-00000.parquet"
    )
    save_lexical(directory, build_lexical(directory / "passages", LexicalConfig()))


def describe(directory: Path, index_type: str) -> CollectionConfig:
    """Says how the collection is to be indexed."""
    config = CollectionConfig.model_validate({"index_type": index_type})
    hybrid = {"candidates": CANDIDATES, "dense_weight": WEIGHT}
    info = {"uri": "", "config": config.model_dump(mode="json"), "hybrid": hybrid}
    (directory / INFO).write_text(json.dumps(info), encoding="utf-8")
    return config


def in_turn(asked: Questions, sides: dict[str, Callable[..., Any]]) -> dict[str, list[float]]:
    """Milliseconds of every question on every side; the side that begins changes."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    order = [*sides]
    for k, (text, vector_D) in enumerate(zip(*asked, strict=True)):
        order = order[1:] + order[:1]
        for name in order:
            began = time.perf_counter()
            sides[name](text, vector_D)
            if k >= 3:  # after a few to warm up
                taken[name].append(1000 * (time.perf_counter() - began))
    return taken


def shown(milliseconds: list[float]) -> dict[str, float]:
    """Median and 95 % quantile."""
    return {
        "p50_ms": round(statistics.median(milliseconds), 2),
        "p95_ms": round(float(np.quantile(milliseconds, 0.95)), 2),
    }


def recall(found: list[list[int]], vectors_ND: np.ndarray, asked: Questions) -> float:
    """Mean share of the ten nearest that were found, by cosine: of equal texts one is as good as
    another."""
    shares = []
    exact = exact_top(asked.vectors_QD, vectors_ND, TOP)
    for rows, best, vector_D in zip(found, exact, asked.vectors_QD, strict=True):
        least = float(vectors_ND[best[-1]] @ vector_D) - 1e-5
        shares.append(sum(float(vectors_ND[row] @ vector_D) >= least for row in rows) / len(best))
    return float(np.mean(shares))


def measure_exact(
    directory: Path, searcher: Searcher, asked: Questions
) -> tuple[dict[str, list[float]], float]:
    """Milliseconds of both kinds on both sides; the share of hits that both hybrids return."""
    config = describe(directory, "FLAT")
    client = connect(searcher.uri)  # a second client of the same server
    names = pq.read_table(directory / "passages", columns=["passage_id"])["passage_id"].to_pylist()
    by_hand = ByHand(client, LexicalIndex.load(directory / LEXICAL), names)
    taken = in_turn(
        asked,
        {
            "dense": lambda _, v: search_vectors(client, PRIVATE, v[None], TOP, config),
            "dense raw": lambda _, v: raw_dense(client, v),
            "hybrid": lambda text, v: searcher.search(text, v, TOP),
            "hybrid raw": by_hand,
        },
    )
    both = [
        {hit.passage.passage_id for hit in searcher.search(text, vector_D, TOP)}
        & {*by_hand(text, vector_D)}
        for text, vector_D in zip(*asked.part(SAME), strict=True)
    ]
    client.close()
    return taken, float(np.mean([len(one) / TOP for one in both]))


def measure_graph(
    searcher: Searcher, config: CollectionConfig, vectors_ND: np.ndarray, asked: Questions
) -> dict[str, Any]:
    """Recall and times of HNSW by `hnsw_ef`, every question answered by the graph."""
    client, graph = connect(searcher.uri), GraphCalls()
    first_D = asked.vectors_QD[:1]
    graph.wait(lambda: search_vectors(client, PRIVATE, first_D, TOP, config))
    measured: dict[str, Any] = {"default_ef": config.hnsw_ef}
    for ef in sorted({*EFS, config.hnsw_ef}):
        setting, before = config.model_copy(update={"hnsw_ef": ef}), graph.num
        found: list[list[int]] = []

        def near(
            _: str, vector_D: np.ndarray, setting: CollectionConfig = setting,
            found: list[list[int]] = found,
        ) -> None:  # fmt: skip
            rows = search_vectors(client, PRIVATE, vector_D[None], TOP, setting)[0]
            found.append([int(row["passage_id"][1:]) for row in rows])

        taken = in_turn(asked, {"dense": near})["dense"]
        if graph.num - before < len(asked.texts):
            raise RuntimeError("some questions were not answered by the HNSW graph")
        share = recall(found, vectors_ND, asked)
        measured[f"ef={ef}"] = {"recall@10": round(share, 4), **shown(taken)}
    client.close()
    return measured


def measure(passages: list[str], asked: Questions, vectors_ND: np.ndarray, own: bool) -> Any:
    """(ours, other) of one size."""
    ours: dict[str, Any] = {"passages": len(passages)}
    other: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        write_index(directory, passages, vectors_ND)
        describe(directory, "FLAT")
        began = time.monotonic()
        with open_index(directory) as searcher:
            ours["fill_s"] = round(time.monotonic() - began, 1)
            taken, same = measure_exact(directory, searcher, asked)
        ours["agreement@10"] = round(same, 4)
        for kind in ("dense", "hybrid"):
            ours[kind], other[kind] = shown(taken[kind]), shown(taken[f"{kind} raw"])
            ratio = statistics.median(taken[kind]) / statistics.median(taken[f"{kind} raw"])
            ours[kind]["p50_ratio"] = round(ratio, 3)
        sys.stderr.write(f"{len(passages)} passages: {ours} {other}\n")
        config = describe(directory, "HNSW")
        began = time.monotonic()
        with open_index(directory) as searcher:
            ours["hnsw"] = measure_graph(searcher, config, vectors_ND, asked)
            ours["hnsw"]["fill_s"] = round(time.monotonic() - began, 1)
        if own:
            with milvus_bm25(directory, passages, vectors_ND) as search:
                other["milvus_bm25"] = shown(in_turn(asked, {"raw": search})["raw"])
    return ours, other


def main() -> int:
    """Prints the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, help="directory of the public sets")
    parser.add_argument("--passages", type=int, nargs="+", default=[20_000])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument(
        "--milvus-bm25", action="store_true", help="pymilvus' own hybrid search too"
    )
    parser.add_argument("--quick", action="store_true", help="3 000 passages, 50 questions")
    arguments = parser.parse_args()
    sizes, num = sorted(arguments.passages), arguments.questions
    if arguments.quick:
        sizes, num = [3000], 50
    source = sample_texts if arguments.data is None else lambda n: public_texts(arguments.data, n)
    passages, texts = source(sizes[-1])
    vectors_ND, vectors_QD = latent_vectors(passages, texts[:num])
    asked = Questions(texts[:num], vectors_QD)
    ours, other = [], []
    for size in sorted({min(size, len(passages)) for size in sizes}):
        pair = measure(passages[:size], asked, vectors_ND[:size], arguments.milvus_bm25)
        ours.append(pair[0])
        other.append(pair[1])
        sys.stderr.write(f"{size} passages: {pair}\n")
    worst = max(row[kind]["p50_ratio"] for row in ours for kind in ("dense", "hybrid"))
    print_result(
        "search_latency",
        worst,
        unit="p50 of a search / of the same by pymilvus alone",
        goal="<= 1.1, and recall@10 of HNSW >= 0.98",
        ours=ours,
        other=other,
        n=len(asked.texts),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
