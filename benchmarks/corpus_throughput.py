"""The corpus chain against the same operators in a plain loop, both on one core.

The value is the chain's speed as a share of the plain loop's, the median over turns; the side that
begins changes with each. `ours` is the corpus job as users run it (Ray, shards, manifests of
stages), on records of the sample hospital; `other` is one process that holds everything in memory.
Each side runs in a process of its own, and both must come to the
same documents, passages and tokens. The start of Ray is not counted. corpus_scale.py measures how
the chain grows.
"""

import argparse
import gzip
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from frame import argument_parser, print_result

from medray.common.manifest import Artefact
from medray.common.records import Document
from medray.common.rows import write_rows
from medray.common.split import unit_hash
from medray.common.storage import Storage, StorageConfig
from medray.corpus.blocks import write_blocks
from medray.corpus.chunk import chunk
from medray.corpus.clean import render
from medray.corpus.documents import Settings, prepare_unit
from medray.corpus.duplicates import near
from medray.corpus.duplicates.find import exact_duplicates, survivors
from medray.corpus.prepare import CorpusConfig, prepare_corpus
from medray.corpus.prepared import PREPARED_SCHEMA
from medray.corpus.tokenizer import plain_encoder, train_tokenizer
from medray.corpus.tokens import SPLITS, Tally
from medray.corpus.units import work_units
from medray.generation.prompts import formats
from medray.launch import set_environment
from medray.sample import shards
from medray.sample.hospital import SampleConfig, write_shard
from medray.sample.literature import documents
from medray.sample.model import shipped_model

CONFIG = CorpusConfig.parse(
    {
        "sources": [
            {"name": "emr", "kind": "record", "path": "records/*.jsonl.gz"},
            {"name": "literature", "kind": "document", "path": "literature.jsonl.gz",
             "passages": True, "dev_fraction": 0},
        ],
        "tokenizer": {"vocab_size": 4000, "max_token_chars": 8},
    },
    "benchmark",
)  # fmt: skip
KEY = b"benchmark" * 4
SHARDS = 100


def make_hospital(directory: Path, num_records: int) -> None:
    """Writes an export with `num_records` records in SHARDS files, and its literature."""
    config = SampleConfig(num_records=num_records, shard_records=num_records // SHARDS)
    with ProcessPoolExecutor() as pool:
        arguments = [config] * SHARDS, [directory] * SHARDS, range(SHARDS)
        list(pool.map(write_shard, *arguments, chunksize=5))
    write_literature(directory, config.seed, num_records)


def write_literature(directory: Path, seed: int, num_records: int) -> None:
    """Writes the literature of a hospital with so many records."""
    literature = documents(shipped_model(), seed, num_records)
    shards.write_rows(directory / "literature.jsonl.gz", literature)


def size_bytes(export: Path) -> int:
    """Bytes of the export's lines, unpacked."""
    return sum(len(gzip.decompress(path.read_bytes())) for path in export.rglob("*.jsonl.gz"))


def chain(export: Path, directory: Path) -> dict[str, Any]:
    """The corpus job, from an empty storage root."""
    (directory / "keys").mkdir()
    for name in ("surrogates", "audit"):
        (directory / "keys" / f"{name}.key").write_bytes(KEY)
    storage = Storage(StorageConfig(root=str(directory)))
    artefact = Artefact(storage, "corpus", CONFIG, key="benchmark")
    prepare_corpus(CONFIG, export, artefact, None)
    names = ("documents", "passages", "train_tokens", "heldout_tokens")
    return {name: artefact.metrics[name] for name in names}


def in_turn(work: Callable[..., Any], calls: Iterable[tuple], max_tasks: int) -> Iterator[Any]:
    """In place of Ray tasks."""
    return (work(*call) for call in calls)


def plain(export: Path, directory: Path) -> dict[str, Any]:
    """The same operators on lists."""
    settings = Settings(export, CONFIG.sources, CONFIG.dev_fraction, CONFIG.clean, KEY, KEY)
    units = work_units(CONFIG.sources, export)
    rows = [row for unit in units for row in prepare_unit(unit, settings)]
    rows = [row for row in rows if row["reason"] is None]
    names = ("source", "doc_id", "digest", "reason")
    keys = pa.Table.from_pylist(
        [{name: row[name] for name in names} for row in rows],
        schema=pa.schema([PREPARED_SCHEMA.field(name) for name in names]),
    )
    repeated = exact_duplicates(keys)
    rows = [row for number, row in enumerate(rows) if number not in repeated]

    near.in_tasks = in_turn
    assert CONFIG.near_duplicates is not None
    texts = [render(Document.model_validate(row["document"])) for row in rows]
    column = near.Documents(pa.chunked_array([pa.array(texts)]), pa.ChunkedArray.to_pylist)
    labels_N = near.find_clusters(column, CONFIG.near_duplicates, directory / "near", 1)
    order = {source.name: place for place, source in enumerate(CONFIG.sources)}
    ranks = [
        (row["document"]["split"] != "dev", bool(row["document"]["superseded_by"]),
         order[row["source"]], row["digest"], row["doc_id"])
        for row in rows
    ]  # fmt: skip
    stays_N = survivors(labels_N, ranks, np.zeros(len(rows), bool))
    made = [
        Document.model_validate(row["document"])
        for row, stays in zip(rows, stays_N, strict=True)
        if stays
    ]
    write_rows(directory / "documents", Document, made)

    wanted = {source.name for source in CONFIG.sources if source.passages}
    known = (d for d in made if d.source in wanted)
    current = (d for d in known if not (d.superseded_by and CONFIG.chunk.skip_superseded))
    passages = [passage for document in current for passage in chunk(document, CONFIG.chunk)]
    write_rows(directory / "passages", type(passages[0]), passages)

    num_chars = sum(len(section.text) for document in made for section in document.sections)
    fraction = CONFIG.tokenizer.max_train_chars / num_chars
    sampled = [
        d for d in made if d.split == "train" and unit_hash(f"tokenizer/{d.doc_id}") < fraction
    ]
    tokenizer = train_tokenizer(
        CONFIG.tokenizer, (text for d in sampled for text in (render(d), *formats()))
    )
    encoder, eos = plain_encoder(tokenizer), tokenizer.eos_token_id
    pad: Any = tokenizer.pad_token_id
    tally = Tally(len(tokenizer))
    packed: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS.values()}
    for document in made:
        text = render(document)
        tokens = np.array([*encoder.encode(text).ids, eos], np.int32)
        tally.add(document.model_dump() | {"chars": len(text)}, tokens)
        packed[SPLITS[document.split]].append(tokens)
    for name, arrays in packed.items():
        write_blocks(directory / "blocks", name, arrays, CONFIG.block_tokens, pad)
    metrics = tally.metrics()
    return {
        "documents": len(made),
        "passages": len(passages),
        "train_tokens": metrics["train_tokens"],
        "heldout_tokens": metrics["heldout_tokens"],
    }


def run_side(side: str, export: Path) -> dict[str, Any]:
    """Seconds of one side on one core, and what it made."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    if side == "chain":
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
        ray.get(ray.remote(work_units).remote(CONFIG.sources, export))  # its worker has started
    with tempfile.TemporaryDirectory() as directory:
        started = time.monotonic()
        made = (chain if side == "chain" else plain)(export, Path(directory))
        return {"seconds": round(time.monotonic() - started, 1), "made": made}


def measure(side: str, export: Path) -> dict[str, Any]:
    """Runs a side in a process of its own."""
    arguments = ["--side", side, "--export", str(export)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    print(f"{side}: {result}", flush=True)
    return result


def main() -> int:
    """Prints what was measured, then the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--records", type=int, default=15_000, help="100 at least")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="1 000 records, one turn")
    parser.add_argument("--side", choices=["chain", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    set_environment()
    if arguments.side:
        print(json.dumps(run_side(arguments.side, arguments.export)))
        return 0
    num_records, turns = (1_000, 1) if arguments.quick else (arguments.records, arguments.turns)
    found: dict[str, list[dict[str, Any]]] = {"chain": [], "plain": []}
    with tempfile.TemporaryDirectory() as directory:
        export = Path(directory)
        make_hospital(export, num_records)
        size_mb = size_bytes(export) / 1e6
        for turn in range(turns):
            for side in sorted(found, reverse=bool(turn % 2)):
                found[side].append(measure(side, export))
    first, *others = [result["made"] for results in found.values() for result in results]
    if any(made != first for made in others):
        raise SystemExit(f"the sides made different things: {first}, {others}")
    seconds = {side: [result["seconds"] for result in results] for side, results in found.items()}
    ratios = [b / a for a, b in zip(seconds["chain"], seconds["plain"], strict=True)]
    ours, other = (
        {
            "seconds": times,
            "mb_per_s_per_core": round(size_mb / statistics.median(times), 3),
            "made": first,
        }
        for times in seconds.values()
    )
    print_result(
        "corpus_throughput",
        round(statistics.median(ratios), 3),
        unit="speed as a share of the plain loop's, one core, median over turns",
        goal=">= 0.9",
        ours=ours | {"ratios": [round(ratio, 3) for ratio in ratios]},
        other=other,
        n=num_records,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
