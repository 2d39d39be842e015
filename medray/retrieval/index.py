"""The index job. In: encoder, passages, held-out questions. Out: passages with vectors in Parquet
(the source of truth), a Milvus collection and an index of words made from them (with BGE-M3 one
of its weights of tokens as well), recall@k. The training questions teach how much each term of a
question says.

Source: [EMR-LLM] retrieval of the k nearest passages by cosine; DESIGN.md 3 on versions and alias.
"""

import logging
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import Field
from pymilvus import MilvusClient

from medray.common.errors import DataError
from medray.common.manifest import Artefact, Counts, remove
from medray.common.rows import count_rows
from medray.retrieval.collection import CollectionConfig, connect, disconnect, is_lite
from medray.retrieval.directory import (
    LEXICAL,
    ROUTER,
    SPARSE,
    build_lexical,
    read_columns,
    read_info,
    save_lexical,
    save_sparse,
    write_info,
)
from medray.retrieval.embed import Embedder, has_heads
from medray.retrieval.filters import COLUMNS
from medray.retrieval.lexical import LexicalConfig, LexicalIndex
from medray.retrieval.measure import (
    Asked,
    calibrated_threshold,
    index_figures,
    measured_router,
    measured_weights,
    split_for_tuning,
)
from medray.retrieval.passage_vectors import (
    MAX_TOKENS,
    EmbeddingConfig,
    embed_passages,
    known_vectors,
)
from medray.retrieval.questions import held_out_questions, load_questions
from medray.retrieval.routing import RouterConfig
from medray.retrieval.search import HybridConfig, Searcher
from medray.retrieval.sparse import SparseIndex
from medray.retrieval.term_weights import TermWeightsConfig, learn_term_weights
from medray.retrieval.versions import (
    ALIAS,
    alias_target,
    drop_older,
    drop_unfinished,
    fill,
    finish,
    switch_alias,
)

logger = logging.getLogger(__name__)
LITE = "milvus.db"
FORMER = "former"
"""Key of collection.json: the collections that were dropped when the index was refilled."""


class IndexConfig(EmbeddingConfig):
    """The index."""

    uri: str = ""
    """A Milvus cluster, http://host:19530. Empty: Milvus Lite, milvus.db in the artefact."""
    collection: CollectionConfig = CollectionConfig()
    lexical: LexicalConfig = LexicalConfig()
    term_weights: TermWeightsConfig = TermWeightsConfig()
    hybrid: HybridConfig = HybridConfig()
    router: RouterConfig = RouterConfig()
    max_questions: int = Field(default=2000, ge=1)
    """Held-out questions that are asked, the first in id order: up to half of them choose
    the weights of `hybrid`, the figures are of the others."""


def build_index(
    config: IndexConfig,
    encoder: Path,
    corpus: Path,
    questions: Path | None,
    artefact: Artefact,
    earlier: Path | None = None,
    prompts: Path | None = None,
) -> None:
    """Embeds all passages, fills Milvus and the index of words, and measures on the questions of
    split dev.

    Finished vectors in `artefact.dir` are reused; the collection is always filled anew.

    Args:
        encoder: an encoder artefact, or any directory with a Hugging Face model under `model/`.
        questions: directory of RetrievalQuestion shards; None skips the figures.
        earlier: an index that the same encoder made; passages that stand in it as they are now keep
            their vectors.
        prompts: directory of fine-tuning rows, which tell what is asked without passages; None has
            every question looked up.
    Raises:
        DataError: if there is no passage, or passage ids repeat.
        ServiceError: if no Milvus answers at `config.uri`.
    """
    # Ray Data's actors run in a directory of their own.
    encoder, corpus = (encoder / "model").resolve(), corpus.resolve()
    target = artefact.dir.resolve() / "passages"
    rows_in = count_rows(corpus / "passages")
    if not rows_in:
        raise DataError(f"{corpus / 'passages'} holds no passage; run the corpus job first")
    lite = not config.uri or is_lite(config.uri)
    uri = (config.uri or str(artefact.dir / LITE)) if lite else config.uri
    disconnect(connect(uri), uri)  # a wrong URI shows before the long work
    if not target.is_dir():
        started = time.monotonic()
        known = None
        if earlier is not None:
            known = known_vectors(earlier, config.max_tokens, weighed=has_heads(encoder))
        kept = embed_passages(config, encoder, corpus / "passages", target, known)
        artefact.metrics["vectors_kept"] = kept
        artefact.metrics["time/embed_s"] = round(time.monotonic() - started, 2)
    client = connect(uri)
    try:
        rows_out = count_rows(target)
        artefact.counts["embed"] = Counts(rows_in=rows_in, rows_out=rows_out)
        started = time.monotonic()
        drop_unfinished(client)
        filled = fill(client, target, config.collection)
        artefact.metrics["time/load_s"] = round(time.monotonic() - started, 2)
        info = {
            "uri": "" if lite else uri,
            "collection": filled,
            "alias": ALIAS,
            "passages": rows_out,
            MAX_TOKENS: config.max_tokens,
            "config": config.collection.model_dump(mode="json"),
            "lexical": config.lexical.model_dump(mode="json"),
            "hybrid": config.hybrid.model_dump(mode="json"),
        }
        lexical = build_lexical(target, config.lexical)
        if questions is not None:
            started = time.monotonic()
            ids = pq.read_table(target, columns=["passage_id"])
            lexical.weights_V = learn_term_weights(
                lexical, load_questions(questions, ids), config.term_weights
            )
            artefact.metrics["time/term_weights_s"] = round(time.monotonic() - started, 2)
        save_lexical(artefact.dir, lexical)
        save_sparse(artefact.dir)
        remove(artefact.dir / ROUTER)  # of a run that was begun with other rows
        if questions is not None:
            measure_index(config, encoder, questions, prompts, artefact, client, uri, info)
        # A version last of all: a build that dies before leaves none behind.
        name = info["collection"] = finish(client, filled)
        switch_alias(client, name)
        drop_older(client, config.collection.keep_versions)
        write_info(artefact.dir, info)
    finally:
        disconnect(client, uri)
    logger.info("index: %d passages in %s; %s", rows_out, name, artefact.metrics)


def refill(directory: Path) -> None:
    """Fills the collection of an index artefact anew from its Parquet, and drops the one that it
    named before: a passage that was taken out of the shards is in neither. Those of other indexes
    stay.

    Raises:
        ServiceError: if no Milvus answers. DataError: if no passage is left.
    """
    info = read_info(directory)
    config = CollectionConfig.model_validate(info["config"])
    uri = info["uri"] or str(directory / LITE)
    if not info["uri"]:
        remove(directory / LITE)
    client = connect(uri)
    try:
        drop_unfinished(client)  # they may hold what was taken out
        name = finish(client, fill(client, directory / "passages", config))
        if alias_target(client) in ("", info.get("collection")):
            switch_alias(client, name)
    finally:
        disconnect(client, uri)
    old = directory / LEXICAL
    weights = LexicalIndex.load(old).weights if old.is_dir() else {}
    lexical = LexicalConfig.model_validate(info.get("lexical", {}))
    save_lexical(directory, build_lexical(directory / "passages", lexical, weights))
    save_sparse(directory)
    remove(directory / ROUTER)  # learned from records too; until the next index all is looked up
    if info["uri"] and info.get("collection") not in (None, name):
        info[FORMER] = [*info.get(FORMER, []), info["collection"]]
    info |= {"collection": name, "passages": count_rows(directory / "passages")}
    write_info(directory, info)
    drop_former(directory)


def drop_former(directory: Path) -> None:
    """Drops the collections that an index in a cluster named before it was refilled, also those
    that a replica which had not heard of it has filled anew since.

    Raises:
        ServiceError: if no Milvus answers.
    """
    info = read_info(directory)
    if former := info.get(FORMER):
        client = connect(info["uri"])
        try:
            for name in former:
                client.drop_collection(name)
        finally:
            disconnect(client, info["uri"])


def measure_index(
    config: IndexConfig,
    encoder: Path,
    questions: Path,
    prompts: Path | None,
    artefact: Artefact,
    client: MilvusClient,
    uri: str,
    info: dict[str, Any],
) -> None:
    """Writes figures into the artefact's metrics; into `info` the weights of the rankings, where
    they are to be measured, the cosine below which there is no answer, and which questions are
    looked up."""
    passages = artefact.dir / "passages"
    table = read_columns(passages, "passage_id", "vector", *COLUMNS)
    rows, artefact.counts["questions"] = held_out_questions(
        questions, set(table["passage_id"].to_pylist()), config.max_questions
    )
    if not rows:
        logger.warning("no held-out question; recall is not measured")
        return
    embedder = Embedder(encoder, max_tokens=config.max_tokens, batch_size=config.batch_size)
    texts = [row.question for row in rows]
    made = embedder.encode_queries(texts)
    asked = Asked.of(texts, [row.passage_ids for row in rows], made)
    lexical = LexicalIndex.load(artefact.dir / LEXICAL)
    sparse = SparseIndex.load(artefact.dir / SPARSE) if made.weights_N else None
    searcher = Searcher(client, uri, info["collection"], lexical, table, info, sparse)
    tuning, asked = split_for_tuning(asked)
    if tuning.texts:
        searcher.hybrid = measured_weights(searcher, tuning)
        for name in ("dense_weight", "sparse_weight"):
            if getattr(config.hybrid, name) is None and getattr(searcher.hybrid, name) is not None:
                artefact.metrics[name] = getattr(searcher.hybrid, name)
        threshold = calibrated_threshold(searcher, tuning)
        info["min_cosine"] = threshold.min_cosine
        artefact.metrics.update(
            {f"threshold/{name}": round(v, 4) for name, v in threshold._asdict().items()}
        )
    if prompts is not None:
        router, figures = measured_router(
            config.router, embedder, questions, prompts, tuning.vectors_QD, asked.vectors_QD
        )
        if router is not None:
            router.save(artefact.dir / ROUTER)
            artefact.metrics.update(figures)
    info["hybrid"] = searcher.hybrid.model_dump(mode="json")
    artefact.metrics.update(index_figures(searcher, asked, table))
