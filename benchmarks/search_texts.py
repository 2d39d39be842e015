"""Passages and questions of any number, with vectors. A part of search_latency.py.

Texts are pieces of records of the sample hospital, or public ones; vectors come from latent
semantic analysis, which places texts of one subject near each other as an encoder does.
"""

import gzip
import json
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from medray.corpus.chunk import spans
from medray.sample import shards
from medray.sample.hospital import SampleConfig, write_shard

DIM, MAX_CHARS, MIN_CHARS = 384, 200, 20
FITTED = 10_000
"""Texts that the latent semantic analysis is fitted on."""


def pieces(texts: Iterator[str]) -> Iterator[str]:
    """Texts cut as the corpus job cuts them."""
    for text in texts:
        for start, end in spans(text, MAX_CHARS):
            if end - start >= MIN_CHARS:
                yield text[start:end]


def sample_texts(num: int) -> tuple[list[str], list[str]]:
    """(passages, questions): pieces of records, and complaints of patients that come later."""
    config = SampleConfig(num_records=max(100, num // 2), shard_records=500)
    found: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for shard in range(-(-config.num_records // config.shard_records)):
            write_shard(config, Path(scratch), shard)
            path = Path(scratch) / "records" / f"part-{shard:05d}.jsonl.gz"
            rows = ("".join(s["text"] for s in row["sections"]) for row in shards.read_rows(path))
            found += pieces(rows)
            if len(found) >= num:
                break
        late = config.model_copy(update={"seed": config.seed + 1})
        write_shard(late, Path(scratch), 0)
        rows = shards.read_rows(Path(scratch) / "records" / "part-00000.jsonl.gz")
        named = [{s["heading"]: s["text"] for s in row["sections"]} for row in rows]
    return found[:num], [row["现病史"] for row in named if "现病史" in row]


def public_texts(data: Path, num: int) -> tuple[list[str], list[str]]:
    """(passages, questions): answers of doctors, then pieces of articles; questions of patients."""

    def rows(name: str) -> Iterator[dict[str, Any]]:
        with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            yield from map(json.loads, file)

    names = ("retrieval_zh/corpus", "pretrain_zh/encyclopedia", "pretrain_zh/literature")
    texts = pieces(row["text"] for name in names for row in rows(name))
    asked = [row["query"] for row in rows("retrieval_zh/queries") if row["split"] == "dev"]
    return list(islice(texts, num)), asked


def latent_vectors(passages: list[str], asked: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(vectors_ND, vectors_QD) of length 1, float32."""
    words = TfidfVectorizer(
        analyzer="char", ngram_range=(1, 2), max_features=30_000, sublinear_tf=True
    )
    step = max(1, len(passages) // FITTED)
    counts = words.fit_transform(passages[::step])
    analysis = TruncatedSVD(DIM, n_iter=2, random_state=0).fit(counts)
    found = []
    for texts in (passages, asked):
        vectors = np.concatenate(
            [
                analysis.transform(words.transform(texts[k : k + FITTED]))
                for k in range(0, len(texts), FITTED)
            ]
        )
        lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        found.append((vectors / lengths).astype(np.float32))
    return found[0], found[1]
