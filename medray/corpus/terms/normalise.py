"""Terminology and units of a document. In: a de-identified, cleaned `Document` and its audit
labels. Out: both, and what was found as counts under dictionary and concept ids, never text.

By default a term is counted and left as it is written: rewriting what a clinician wrote is risky,
because a synonym of a vocabulary can be wider or narrower than what was meant (肿物 is not 肿瘤),
while a model learns from both wordings. Where a dictionary says `replace: true`, other names of a
concept become its preferred one. A linked diagnosis is never rewritten: some links are wrong, and
even a right one may lose the side or the stage.
Source: [EMR-LLM 1.2] entity normalisation to a standard vocabulary. Differs: counted by default.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from medray.common.config import Config
from medray.common.records import Document
from medray.corpus.terms.dictionaries import Dictionary
from medray.corpus.terms.edits import rewrite
from medray.corpus.terms.entries import diagnosis_entries
from medray.corpus.terms.finder import term_finder
from medray.corpus.terms.linker import LinkConfig
from medray.corpus.terms.units import find_units
from medray.corpus.terms.vocabulary import AMBIGUOUS, Vocabulary, build_vocabulary
from medray.privacy.deidentify import Label


class TermsConfig(Config):
    """Which terms are looked for, and what is done with them. Nothing, unless set."""

    dictionaries: list[Dictionary] = Field(default_factory=list)
    """In order of priority: a form belongs to the first one that holds it."""
    units: bool = False
    """Gives units of measurement one spelling (`units.yaml`); values are never converted."""
    min_chars: int = Field(default=2, ge=1)
    """Shorter names are not looked for: 痔 stands in many other words."""
    min_latin_chars: int = Field(default=4, ge=1)
    """The same for names without Chinese: in lower case, ALL (leukaemia) is a word like any other.
    Source: not given."""
    diagnosis_headings: list[str] = Field(default=["诊断", "初步诊断"])
    """Sections whose entries are looked up one by one and linked."""
    link: LinkConfig = LinkConfig()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [dictionary.name for dictionary in self.dictionaries]
        if len(set(names)) < len(names):
            raise ValueError(f"dictionaries need different names, got {', '.join(names)}")
        return self


class Terms(NamedTuple):
    """What a worker needs; None of a vocabulary means no dictionary."""

    config: TermsConfig
    vocabulary: Vocabulary | None = None


def load_terms(config: TermsConfig, data: Path) -> Terms:
    """Reads the dictionaries of a configuration.

    Raises:
        DataError: if one of them cannot be read.
    """
    if not config.dictionaries:
        return Terms(config)
    vocabulary = build_vocabulary(
        config.dictionaries,
        data,
        min_chars=config.min_chars,
        min_latin_chars=config.min_latin_chars,
    )
    return Terms(config, vocabulary)


def normalise_terms(
    document: Document, labels: list[Label], terms: Terms
) -> tuple[Document, list[Label], Counter[str]]:
    """The document with units and terms in one form, its labels where they stand then, and counts.

    Surrogates, numbers, dates and the number of sentences stay; a second pass changes nothing.
    Counts: `unit/SPELLING` changed; `matched/D`, `ambiguous/D`, `replaced/D` terms of dictionary D
    in the text; `entry_matched/D`, `entry_linked/D`, `entry_ambiguous/D` and `entry_unmatched/`
    diagnoses; `concept/N` times the concept at row N was met; `covered/` characters within terms.
    """
    counts: Counter[str] = Counter()
    if terms.config.units:
        document, labels, edits = rewrite(document, labels, find_units)
        counts.update(f"unit/{edit.new}" for edit in edits)
    if terms.vocabulary is None:
        return document, labels, counts
    finder = term_finder(terms.vocabulary)
    if finder.replaces:
        document, labels, edits = rewrite(document, labels, finder.replacements)
        names = (finder.dictionary_of(edit.new) for edit in edits)
        counts.update(f"replaced/{name}" for name in names)
    for section in document.sections:
        for match in finder.find(section.text):
            name = finder.names[match.dictionary]
            counts["covered/"] += match.end - match.start
            if match.concept == AMBIGUOUS:
                counts[f"ambiguous/{name}"] += 1
            else:
                counts[f"matched/{name}"] += 1
                counts[f"concept/{match.concept}"] += 1
        if section.heading in terms.config.diagnosis_headings:
            for entry in diagnosis_entries(section.text, terms.config.link.max_chars):
                counts.update(finder.settle(entry, terms.config.link))
    return document, labels, counts
