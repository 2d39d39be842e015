"""What the encoder's first stage reads. In: a corpus artefact. Out: a tokenizer, masked-language
blocks and row counts.
"""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from transformers import AutoTokenizer

from medray.common.manifest import Counts
from medray.common.records import Document
from medray.common.rows import read_batches, read_rows
from medray.common.split import unit_hash
from medray.generation.directory import check_trainable, load_options
from medray.retrieval.embed import passage_text
from medray.retrieval.training.encoder_model import EncoderConfig
from medray.retrieval.training.mlm import write_blocks
from medray.retrieval.training.tokenizer import train_tokenizer

logger = logging.getLogger(__name__)


def prepare_data(config: EncoderConfig, corpus: Path, target: Path) -> None:
    """Writes tokenizer, masked-language blocks and row counts to `target`, all or nothing.

    Training text is the documents of split train and every passage. Memory: one batch of rows.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    counts = Counts()
    if config.base:
        base = check_trainable(Path(config.base))
        tokenizer = AutoTokenizer.from_pretrained(base, **load_options())
        tokenizer.save_pretrained(temporary / "tokenizer")
    else:
        texts = (text for batch in _texts(config, corpus, Counts()) for text in batch)
        train_tokenizer(texts, config.vocab_size, config.max_positions, temporary / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(temporary / "tokenizer")
    texts = _texts(config, corpus, counts)
    blocks = write_blocks(texts, tokenizer, config.mlm.block_tokens, temporary / "blocks.bin")
    (temporary / "counts.json").write_text(counts.model_dump_json(), encoding="utf-8")
    os.replace(temporary, target)
    logger.info(
        "encoder data: %d documents, %d blocks of %d tokens, vocabulary %d",
        counts.rows_out, len(blocks), config.mlm.block_tokens, len(tokenizer),
    )  # fmt: skip


def _texts(config: EncoderConfig, corpus: Path, counts: Counts) -> Iterator[list[str]]:
    def sections() -> Iterable[Document]:
        for document in read_rows(corpus / "documents", Document):
            counts.rows_in += 1
            if document.split != "train":
                counts.reject("held_out")
            elif unit_hash(document.doc_id) >= config.mlm.document_fraction:
                counts.reject("beyond_document_fraction")
            else:
                counts.rows_out += 1
                yield document

    texts: list[str] = []
    for document in sections():
        body = "\n".join(f"{section.heading}：{section.text}" for section in document.sections)
        texts.append(passage_text(document.title, body))
        if len(texts) == 256:
            yield texts
            texts = []
    if texts:  # the tokenizer takes no empty batch
        yield texts
    for batch in read_batches(corpus / "passages"):
        rows = batch.select(["title", "text"]).to_pylist()
        yield [passage_text(row["title"], row["text"]) for row in rows]
