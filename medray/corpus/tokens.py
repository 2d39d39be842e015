"""Token blocks from documents, in Ray tasks. In: documents/, a tokenizer. Out: blocks/, metrics.

Every document ends with the end-of-text token. General text is packed among the training blocks by
the share that is replayed, and held out in a file of its own, heldout_general.
Source: [EMR-LLM 1.2] continued pretraining; DESIGN.md 1 (tokenise, pack). Differs: text lies
in blocks without padding to a batch's longest.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from medray.common.errors import DataError
from medray.common.manifest import Counts, remove
from medray.common.records import Document
from medray.common.rows import count_rows
from medray.corpus.blocks import unigram_nats, write_blocks
from medray.corpus.clean import render
from medray.corpus.replay import replay, replayed_tokens
from medray.corpus.stages import Outcome
from medray.corpus.tasks import in_order, in_tasks, max_tasks_of_cluster
from medray.corpus.tokenizer import plain_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXTS = pa.schema(
    [(name, pa.string()) for name in ("doc_id", "source", "split", "kind", "text")]
    + [("general", pa.bool_())]
)
SPLITS = {"train": "train", "dev": "heldout"}
FILES = ("train", "heldout", "train_general", "heldout_general")


def tokenise(batch: pa.Table, encoder: Any, eos: int) -> pa.Table:
    """Replaces column `text` by its token ids and its length in characters."""
    texts = batch.column("text").to_pylist()
    encoder.encode_special_tokens = True  # a pickled encoder forgets it
    tokens = [[*encoding.ids, eos] for encoding in encoder.encode_batch_fast(texts)]
    return batch.drop_columns(["text"]).append_column(
        "tokens", pa.array(tokens, pa.list_(pa.int32()))
    ).append_column("chars", pa.array([len(text) for text in texts], pa.int64()))  # fmt: skip


def tokenise_documents(
    place: int, path: Path, group: int, sources: frozenset[str], encoder: Any, eos: int
) -> tuple[int, pa.Table]:
    """Worker: a row group of a shard → tokens and chars of the documents of `sources`, and what
    they are of."""
    batch = pq.ParquetFile(path).read_row_group(group)
    documents = [Document.model_validate(r) for r in batch.to_pylist() if r["source"] in sources]
    rows = [
        d.model_dump(include={"doc_id", "source", "split", "kind", "general"}) | {"text": render(d)}
        for d in documents
    ]
    return place, tokenise(pa.Table.from_pylist(rows, schema=TEXTS), encoder, eos)


def write_token_blocks(
    documents: Path,
    target: Path,
    sources: set[str],
    tokenizer: "PreTrainedTokenizerFast",
    block_tokens: int,
    replay_fraction: float,
) -> Outcome:
    """Writes the directory `target` with train and held-out blocks and heldout_docs.parquet.

    Metrics: tokens, characters and documents of both splits, of general text apart, and how much of
    that is replayed; unigram entropy of the held-out tokens, of all documents and of records alone.
    Raises:
        DataError: if the training split holds no document.
    """
    import ray

    eos = cast(int, tokenizer.eos_token_id)
    pad = eos if tokenizer.pad_token_id is None else cast(int, tokenizer.pad_token_id)
    pieces = [
        (path.resolve(), group)
        for path in sorted(documents.glob("*.parquet"))
        for group in range(pq.read_metadata(path).num_row_groups)
    ]
    shared = ray.put(plain_encoder(tokenizer))
    calls = ((n, *piece, frozenset(sources), shared, eos) for n, piece in enumerate(pieces))
    tables = in_order(in_tasks(tokenise_documents, calls, max_tasks_of_cluster()))
    partial_target = target.with_name(f".{target.name}")
    remove(partial_target)
    partial_target.mkdir()
    tally = Tally(len(tokenizer))
    spooled = {name: partial_target / f".{name}.arrow" for name in FILES}
    counts = {"tokenise": Counts(rows_in=count_rows(documents))}
    taken = counts["tokenise"].rows_out = _spool(tables, spooled, tally)
    if others := counts["tokenise"].rows_in - taken:
        counts["tokenise"].reject("not_for_pretraining", others)
    if not tally.num_documents("train"):
        raise DataError("no document is in the training split; add a source with pretrain: true "
                        "or lower dev_fraction")  # fmt: skip
    metrics: dict[str, Any] = {"vocab_size": len(tokenizer), **tally.metrics()}
    taken_D = tally.replayed(replay_fraction)
    texts = {
        "train": chain(
            _tokens(spooled["train"]), replay(_tokens(spooled["train_general"]), taken_D)
        ),
        "heldout": _tokens(spooled["heldout"]),
    }
    if tally.has_general():
        texts["general"] = _tokens(spooled["train_general"])  # each once, for fine-tuning
        texts["heldout_general"] = _tokens(spooled["heldout_general"])
        used = int((taken_D > 0).sum())
        counts["replay"] = Counts(rows_in=len(taken_D), rows_out=used)
        if used < len(taken_D):
            counts["replay"].reject("not_replayed", len(taken_D) - used)
        metrics["replayed_tokens"] = int(taken_D.sum())
    sources_of = {"heldout": tally.heldout_sources()}  # their losses are told apart
    for name, tokens in texts.items():
        num_blocks, num_tokens = write_blocks(
            partial_target, name, tokens, block_tokens, pad, sources_of.get(name, ())
        )
        metrics[f"{name}_blocks"] = num_blocks
        metrics[f"{name}_fill"] = round(num_tokens / max(1, num_blocks * block_tokens), 4)
    for path in spooled.values():
        path.unlink()
    pq.write_table(tally.heldout_table(), partial_target / "heldout_docs.parquet")
    remove(target)
    partial_target.replace(target)
    return counts, metrics


class Tally:
    """Token counts by split: of all documents but general ones, of records, of general ones."""

    def __init__(self, vocab_size: int) -> None:
        self._counts_V = {
            (split, group): np.zeros(vocab_size, np.int64)
            for split in SPLITS
            for group in ("", "emr_", "general_")
        }
        self._chars = dict.fromkeys(self._counts_V, 0)
        self._documents = dict.fromkeys(self._counts_V, 0)
        self._heldout: list[dict[str, Any]] = []
        self._general: list[tuple[str, int]] = []

    def add(self, row: dict[str, Any], tokens: np.ndarray) -> None:
        """Counts one document, a row of `tokenise_documents`."""
        split, is_emr = row["split"], row["kind"] == "emr"
        for group in ("general_",) if row["general"] else ("", "emr_") if is_emr else ("",):
            np.add.at(self._counts_V[split, group], tokens, 1)
            self._chars[split, group] += row["chars"]
            self._documents[split, group] += 1
        if split == "dev":
            shown = {name: row[name] for name in ("doc_id", "source", "kind", "general")}
            self._heldout.append({**shown, "num_tokens": len(tokens)})
        elif row["general"]:
            self._general.append((row["doc_id"], len(tokens)))

    def num_documents(self, split: str) -> int:
        """Documents of a split that are not general."""
        return self._documents[split, ""]

    def has_general(self) -> bool:
        """True if some document is general."""
        return any(self._documents[split, "general_"] for split in SPLITS)

    def replayed(self, fraction: float) -> np.ndarray:
        """How many tokens are replayed of each general training document, in their order."""
        doc_ids, lengths = [d for d, _ in self._general], [n for _, n in self._general]
        return replayed_tokens(doc_ids, lengths, int(self._counts_V["train", ""].sum()), fraction)

    def metrics(self) -> dict[str, Any]:
        """`train_tokens`, `emr_heldout_chars`, `unigram_nats` and so on."""
        metrics: dict[str, Any] = {}
        for (split, group), counts_V in self._counts_V.items():
            if group == "general_" and not self.has_general():
                continue
            name = group + SPLITS[split]
            metrics[f"{name}_documents"] = self._documents[split, group]
            metrics[f"{name}_tokens"] = int(counts_V.sum())
            metrics[f"{name}_chars"] = self._chars[split, group]
        for group in ("", "emr_"):
            metrics[f"{group}unigram_nats"] = unigram_nats(
                self._counts_V["train", group], self._counts_V["dev", group]
            )
        return metrics

    def heldout_sources(self) -> list[str]:
        """The source of each held-out document that is not general, in their order."""
        return [row["source"] for row in self._heldout if not row["general"]]

    def heldout_table(self) -> pa.Table:
        """doc_id, source, kind, general and num_tokens of every held-out document."""
        schema = pa.schema(
            [(name, pa.string()) for name in ("doc_id", "source", "kind")]
            + [("general", pa.bool_()), ("num_tokens", pa.int64())]
        )
        return pa.Table.from_pylist(self._heldout, schema=schema)


def _spool(tables: Iterable[pa.Table], paths: dict[str, Path], tally: Tally) -> int:
    """Writes every document's tokens to one of FILES; returns how many documents."""
    documents = 0
    schema = pa.schema([("tokens", pa.list_(pa.int32()))])
    with (
        ExitStack() as stack,
        tqdm(desc="tokenise", unit=" documents") as progress,
    ):
        sinks = {
            name: stack.enter_context(pa.ipc.new_stream(str(path), schema))
            for name, path in paths.items()
        }
        for table in tables:
            tokens = table.column("tokens").combine_chunks()
            rows = table.drop_columns(["tokens"]).to_pylist()
            for i, row in enumerate(rows):
                tally.add(row, tokens[i].values.to_numpy())
            names = [SPLITS[row["split"]] + "_general" * row["general"] for row in rows]
            for name, sink in sinks.items():
                mine = pa.array([other == name for other in names], pa.bool_())
                sink.write_table(pa.table({"tokens": tokens.filter(mine)}, schema=schema))
            documents += len(rows)
            progress.update(len(rows))
    return documents


def _tokens(path: Path) -> Iterator[np.ndarray]:
    with pa.ipc.open_stream(str(path)) as stream:
        for batch in stream:
            for tokens in batch.column("tokens"):
                yield tokens.values.to_numpy()
