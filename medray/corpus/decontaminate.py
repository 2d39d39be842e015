"""Overlap with evaluation sets. In: documents, evaluation items. Out: documents without them.

An item is found in a document by the share of its distinct 13-character n-grams that the document
holds. A single n-gram says little: 13 letters of English are two words, and exam questions share
their phrases. Source: Brown et al. 2020 (GPT-3), appendix C, 13-grams; Chowdhery et al. 2022
(PaLM), 8, a share of the item's n-grams. Differs: characters instead of words, so that Chinese
needs no segmentation; letters and digits only.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from medray.common.config import Config
from medray.common.errors import DataError
from medray.common.ngrams import canonical, ngram_hashes
from medray.common.records import Document
from medray.common.sentences import split_sentences
from medray.common.sources import Source, SourceRow, read_source

NGRAM = 13
"""Characters. Source: the 13-grams of Brown et al. 2020."""


class EvaluationSet(Source):
    """Files that a model is evaluated on."""

    kind: Literal["evaluation"] = "evaluation"  # pyright: ignore[reportIncompatibleVariableOverride]
    texts: list[str] = Field(min_length=1)
    """Fields that make up an item, such as [question, options]; all text below them counts."""
    where: dict[str, str] = Field(default_factory=dict)
    """Only rows with these values, such as {split: dev}."""


class DecontaminationConfig(Config):
    """What the corpus must not hold."""

    sets: list[EvaluationSet] = Field(default_factory=list)
    min_fraction: float = Field(default=0.7, gt=0, le=1)
    """Least share of an item's n-grams in one document. Source: Chowdhery et al. 2022, 8."""
    action: Literal["reject", "cut"] = "reject"
    """reject: the document goes. cut: its sentences that hold n-grams of the item go."""
    keep: list[str] = Field(default_factory=list)
    """Sources that are not looked at, such as a knowledge base whose questions are evaluated."""


class EvaluationIndex(NamedTuple):
    """n-grams of all items: 12 bytes each, so 10 000 questions of 150 characters are 18 MB."""

    config: DecontaminationConfig
    hashes_G: np.ndarray
    """uint64, ascending; an n-gram of several items stands several times."""
    items_G: np.ndarray
    """int32, the item of each."""
    sizes_I: np.ndarray
    """Distinct n-grams of each item."""
    sets_I: np.ndarray
    """The set of each item, by its place in the configuration."""
    too_short: dict[str, int]
    """Set → items of fewer than 13 characters, which cannot be found."""

    def find(self, texts: Sequence[str]) -> np.ndarray:
        """Numbers of the items that `texts`, the parts of one document, hold; ascending."""
        hashes = _distinct(texts)
        first = np.searchsorted(self.hashes_G, hashes, side="left")
        last = np.searchsorted(self.hashes_G, hashes, side="right")
        spans = [self.items_G[a:b] for a, b in zip(first, last, strict=True) if a < b]
        if not spans:
            return np.empty(0, np.int32)
        items, found = np.unique(np.concatenate(spans), return_counts=True)
        return items[found / self.sizes_I[items] >= self.config.min_fraction]

    def cut(self, text: str, items: np.ndarray) -> str:
        """`text` without the sentences that hold an n-gram of one of `items`."""
        letters = [(c, i) for i, char in enumerate(text) for c in char.casefold() if c.isalnum()]
        hits = np.isin(
            ngram_hashes("".join(c for c, _ in letters), NGRAM),
            self.hashes_G[np.isin(self.items_G, items)],
        )
        spans = [
            (letters[at][1], letters[at + NGRAM - 1][1] + 1) for at in np.flatnonzero(hits).tolist()
        ]
        kept, at = [], 0
        for start, end in split_sentences(text):
            if any(start < b and a < end for a, b in spans):
                kept.append(text[at:start])
                at = end
        return "".join([*kept, text[at:]]).strip()


def build_index(config: DecontaminationConfig, data: Path) -> EvaluationIndex:
    """Reads the evaluation sets below `data`.

    Raises:
        DataError: if a set cannot be read, or has no item that can be found.
    """
    grams, sets, too_short = [], [], {}
    for place, evaluation in enumerate(config.sets):
        items = [_distinct(texts) for texts in _items(evaluation, data)]
        long = [item for item in items if len(item)]
        too_short[evaluation.name] = len(items) - len(long)
        if not long:
            raise DataError(
                f"evaluation set {evaluation.name}: none of {len(items)} rows has {NGRAM} letters "
                f"in {', '.join(evaluation.texts)}; mend its texts, fields or where"
            )
        grams += long
        sets += [place] * len(long)
    sizes = np.array([len(gram) for gram in grams], np.int32)
    hashes = np.concatenate(grams) if grams else np.empty(0, np.uint64)
    order = np.argsort(hashes, kind="stable")
    items = np.repeat(np.arange(len(grams), dtype=np.int32), sizes)
    return EvaluationIndex(
        config, hashes[order], items[order], sizes, np.array(sets, np.int32), too_short
    )


def decontaminate(document: Document, index: EvaluationIndex) -> tuple[Document | None, list[str]]:
    """The document, without its contaminated sentences or None if it has to go, and the names of
    the evaluation sets that it overlaps."""
    if document.source in index.config.keep:
        return document, []
    items = index.find([section.text for section in document.sections])
    names = [index.config.sets[place].name for place in np.unique(index.sets_I[items])]
    if not names:
        return document, []
    if index.config.action == "reject":
        return None, names
    sections = [s.model_copy(update={"text": index.cut(s.text, items)}) for s in document.sections]
    kept = [section for section in sections if section.text]
    return (document.model_copy(update={"sections": kept}) if kept else None), names


def _distinct(texts: Iterable[str]) -> np.ndarray:
    """The distinct n-grams of several texts; none goes from one text to the next."""
    hashes = [ngram_hashes(canonical(text), NGRAM) for text in texts]
    return np.unique(np.concatenate(hashes)) if hashes else np.empty(0, np.uint64)


def _items(evaluation: EvaluationSet, data: Path) -> Iterator[list[str]]:
    for row in read_source(evaluation, data):
        if isinstance(row, SourceRow) and all(
            str(row.values.get(field)) == value for field, value in evaluation.where.items()
        ):
            yield [text for field in evaluation.texts for text in _strings(row.values.get(field))]


def _strings(value: Any) -> Iterator[str]:
    """Every text in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)
