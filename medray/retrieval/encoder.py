"""The encoder job. In: corpus documents and passages, retrieval questions. Out: a BERT directory
for embedding (`model/`), the one after masked-language training only (`mlm/`), metrics.jsonl.

Source: [C-Pack 3] for the two stages, METHOD.md on retrieval; the small BERT of the laptop
profile replaces a BGE checkpoint, which takes its place with `base`.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from pydantic import Field, model_validator
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
)

from medray.common.errors import DataError
from medray.common.manifest import Artefact, Counts
from medray.common.metrics import MetricsLog
from medray.common.records import Document, RetrievalQuestion
from medray.common.rows import count_rows, read_batches, read_rows
from medray.common.split import unit_hash
from medray.generation.directory import check_trainable, load_options
from medray.retrieval.contrastive import (
    ContrastiveConfig,
    PairBatches,
    load_passages,
    load_questions,
)
from medray.retrieval.embed import copy_heads, passage_text, save_instruction
from medray.retrieval.loop import Stage, load_state, run_stage
from medray.retrieval.mlm import (
    MaskedLanguageLoss,
    MlmBatches,
    MlmConfig,
    open_blocks,
    write_blocks,
)
from medray.retrieval.tokenizer import train_tokenizer
from medray.retrieval.trainer import RetrievalTraining, fit, publish_model

logger = logging.getLogger(__name__)
SCRATCH = ("encoder_data", "encoder_train")
"""Names in the artefact's directory that are not part of the artefact; drop them at publishing."""


class EncoderConfig(RetrievalTraining):
    """The encoder, its two training stages, and the workers."""

    base: str = ""
    """A Hugging Face directory (BGE, BERT, RoBERTa) to start from; empty builds a small BERT. The
    heads of a BGE-M3 come along as they are: neither stage trains them."""
    num_layers: int = Field(default=3, ge=1)
    """Of the small BERT. Source: not given; the largest that trains in 100 s on two cores."""
    hidden_size: int = Field(default=128, ge=8)
    num_heads: int = Field(default=4, ge=1)
    vocab_size: int = Field(default=6000, ge=100)
    max_positions: int = Field(default=512, ge=16)
    """Source: [BERT]."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the small BERT. Differs from [BERT A.2]'s 0.1: a run of minutes fits too little, not too
    much (sample hospital, same steps: recall@5 0.89 with 0.1, 1.00 with 0), and it is faster."""
    mlm: MlmConfig = MlmConfig()
    contrastive: ContrastiveConfig = ContrastiveConfig()

    @model_validator(mode="after")
    def _fits(self) -> "EncoderConfig":
        for name, size in (
            ("mlm", self.mlm.batch_size),
            ("contrastive", self.contrastive.batch_size),
        ):
            if size % self.num_workers:
                raise ValueError(
                    f"{name}.batch_size must be a multiple of num_workers "
                    f"{self.num_workers}, got {size}"
                )
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_heads {self.num_heads}, "
                f"got {self.hidden_size}"
            )
        longest = max(
            self.mlm.block_tokens,
            self.contrastive.max_passage_tokens,
            self.contrastive.max_query_tokens,
        )
        if not self.base and longest > self.max_positions:
            raise ValueError(f"{longest} tokens exceed max_positions {self.max_positions}")
        return self


def train_encoder(
    config: EncoderConfig, corpus: Path, instructions: Path, artefact: Artefact
) -> None:
    """Trains the encoder on Ray Train workers and writes it under `artefact.dir`.

    A killed run is continued by calling this again: finished parts are kept, training goes on
    from the newest checkpoint and ends in the same weights.

    Raises:
        DataError: if the corpus has no training text or no passage.
        CheckpointError: if `base` is not a model directory, or has pickled weights only.
    """
    # Workers run in a directory of their own.
    corpus, instructions, directory = (p.resolve() for p in (corpus, instructions, artefact.dir))
    if not count_rows(corpus / "passages"):
        raise DataError(
            f"{corpus / 'passages'} holds no passage; add literature to the corpus sources"
        )
    data = directory / "encoder_data"
    if not data.is_dir():
        prepare_data(config, corpus, data)
    counts = json.loads((data / "counts.json").read_text(encoding="utf-8"))
    artefact.counts["mlm_documents"] = Counts.model_validate(counts)
    _count_questions(instructions, artefact)
    if not (directory / "model").is_dir():
        loop_config = {
            "config": config.model_dump(mode="json"),
            "passages": str(corpus / "passages"),
            "questions": str(instructions / "questions"),
            "directory": str(directory),
        }
        fit(train_worker, loop_config, config, directory, "encoder_train")
    _summarise(artefact)


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


def train_worker(settings: dict[str, Any]) -> None:
    """What each Ray Train worker runs: both stages, then rank 0 writes the model."""
    from medray.retrieval.pair_loss import PairLoss

    logging.basicConfig(level=logging.INFO)
    transformers.logging.set_verbosity_error()  # the head and the pooler differ by design
    config = EncoderConfig.model_validate(settings["config"])
    directory = Path(settings["directory"])
    mlm_dir, model_dir = directory / "mlm", directory / "model"
    tokenizer = AutoTokenizer.from_pretrained(directory / "encoder_data" / "tokenizer")
    loop = config.loop()
    add = partial(add_to_model, config)
    log = MetricsLog(directory / "metrics.jsonl")
    state = load_state()
    was_done = mlm_dir.is_dir()
    dist.barrier()  # all have looked before the first of them writes it
    if was_done and (state is None or state.step <= config.mlm.steps):
        state = None  # the finished stage outranks a checkpoint taken within it
        done = config.mlm.steps
    else:
        done = 0 if state is None else state.step
    if dist.get_rank() == 0:
        logger.info("encoder training starts after step %d", done)
        log.truncate(done)

    # 1. masked language
    if not was_done:
        torch.manual_seed(config.seed)
        masked = build_masked_model(config, tokenizer)
        if config.mlm.steps:
            blocks = open_blocks(directory / "encoder_data" / "blocks.bin", config.mlm.block_tokens)
            stage = Stage(
                "mlm", MaskedLanguageLoss(masked, config.mlm.cls_weight),
                MlmBatches(config.mlm, blocks, tokenizer, config.seed),
                config.mlm.steps, config.mlm.learning_rate, config.mlm.warmup_steps, first_step=0,
                section="encoder.mlm",
            )  # fmt: skip
            run_stage(stage, state, loop, log)
        state = None
        publish_model(masked, tokenizer, mlm_dir, add)

    # 2. contrastive
    torch.manual_seed(config.seed)
    encoder = AutoModel.from_pretrained(mlm_dir)
    for name, parameter in encoder.named_parameters():
        if "pooler" in name:  # [CLS] pooling leaves it out
            parameter.requires_grad_(False)
    if config.contrastive.steps:
        passages = load_passages(Path(settings["passages"]))
        questions = load_questions(Path(settings["questions"]), passages)
        stage = Stage(
            "contrastive", PairLoss(encoder, config.contrastive.temperature),
            PairBatches(config.contrastive, questions, passages, tokenizer, config.seed),
            config.contrastive.steps, config.contrastive.learning_rate,
            config.contrastive.warmup_steps, first_step=config.mlm.steps,
            section="encoder.contrastive",
        )  # fmt: skip
        run_stage(stage, state, loop, log)
    publish_model(encoder, tokenizer, model_dir, add)


def add_to_model(config: EncoderConfig, directory: Path) -> None:
    """Writes what a model directory holds beside the model: how questions begin, M3's heads."""
    save_instruction(directory, config.contrastive.query_instruction)
    if config.base:
        copy_heads(Path(config.base), directory)


def build_masked_model(config: EncoderConfig, tokenizer: Any) -> Any:
    """Returns the model that masked-language training starts from."""
    if config.base:
        base = check_trainable(Path(config.base))
        return AutoModelForMaskedLM.from_pretrained(base, use_safetensors=True, **load_options())
    return BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=4 * config.hidden_size,
            max_position_embeddings=config.max_positions,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


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


def _count_questions(instructions: Path, artefact: Artefact) -> None:
    counts = Counts(rows_in=count_rows(instructions / "questions"))
    for question in read_rows(instructions / "questions", RetrievalQuestion):
        if question.split == "train":
            counts.rows_out += 1
        else:
            counts.reject("held_out")
    artefact.counts["contrastive_questions"] = counts


def _summarise(artefact: Artefact) -> None:
    rows = MetricsLog(artefact.dir / "metrics.jsonl").read()
    for stage in ("mlm", "contrastive"):
        losses = [row[f"{stage}/loss"] for row in rows if f"{stage}/loss" in row]
        if losses:
            artefact.metrics[f"{stage}/loss_before"] = losses[0]
            artefact.metrics[f"{stage}/loss_after"] = losses[-1]
    logger.info("encoder: %s", artefact.metrics)
