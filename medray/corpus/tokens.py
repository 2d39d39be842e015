"""Token blocks from documents, with Ray Data. In: documents/, a tokenizer. Out: blocks/, metrics.

Every document ends with the end-of-text token. Source: [EMR-LLM 1.2] continued pretraining;
DESIGN.md 1 (tokenise, pack). Differs: text lies in blocks without padding to a batch's longest.
"""

from collections.abc import Iterator
from functools import partial
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
from medray.corpus.stages import Outcome
from medray.corpus.tokenizer import plain_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TASK_DOCUMENTS = 2_000
TEXTS = pa.schema([(name, pa.string()) for name in ("doc_id", "split", "kind", "text")])
SPLITS = {"train": "train", "dev": "heldout"}


def tokenise(batch: pa.Table, encoder: Any, eos: int) -> pa.Table:
    """Replaces column `text` by its token ids and its length in characters."""
    texts = batch.column("text").to_pylist()
    encoder.encode_special_tokens = True  # a pickled encoder forgets it
    tokens = [[*encoding.ids, eos] for encoding in encoder.encode_batch_fast(texts)]
    return batch.drop_columns(["text"]).append_column(
        "tokens", pa.array(tokens, pa.list_(pa.int32()))
    ).append_column("chars", pa.array([len(text) for text in texts], pa.int64()))  # fmt: skip


def tokenise_documents(batch: pa.Table, sources: set[str], encoder: Any, eos: int) -> pa.Table:
    """Shards of documents/ → doc_id, split, kind, tokens and chars of those of `sources`."""
    documents = [Document.model_validate(r) for r in batch.to_pylist() if r["source"] in sources]
    rows = [
        {"doc_id": d.doc_id, "split": d.split, "kind": d.kind, "text": render(d)} for d in documents
    ]
    return tokenise(pa.Table.from_pylist(rows, schema=TEXTS), encoder, eos)


def write_token_blocks(
    documents: Path,
    target: Path,
    sources: set[str],
    tokenizer: "PreTrainedTokenizerFast",
    block_tokens: int,
) -> Outcome:
    """Writes the directory `target` with train and held-out blocks and heldout_docs.parquet.

    Metrics: tokens, characters and documents of both splits; unigram entropy of the held-out
    tokens, of all documents and of records alone.
    Raises:
        DataError: if the training split holds no document.
    """
    import ray.data

    eos = cast(int, tokenizer.eos_token_id)
    pad = eos if tokenizer.pad_token_id is None else cast(int, tokenizer.pad_token_id)
    paths = [str(path) for path in sorted(documents.glob("*.parquet"))]
    dataset = ray.data.read_parquet(paths, override_num_blocks=len(paths)).map_batches(
        partial(tokenise_documents, sources=sources, encoder=plain_encoder(tokenizer), eos=eos),
        batch_size=TASK_DOCUMENTS,
        batch_format="pyarrow",
    )
    dataset.context.execution_options.preserve_order = True
    partial_target = target.with_name(f".{target.name}")
    remove(partial_target)
    partial_target.mkdir()
    tally = Tally(len(tokenizer))
    spooled = {name: partial_target / f".{name}.arrow" for name in SPLITS.values()}
    documents_in = _spool(dataset, spooled, tally, count_rows(documents))
    if not tally.num_documents("train"):
        raise DataError("no document is in the training split; add a source with pretrain: true "
                        "or lower dev_fraction")  # fmt: skip
    metrics: dict[str, Any] = {"vocab_size": len(tokenizer), **tally.metrics()}
    for name, path in spooled.items():
        num_blocks, num_tokens = write_blocks(
            partial_target, name, _tokens(path), block_tokens, pad
        )
        path.unlink()
        metrics[f"{name}_blocks"] = num_blocks
        metrics[f"{name}_fill"] = round(num_tokens / max(1, num_blocks * block_tokens), 4)
    pq.write_table(tally.heldout_table(), partial_target / "heldout_docs.parquet")
    remove(target)
    partial_target.replace(target)
    return {"tokenise": Counts(rows_in=documents_in, rows_out=documents_in)}, metrics


class Tally:
    """Token counts by split, for all documents and for records."""

    def __init__(self, vocab_size: int) -> None:
        self._counts_V = {
            (split, group): np.zeros(vocab_size, np.int64)
            for split in SPLITS
            for group in ("", "emr_")
        }
        self._chars = dict.fromkeys(self._counts_V, 0)
        self._documents = dict.fromkeys(self._counts_V, 0)
        self._heldout: list[dict[str, Any]] = []

    def add(self, doc_id: str, split: str, kind: str, tokens: np.ndarray, chars: int) -> None:
        """Counts one document."""
        for group in ("", "emr_") if kind == "emr" else ("",):
            np.add.at(self._counts_V[split, group], tokens, 1)
            self._chars[split, group] += chars
            self._documents[split, group] += 1
        if split == "dev":
            self._heldout.append({"doc_id": doc_id, "kind": kind, "num_tokens": len(tokens)})

    def num_documents(self, split: str) -> int:
        """Documents of a split."""
        return self._documents[split, ""]

    def metrics(self) -> dict[str, Any]:
        """`train_tokens`, `emr_heldout_chars`, `unigram_nats` and so on."""
        metrics: dict[str, Any] = {}
        for (split, group), counts_V in self._counts_V.items():
            name = group + SPLITS[split]
            metrics[f"{name}_documents"] = self._documents[split, group]
            metrics[f"{name}_tokens"] = int(counts_V.sum())
            metrics[f"{name}_chars"] = self._chars[split, group]
        for group in ("", "emr_"):
            metrics[f"{group}unigram_nats"] = unigram_nats(
                self._counts_V["train", group], self._counts_V["dev", group]
            )
        return metrics

    def heldout_table(self) -> pa.Table:
        """doc_id, kind and num_tokens of every held-out document."""
        schema = pa.schema(
            [("doc_id", pa.string()), ("kind", pa.string()), ("num_tokens", pa.int64())]
        )
        return pa.Table.from_pylist(self._heldout, schema=schema)


def _spool(dataset: Any, paths: dict[str, Path], tally: Tally, total: int) -> int:
    """Writes every document's tokens to the file of its split; returns how many documents."""
    documents = 0
    schema = pa.schema([("tokens", pa.list_(pa.int32()))])
    with (
        pa.ipc.new_stream(str(paths["train"]), schema) as train,
        pa.ipc.new_stream(str(paths["heldout"]), schema) as heldout,
        tqdm(desc="tokenise", total=total, unit=" documents") as progress,
    ):
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            tokens = table.column("tokens").combine_chunks()
            rows = table.drop_columns(["tokens"]).to_pylist()
            for i, row in enumerate(rows):
                tally.add(
                    row["doc_id"], row["split"], row["kind"], tokens[i].values.to_numpy(),
                    row["chars"],
                )  # fmt: skip
            is_train = pa.array([row["split"] == "train" for row in rows])
            is_heldout = pa.array([row["split"] != "train" for row in rows])
            train.write_table(pa.table({"tokens": tokens.filter(is_train)}, schema=schema))
            heldout.write_table(pa.table({"tokens": tokens.filter(is_heldout)}, schema=schema))
            documents += len(rows)
            progress.update(len(rows))
    return documents


def _tokens(path: Path) -> Iterator[np.ndarray]:
    with pa.ipc.open_stream(str(path)) as stream:
        for batch in stream:
            for tokens in batch.column("tokens"):
                yield tokens.values.to_numpy()
