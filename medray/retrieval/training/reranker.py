"""The reranker job. In: an encoder, an index, training questions. Out: a cross-encoder (`model/`),
metrics.jsonl, and figures of the search with and without it.

It starts from the encoder as masked-language training left it, or from a BGE reranker (`base`).
Source: [C-Pack 3.2]. Differs: the loop is that of the encoder, which a killed run resumes exactly.
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
import transformers
from pydantic import Field, model_validator
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from medray.common.errors import DataError
from medray.common.manifest import Artefact, Counts
from medray.common.metrics import MetricsLog
from medray.common.records import RetrievalQuestion
from medray.common.rows import read_rows
from medray.generation.directory import check_trainable, load_options
from medray.retrieval.embed import Embedder, passage_text
from medray.retrieval.fusion import best_weight, order_of
from medray.retrieval.measure import Asked, split_for_tuning
from medray.retrieval.questions import held_out_questions, load_passages
from medray.retrieval.recall import retrieval_metrics
from medray.retrieval.rerank import SETTINGS, Reranker, RerankSettings, blended
from medray.retrieval.search import Hit, Searcher, open_index
from medray.retrieval.training.listwise import GroupBatches, GroupsConfig, ListwiseLoss
from medray.retrieval.training.loop import Stage, load_state, run_stage
from medray.retrieval.training.negatives import SCHEMA, negatives_of, write_mined
from medray.retrieval.training.trainer import RetrievalTraining, fit, publish_model

logger = logging.getLogger(__name__)
MINED = "reranker_data"
SCRATCH = (MINED, "reranker_train")
"""Names in the artefact's directory that are not part of the artefact; dropped at publishing."""


class RerankerConfig(RetrievalTraining):
    """The cross-encoder and its training."""

    base: str = ""
    """A Hugging Face directory (a BGE reranker, a BERT) to start from; empty takes the encoder as
    masked-language training left it."""
    steps: int = Field(default=400, ge=1)
    groups: GroupsConfig = GroupsConfig()
    learning_rate: float = Field(default=3e-4, gt=0)
    """Peak. Source: not given; for 1-2 M parameters. BGE rerankers want 6e-5 [FlagEmbedding]."""
    warmup_steps: int = Field(default=40, ge=0)
    candidates: int = Field(default=30, ge=1)
    """Passages of a search that are looked at again as it is measured, as many as the gateway's
    `rerank_candidates`."""
    max_held_out: int = Field(default=1000, ge=1)
    """Held-out questions that are asked: half choose the weight, the figures are of the others."""

    @model_validator(mode="after")
    def _fits(self) -> "RerankerConfig":
        if self.groups.batch_size % self.num_workers:
            raise ValueError(
                f"groups.batch_size must be a multiple of num_workers {self.num_workers}, "
                f"got {self.groups.batch_size}"
            )
        return self


def train_reranker(
    config: RerankerConfig, encoder: Path, index: Path, questions: Path, artefact: Artefact
) -> None:
    """Mines negatives, trains on Ray Train workers and measures. A killed run is continued by
    calling this again.

    Args:
        encoder, index: artefacts; questions: RetrievalQuestion shards.
    Raises:
        DataError: if no training question has its passage in the index.
        CheckpointError: if `base` is not a model directory, or has pickled weights only.
    """
    # Workers run in a directory of their own.
    encoder, index, directory = (p.resolve() for p in (encoder, index, artefact.dir))
    base = check_trainable(Path(config.base).resolve() if config.base else encoder / "mlm")
    with open_index(index) as searcher:
        embedder = Embedder(encoder / "model")
        mined = directory / MINED / "mined.parquet"
        if not mined.exists():
            mine(config, searcher, embedder, questions, mined)
        artefact.counts["reranker_questions"] = Counts(rows_in=pq.read_metadata(mined).num_rows)
        artefact.counts["reranker_questions"].rows_out = pq.read_metadata(mined).num_rows
        if not (directory / "model").is_dir():
            loop_config = {
                "config": config.model_dump(mode="json"),
                "base": str(base),
                "passages": str(index / "passages"),
                "directory": str(directory),
            }
            fit(train_worker, loop_config, config, directory, "reranker_train")
        measure(config, searcher, embedder, questions, artefact)


def mine(
    config: RerankerConfig, searcher: Searcher, embedder: Embedder, questions: Path, target: Path
) -> None:
    """Writes question, passage_ids that answer, and negatives, best first: at most
    `max_questions` training questions, by their ids.

    Raises:
        DataError: if there is none.
    """
    known = set(searcher.ids)
    train = sorted(
        (q for q in read_rows(questions, RetrievalQuestion) if q.split == "train"),
        key=lambda question: question.id,
    )
    train = [q for q in train if known.issuperset(q.passage_ids)][: config.groups.max_questions]
    if not train:
        raise DataError(f"no training question in {questions} has its passages in the index")
    texts = [question.question for question in train]
    asked = Asked.of(texts, [q.passage_ids for q in train], embedder.encode_queries(texts))
    rows = []
    for question, (text, vector_D, weights) in zip(train, asked.each(), strict=True):
        gold = set(question.passage_ids)
        hits = searcher.search(text, vector_D, config.groups.depth, weights=weights)
        ranked = [(hit.passage.passage_id, read_of(hit)) for hit in hits]
        # What repeats a text that answers has its score, and is found with it.
        answers = {read for name, read in ranked if name in gold}
        negatives = negatives_of(ranked, gold, answers)
        if negatives:
            rows.append(
                {"question": question.question, "gold": question.passage_ids,
                 "negatives": negatives}
            )  # fmt: skip
    if not rows:
        raise DataError("the index holds no passage beside those that answer")
    write_mined(pa.Table.from_pylist(rows, schema=SCHEMA), target)
    logger.info("reranker: negatives of %d questions", len(rows))


def train_worker(settings: dict[str, Any]) -> None:
    """What each Ray Train worker runs; rank 0 writes the model."""
    logging.basicConfig(level=logging.INFO)
    transformers.logging.set_verbosity_error()  # the head is new by design
    config = RerankerConfig.model_validate(settings["config"])
    directory, base = Path(settings["directory"]), Path(settings["base"])
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(config.seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, use_safetensors=True, **load_options()
    )
    log, state = MetricsLog(directory / "metrics.jsonl"), load_state()
    if dist.get_rank() == 0:
        log.truncate(0 if state is None else state.step)
    mined = pq.read_table(directory / MINED / "mined.parquet").to_pylist()
    batches = GroupBatches(
        config.groups, mined, load_passages(Path(settings["passages"])), tokenizer, config.seed
    )
    stage = Stage(
        "reranker", ListwiseLoss(model, 1 + config.groups.negatives), batches, config.steps,
        config.learning_rate, config.warmup_steps, first_step=0, section="reranker",
    )  # fmt: skip
    run_stage(stage, state, config.loop(), log)
    publish_model(model, tokenizer, directory / "model", partial(write_settings, config))


def write_settings(config: RerankerConfig, directory: Path, weight: float = 1.0) -> None:
    """Into the model's directory."""
    settings = RerankSettings(weight=weight, max_tokens=config.groups.max_tokens)
    (directory / SETTINGS).write_text(settings.model_dump_json(indent=1), encoding="utf-8")


def measure(
    config: RerankerConfig,
    searcher: Searcher,
    embedder: Embedder,
    questions: Path,
    artefact: Artefact,
) -> None:
    """Chooses the weight on half of the held-out questions; figures are of the others."""
    rows, artefact.counts["held_out"] = held_out_questions(
        questions, set(searcher.ids), config.max_held_out
    )
    if not rows:
        logger.warning("no held-out question; the reranker decides alone")
        return
    texts = [row.question for row in rows]
    asked = Asked.of(texts, [row.passage_ids for row in rows], embedder.encode_queries(texts))
    tuning, rest = split_for_tuning(asked)
    reranker = Reranker(artefact.dir / "model")
    weight = 1.0
    if tuning.texts:
        names, blends = looked_at(searcher, reranker, tuning, config.candidates)
        weight = best_weight(names, blends, tuning.gold)
    write_settings(config, artefact.dir / "model", weight)
    names, blends = looked_at(searcher, reranker, rest, config.candidates)
    for prefix, used in (("", weight), ("search/", 0.0)):
        ranked = [order_of(n, blend(used))[:10] for n, blend in zip(names, blends, strict=True)]
        artefact.metrics.update(retrieval_metrics(ranked, rest.gold, prefix))
    artefact.metrics["weight"] = weight
    losses = MetricsLog(artefact.dir / "metrics.jsonl").read()
    artefact.metrics["loss_before"] = losses[0]["reranker/loss"]
    artefact.metrics["loss_after"] = losses[-1]["reranker/loss"]
    logger.info("reranker: %s", artefact.metrics)


def looked_at(
    searcher: Searcher, reranker: Reranker, asked: Asked, num_candidates: int
) -> tuple[list[list[str]], list[partial[np.ndarray]]]:
    """(ids of the candidates, weight → scores_C) of each question."""
    names, blends = [], []
    for text, vector_D, weights in asked.each():
        hits = searcher.search(text, vector_D, num_candidates, weights=weights)
        names.append([hit.passage.passage_id for hit in hits])
        relevance_C = reranker.scores([(text, read_of(hit)) for hit in hits])
        blends.append(partial(blended, np.array([hit.score for hit in hits]), relevance_C))
    return names, blends


def read_of(hit: Hit) -> str:
    """What a reranker reads of a passage."""
    return passage_text(hit.passage.title, hit.passage.text)
