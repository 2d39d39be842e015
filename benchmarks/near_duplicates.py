"""Near-duplicate pairs against brute force: every pair's exact Jaccard similarity.

The value is the recall of pairs at or above the configured threshold. `ours` is the operator of
the corpus job (MinHash bands, exact comparison, Ray); `other` multiplies the sparse matrix of all
n-grams with itself, which shares no code with it. Clusters are compared as well: the pairs that
share one count although they meet in no band themselves.

--data DIR reads real texts from a data folder laid out as TEXTS below says; without it the texts
come from the sample hospital, every tenth with an edited copy.
"""

import gzip
import hashlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from frame import argument_parser, print_result
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import CountVectorizer

from medray.common.ngrams import canonical
from medray.corpus.duplicates.jaccard import jaccard, ngram_matrix
from medray.corpus.duplicates.near import Documents, NearDuplicateConfig, find_clusters
from medray.sample.hospital import SampleConfig, make_record
from medray.sample.literature import documents
from medray.sample.model import shipped_model
from medray.sample.text import Speller

TEXTS = {
    "pretrain_zh/encyclopedia.jsonl.gz": ["text"],
    "sft_zh/sft.jsonl.gz": ["instruction", "input", "output"],
    "retrieval_zh/corpus.jsonl.gz": ["text"],
    "retrieval_en/medquad.jsonl.gz": ["question", "answer"],
}
MIN_CHARS = 10  # as CleanConfig.min_chars
BLOCK = 128
WORKERS = 2


def real_texts(data: Path) -> Iterator[str]:
    """The texts of a data folder."""
    for name, fields in TEXTS.items():
        with gzip.open(data / name, "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                yield "\n".join(filter(None, (row.get(field) for field in fields)))


def sample_texts(num: int) -> Iterator[str]:
    """Records and literature of the sample hospital, and edited copies of every tenth."""
    config, model, rng = SampleConfig(num_records=max(100, num)), shipped_model(), random.Random(7)
    speller = Speller(model.knowledge.misspellings, config.misspelling_rate)
    rows = [*documents(model, config.seed, num)]
    rows += (make_record(config, model, speller, number)[0] for number in range(num - len(rows)))
    for number, row in enumerate(rows):
        text = "\n".join(f"【{s['heading']}】{s['text']}" for s in row["sections"])
        yield text
        if number % 10 == 0:
            letters = list(text)
            for place in rng.sample(range(len(text)), round(rng.uniform(0, 0.06) * len(text))):
                letters[place] = rng.choice(text)
            yield "".join(letters)


def choose(texts: Iterator[str], num: int) -> list[str]:
    """At most `num` distinct texts, those with the least hashes."""
    distinct = {c: text for text in texts if len(c := canonical(text)) >= MIN_CHARS}
    by_hash = sorted(distinct.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest())
    return [text for _, text in by_hash[:num]]


def brute_force(texts: list[str], config: NearDuplicateConfig) -> set[tuple[int, int]]:
    """All pairs (i, j), i < j, at or above the threshold."""
    vectorizer = CountVectorizer(
        analyzer="char", ngram_range=(config.ngram,) * 2, binary=True, lowercase=False,
        dtype=np.int32,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    counted: Any = vectorizer.fit_transform([canonical(text) for text in texts])
    matrix = counted.tocsr()
    sizes_N, columns = np.asarray(matrix.sum(axis=1)).ravel(), matrix.T.tocsr()
    pairs: set[tuple[int, int]] = set()
    for first in range(0, len(texts), BLOCK):
        shared = (matrix[first : first + BLOCK] @ columns).tocoo()
        left, right = shared.row + first, shared.col
        similarity = shared.data / (sizes_N[left] + sizes_N[right] - shared.data)
        near = (similarity >= config.threshold) & (left < right)
        pairs.update(zip(left[near].tolist(), right[near].tolist(), strict=True))
    return pairs


def banded_pairs(
    texts: list[str], config: NearDuplicateConfig, work: Path
) -> tuple[int, set[tuple[int, int]]]:
    """How many pairs share a band of the keys that the operator left, and those that pass."""
    shards = [np.load(path)[:-1] for path in sorted(work.glob("keys-*.npy"))]
    candidates: set[tuple[int, int]] = set()
    for keys_N in np.concatenate(shards, axis=1):
        order = np.argsort(keys_N, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(keys_N[order])) + 1):
            left, right = np.triu_indices(len(group), k=1)
            candidates.update(zip(group[left].tolist(), group[right].tolist(), strict=True))
    pairs = np.array(sorted(candidates), np.int64).reshape(-1, 2)
    matrix = ngram_matrix([canonical(text) for text in texts], config.ngram)
    near = jaccard(matrix, pairs[:, 0], pairs[:, 1]) >= config.threshold
    return len(pairs), set(map(tuple, pairs[near].tolist()))


def column_texts(column: pa.ChunkedArray) -> list[str]:
    """Texts of a column that holds nothing else."""
    return column.to_pylist()


def main() -> int:
    """Prints what was found, then the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, help="data folder with real texts")
    parser.add_argument("--texts", type=int, default=20_000, help="at most so many")
    parser.add_argument("--quick", action="store_true", help="2 000 texts")
    arguments = parser.parse_args()
    num, config = 2_000 if arguments.quick else arguments.texts, NearDuplicateConfig()
    texts = choose(real_texts(arguments.data) if arguments.data else sample_texts(num), num)
    num_chars = sum(map(len, texts))
    print(f"{len(texts)} texts, {num_chars} characters, threshold {config.threshold}", flush=True)

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        column = Documents(pa.chunked_array([pa.array(texts)]), column_texts)
        started = time.monotonic()
        labels_N = find_clusters(column, config, work, WORKERS)
        our_s = time.monotonic() - started
        num_candidates, found = banded_pairs(texts, config, work)
    ray.shutdown()
    print(f"ours: {len(found)} pairs of {num_candidates} candidates, {our_s:.1f} s", flush=True)

    started = time.monotonic()
    true = brute_force(texts, config)
    brute_s = time.monotonic() - started
    print(f"brute force: {len(true)} pairs, {brute_s:.1f} s", flush=True)

    ends = np.array(sorted(true), np.int64).reshape(-1, 2)
    graph = csr_array((np.ones(len(ends), bool), tuple(ends.T)), shape=(len(texts),) * 2)
    num_true, true_labels_N = connected_components(graph, directed=False)
    # Both sides remove all of a cluster but one: labels by least member make them comparable.
    least_N = np.full(num_true, len(texts))
    np.minimum.at(least_N, true_labels_N, np.arange(len(texts)))
    same_cluster = float((labels_N[ends[:, 0]] == labels_N[ends[:, 1]]).mean()) if len(ends) else 1
    recall = len(found & true) / max(1, len(true))
    precision = len(found & true) / max(1, len(found))
    print_result(
        "near_duplicates",
        round(recall, 5),
        unit="recall of pairs",
        goal=">= 0.95 at precision >= 0.99",
        ours={
            "precision": round(precision, 5), "pairs": len(found), "candidates": num_candidates,
            "pairs_in_one_cluster": round(same_cluster, 5),
            "texts_with_the_cluster_of_brute_force": round(
                float((labels_N == least_N[true_labels_N]).mean()), 5),
            "clusters": len(np.unique(labels_N)), "seconds": round(our_s, 1),
            "workers": WORKERS, "chars_per_s": round(num_chars / our_s),
        },
        other={"pairs": len(true), "clusters": num_true, "seconds": round(brute_s, 1)},
        n=len(texts),
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
