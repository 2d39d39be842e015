"""The encoder job. In: corpus documents and passages, retrieval questions. Out: a BERT directory
for embedding (`model/`), the one after masked-language training only (`mlm/`), metrics.jsonl.

Source: [C-Pack 3] for the two stages, METHOD.md on retrieval.
"""

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from transformers import (
    AutoModel,
    AutoTokenizer,
)

from medray.common.errors import DataError
from medray.common.manifest import Artefact, Counts
from medray.common.metrics import MetricsLog
from medray.common.records import RetrievalQuestion
from medray.common.rows import count_rows, read_rows
from medray.retrieval.questions import load_passages, load_questions
from medray.retrieval.training.contrastive import PairBatches
from medray.retrieval.training.encoder_data import prepare_data
from medray.retrieval.training.encoder_model import (
    EncoderConfig,
    add_to_model,
    build_masked_model,
)
from medray.retrieval.training.loop import Stage, load_state, run_stage
from medray.retrieval.training.mlm import (
    MaskedLanguageLoss,
    MlmBatches,
    open_blocks,
)
from medray.retrieval.training.negatives import load_mined, mine_by_words
from medray.retrieval.training.trainer import fit, publish_model

logger = logging.getLogger(__name__)
MINED = "mined.parquet"
SCRATCH = ("encoder_data", "encoder_train")
"""Names in the artefact's directory that are not part of the artefact; drop them at publishing."""


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
    mined, contrastive = data / MINED, config.contrastive
    if contrastive.hard_negatives and contrastive.steps and not mined.exists():
        mine_by_words(
            corpus / "passages", instructions / "questions", mined,
            (contrastive.mined_after, contrastive.mined_until), config.seed, config.num_workers,
        )  # fmt: skip
    if not (directory / "model").is_dir():
        loop_config = {
            "config": config.model_dump(mode="json"),
            "passages": str(corpus / "passages"),
            "questions": str(instructions / "questions"),
            "directory": str(directory),
        }
        fit(train_worker, loop_config, config, directory, "encoder_train")
    _summarise(artefact)


def train_worker(settings: dict[str, Any]) -> None:
    """What each Ray Train worker runs: both stages, then rank 0 writes the model."""
    from medray.retrieval.training.pair_loss import PairLoss

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
        mined = []
        if config.contrastive.hard_negatives:
            mined = load_mined(directory / "encoder_data" / MINED, passages)
        stage = Stage(
            "contrastive", PairLoss(encoder, config.contrastive.temperature),
            PairBatches(config.contrastive, questions, passages, tokenizer, config.seed, mined),
            config.contrastive.steps, config.contrastive.learning_rate,
            config.contrastive.warmup_steps, first_step=config.mlm.steps,
            section="encoder.contrastive",
        )  # fmt: skip
        run_stage(stage, state, loop, log)
    publish_model(encoder, tokenizer, model_dir, add)


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
