"""Variants of a term. In: a short string that no dictionary holds. Out: the nearest term, if it is
near enough and no other concept is about as near.

Similarity is the cosine of TF-IDF vectors of character n-grams, which needs no word segmentation:
what most terms share (切除术) weighs little. Only for short strings: in running text every sentence
is like some term.
Source: Salton and Buckley 1988 for TF-IDF; the candidate stage of CHIP 2019 task 1 (term
normalisation) systems. Differs: no learned re-ranking, so that a link can be explained.
"""

from typing import NamedTuple

import numpy as np
from pydantic import Field

from medray.common.config import Config
from medray.corpus.terms.vocabulary import AMBIGUOUS, Vocabulary, fold


class LinkConfig(Config):
    """When a string is taken for a variant of a term."""

    min_similarity: float = Field(default=0.8, gt=0, le=1)
    """Cosine. Source: benchmarks/term_linking.py: nine of ten links are right from here on."""
    min_margin: float = Field(default=0.05, ge=0, le=1)
    """By which the nearest concept is nearer than the next. Source: as above."""
    max_chars: int = Field(default=40, ge=2)
    """Longer strings are no terms. Source: not given; of 5 675 written names of procedures 1 % are
    longer, and these name several."""


class Link(NamedTuple):
    """What a string is nearest to."""

    concept: int
    """Row of the vocabulary's concepts; AMBIGUOUS if two of them are called that."""
    similarity: float
    margin: float
    """Similarity less that of the nearest form of another concept."""


class Linker:
    """Finds the nearest form among the dictionaries with `link`; memory: 12 bytes for each
    distinct n-gram of each of their forms."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """
        Raises:
            ValueError: if no dictionary has `link` set and a form.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        wanted = np.array([dictionary.link for dictionary in vocabulary.dictionaries])
        is_wanted_F = wanted[vocabulary.forms.column("dictionary").to_numpy()]
        forms = vocabulary.forms.filter(is_wanted_F)
        self._concepts_F = forms.column("concept").to_numpy()
        # Source of the sizes: benchmarks/term_linking.py; with longer n-grams fewer were right.
        self._vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), lowercase=False)
        weights_FG = self._vectorizer.fit_transform(forms.column("form").to_pylist())
        # By n-gram, so that a query reads the lists of its own n-grams only.
        self._weights_GF = weights_FG.T.tocsr()

    def nearest(self, term: str) -> Link | None:
        """The nearest form of a term; None if they share no n-gram."""
        similarity_F = (self._vectorizer.transform([fold(term)]) @ self._weights_GF).tocoo()
        if not similarity_F.nnz:
            return None
        concepts, values = self._concepts_F[similarity_F.coords[1]], similarity_F.data
        best = values.argmax()
        # Two concepts of equal similarity have a margin of 0, so their order does not matter.
        others = values[concepts != concepts[best]]
        margin = values[best] - others.max(initial=0)
        return Link(int(concepts[best]), float(values[best]), float(margin))


def is_linked(link: Link | None, config: LinkConfig) -> bool:
    """Whether the link is good enough to be used."""
    return (
        link is not None
        and link.concept != AMBIGUOUS
        and link.similarity >= config.min_similarity
        and link.margin >= config.min_margin
    )
