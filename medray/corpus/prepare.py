"""The corpus job. In: a hospital's export, or public sets. Out: documents/, passages/,
tokenizer/ (unless a model brings one), blocks/, medical/ (the filter, if one is set), quarantine/.

Source: [EMR-LLM 1.2, 1.5]; DESIGN.md 1.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Self

import pyarrow as pa
from pydantic import Field, model_validator

from medray.common.config import Config
from medray.common.errors import DataError
from medray.common.manifest import Artefact, Counts, remove
from medray.common.records import Document, Passage
from medray.common.rows import read_batches, read_rows, write_rows
from medray.common.sources import (
    PROBE_LINES,
    Rejected,
    SourceRow,
    check_source,
)
from medray.common.split import unit_hash
from medray.corpus.chunk import ChunkConfig, chunk
from medray.corpus.clean import CleanConfig, render
from medray.corpus.decontaminate import DecontaminationConfig, build_index
from medray.corpus.documents import Settings, read_documents
from medray.corpus.duplicates.find import DROPPED, WORK, find_duplicates
from medray.corpus.duplicates.near import NearDuplicateConfig
from medray.corpus.erased import read_erased
from medray.corpus.medical.classifier import MedicalClassifier
from medray.corpus.medical.filter import (
    NOT_MEDICAL,
    MedicalFilterConfig,
    check_filter,
    filter_medical,
)
from medray.corpus.prepared import CACHE, PREPARED
from medray.corpus.readers.reading import open_files, read_corpus
from medray.corpus.shards import write_documents
from medray.corpus.sources import CorpusSource, raw_row
from medray.corpus.stages import Outcome, Stages
from medray.corpus.terms.dictionaries import read_dictionary
from medray.corpus.terms.normalise import TermsConfig, load_terms
from medray.corpus.terms.words import Segmenter
from medray.corpus.tokenizer import (
    TokenizerConfig,
    load_tokenizer,
    train_tokenizer,
    trained_tokenizer,
)
from medray.corpus.tokens import write_token_blocks
from medray.generation.prompts import formats
from medray.privacy.audit import KEY_ENV as AUDIT_KEY_ENV
from medray.privacy.surrogates import KeyConfig, Surrogates, load_key


class CorpusConfig(Config):
    """What the corpus is made of, and how."""

    sources: list[CorpusSource] = Field(min_length=1)
    dev_fraction: float = Field(default=0.15, ge=0, lt=1)
    """Share of patients and texts held out from training. Source: not given; enough of 2 000
    records for a loss with an error of 1 %."""
    max_rejected_fraction: float = Field(default=0.05, ge=0, le=1)
    """The job stops if more lines of one source cannot be read. Source: not given."""
    dedup: bool = True
    """Keep one of several equal texts; and, with `near_duplicates`, of several similar ones."""
    near_duplicates: NearDuplicateConfig | None = NearDuplicateConfig()
    """None keeps texts that are similar but not equal."""
    decontamination: DecontaminationConfig = DecontaminationConfig()
    clean: CleanConfig = CleanConfig()
    terms: TermsConfig = TermsConfig()
    chunk: ChunkConfig = ChunkConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    medical_filter: MedicalFilterConfig | None = None
    """What sources with `medical: filter` are judged by. None: nothing is judged."""
    replay_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of general text among the training tokens, where a source is marked `general`.
    Source: Ibrahim et al. 2024 (Simple and scalable strategies to continually pre-train large
    language models): 5 % prevents forgetting under a weak shift; 0.25 under a strong one."""
    block_tokens: int = Field(default=512, ge=8)
    """Tokens of a training block. Source: not given in [EMR-LLM]; [ClinicalGPT 3.1] tunes at
    1 024, set there."""
    privacy: KeyConfig = KeyConfig()
    audit: KeyConfig = KeyConfig(key_env=AUDIT_KEY_ENV)
    """Where the key of the audit labels lies; made as `keys/audit.key` if no file is named."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(f"sources need different names, got {', '.join(names)}")
        if not any(source.pretrain and not source.general for source in self.sources):
            raise ValueError("no source has pretrain: true, so there is nothing to train on")
        check_filter(self.sources, self.medical_filter)
        kept = {*self.decontamination.keep, *(self.near_duplicates or self.decontamination).keep}
        if unknown := kept - set(names):
            raise ValueError(f"keep names sources that there are not: {', '.join(sorted(unknown))}")
        return self


def check_sources(config: CorpusConfig, data: Path) -> None:
    """Opens every file and looks at the first lines of each source, before any work starts.

    Raises:
        DataError: if a source is missing, empty, in another encoding, or makes no row; or if the
            first lines of a dictionary cannot be read.
    """
    for source in config.sources:
        open_files(source, data)
        if source.format != "files":
            continue  # to join the tables is the work itself
        check_source(source, data, read=read_corpus)
        lines = list(islice(read_corpus(source, data), PROBE_LINES))
        rows = [raw_row(x, source.kind) if isinstance(x, SourceRow) else x for x in lines]
        reasons = [row.reason for row in rows if isinstance(row, Rejected)]
        if len(reasons) == len(rows):
            raise DataError(
                f"source {source.name}: none of the first {len(rows)} lines makes a "
                f"{source.kind} ({reasons[0]}); map the field in the source's fields"
            )
    for evaluation in config.decontamination.sets:
        check_source(evaluation, data)
    for dictionary in config.terms.dictionaries:
        list(islice(read_dictionary(dictionary, data), PROBE_LINES))


def prepare_corpus(
    config: CorpusConfig, data: Path, artefact: Artefact, tokenizer_path: Path | None
) -> None:
    """Makes the corpus in `artefact.dir`; stages that an earlier run finished are kept.

    Args:
        data: directory of the export; every Ray node must see it.
        tokenizer_path: directory of the model whose tokenizer to use; None trains one.
    Raises:
        DataError, ConfigError, CheckpointError: if an input is missing or wrong.
    """
    target, stages = artefact.dir, Stages(artefact)
    medical = config.medical_filter
    if tokenizer_path is not None:
        load_tokenizer(tokenizer_path)  # a wrong path shows before the work starts
    if medical is not None and medical.model:
        MedicalClassifier.load(medical.directory)

    stages.run("read", lambda: _read(config, data, artefact))
    stages.run("duplicates", lambda: _duplicates(config, target))
    if medical is not None:
        stages.run("medical", lambda: filter_medical(target, config.sources, medical))
    stages.run("documents", lambda: write_documents(target))
    for name in (PREPARED, DROPPED, WORK, NOT_MEDICAL):
        remove(target / name)
    stages.run("passages", lambda: _passages(config, target))
    if tokenizer_path is None:
        stages.run("tokenizer", lambda: _tokenizer(config, data, artefact))
    stages.run("blocks", lambda: pack_corpus(config, target, tokenizer_path))


def pack_corpus(config: CorpusConfig, target: Path, tokenizer_path: Path | None) -> Outcome:
    """Packs documents/ of `target` into blocks/, in place of those that are there."""
    return write_token_blocks(
        target / "documents",
        target / "blocks",
        {source.name for source in config.sources if source.pretrain},
        load_tokenizer(tokenizer_path) if tokenizer_path else trained_tokenizer(target),
        config.block_tokens,
        config.replay_fraction,
    )


def _read(config: CorpusConfig, data: Path, artefact: Artefact) -> Outcome:
    key = load_key(config.privacy, artefact.storage.local_root / "keys" / "surrogates.key")
    audit_key = load_key(config.audit, artefact.storage.local_root / "keys" / "audit.key")
    index = None
    if config.decontamination.sets:
        index = build_index(config.decontamination, data)
    settings = Settings(
        data=data.resolve(),
        sources=config.sources,
        dev_fraction=config.dev_fraction,
        clean=config.clean,
        key=key,
        audit_key=audit_key,
        evaluation=index,
        erased=frozenset(read_erased(artefact.storage)),
        terms=load_terms(config.terms, data),
    )
    remove(artefact.dir / WORK)  # of other rows
    counts, metrics = read_documents(
        settings,
        artefact.dir,
        artefact.storage.local_root / CACHE,
        max_rejected_fraction=config.max_rejected_fraction,
    )
    if index is None:
        del metrics["overlaps"]
    else:
        metrics["evaluation_items_too_short"] = index.too_short
    return counts, {**metrics, "surrogate_key_id": Surrogates(key).key_id()}


def _duplicates(config: CorpusConfig, target: Path) -> Outcome:
    names = [source.name for source in config.sources]
    near = config.near_duplicates if config.dedup else None
    return find_duplicates(target, names, near, exact=config.dedup)


def _passages(config: CorpusConfig, target: Path) -> Outcome:
    wanted = {source.name for source in config.sources if source.passages}
    counts = Counts()

    def passages() -> Iterator[Passage]:
        for batch in read_batches(target / "documents"):
            counts.rows_in += len(batch)
            is_wanted = [source in wanted for source in batch.column("source").to_pylist()]
            if others := is_wanted.count(False):
                counts.reject("not_knowledge", others)
            for values in batch.filter(pa.array(is_wanted, pa.bool_())).to_pylist():
                document = Document.model_validate(values)
                if document.superseded_by and config.chunk.skip_superseded:
                    counts.reject("superseded")
                elif pieces := list(chunk(document, config.chunk)):
                    counts.rows_out += 1
                    yield from pieces
                else:
                    counts.reject("no_passage")

    partial = target / ".passages"
    remove(partial)
    remove(target / "passages")
    num_passages = write_rows(partial, Passage, passages())
    partial.replace(target / "passages")
    return {"chunk": counts}, {"passages": num_passages}


def _tokenizer(config: CorpusConfig, data: Path, artefact: Artefact) -> Outcome:
    """Trains on the training split of every source but the general ones, pretrained on or not; of a
    large corpus, on the documents with least hash."""
    target, counts = artefact.dir, Counts()
    fraction = config.tokenizer.max_train_chars / max(1, artefact.metrics["document_chars"])

    def texts() -> Iterator[str]:
        for document in read_rows(target / "documents", Document):
            counts.rows_in += 1
            if document.split != "train":
                counts.reject("held_out")
            elif document.general:
                counts.reject("general")
            elif unit_hash(f"tokenizer/{document.doc_id}") >= fraction:
                counts.reject("not_sampled")
            else:
                counts.rows_out += 1
                yield render(document)
                yield from formats()  # a document is read within one of them

    pieces = texts()
    if config.tokenizer.within_words:
        segmenter = Segmenter(load_terms(config.terms, data).vocabulary)
        pieces = (piece for text in texts() for piece in segmenter.pieces(text))
    tokenizer = train_tokenizer(config.tokenizer, pieces)
    partial = target / ".tokenizer"
    remove(partial)
    remove(target / "tokenizer")
    tokenizer.save_pretrained(partial)
    partial.replace(target / "tokenizer")
    return {"train_tokenizer": counts}, {}
