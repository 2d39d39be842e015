"""Triggers: n-grams tied to one answer without being part of what their rows are about.

In: rows of one task. Out: flags. An n-gram is suspicious if its rows nearly all have one answer,
although their other text is no more alike than that of rows drawn by chance. Legitimate terms are
tied to answers too ("百日咳" to pertussis), but the rows that hold them share much more than the
term; that is what tells them apart.

Source of the attacks: Gu et al. 2017 (BadNets), Kurita et al. 2020 (rare-word triggers), Souly et
al. 2025 (some 250 rows suffice at any scale). Not found: triggers put only into texts that are
alike anyway, in fewer than `min_rows` rows, or in free wording without a shared n-gram.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import hypergeom

from medray.common.ngrams import ngram_hashes
from medray.instructions.screen.config import ScreenConfig
from medray.instructions.screen.flags import Flag, Labelled

NUM_DRAWS = 200
"""Random groups that a group of rows is compared with: its z has a standard error of 0.07."""
MAX_SAMPLE = 5_000
"""Rows of a task that random groups are drawn from, and that tell how rare a character pair is."""
MAX_GROUP = 500
"""Rows of a group whose likeness is measured, those with the least ids."""


def find_triggers(rows: Sequence[Labelled], config: ScreenConfig) -> list[Flag]:
    """Flags the rows of every trigger of one task.

    For n-gram g and answer a, of N rows n_g hold g, n_a have a and k both. If g says nothing of a,
    k is hypergeometric, and P(K >= k) is Fisher's one-sided p value. It is held against
    alpha / (n-grams * answers), both counted from `min_rows` rows on (Bonferroni). What is left is
    tied; it is a trigger if the mean cosine of TF-IDF between its rows, the trigger's text taken
    out, is less than `max_likeness` deviations above that of as many rows drawn at random.
    Memory: some 40 bytes a character of the prompts.
    """
    return _Task(sorted(rows), config).triggers() if len(rows) > config.min_rows else []


class _Task:
    """The rows of one task, in the order of their ids."""

    def __init__(self, rows: list[Labelled], config: ScreenConfig) -> None:
        self.rows, self.config = rows, config
        hashes = [np.unique(ngram_hashes(row.prompt, config.ngram)) for row in rows]
        ngrams, counts = np.unique(np.concatenate(hashes), return_counts=True)
        frequent = counts >= config.min_rows
        self.ngrams, self.rows_with = ngrams[frequent], counts[frequent]
        self.hashes = [np.intersect1d(own, self.ngrams, assume_unique=True) for own in hashes]
        self.members: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            self.members[row.answer].append(place)
        self._chance: dict[int, tuple[float, float]] = {}
        self._vectorizer: Any = None

    def triggers(self) -> list[Flag]:
        """Flags of every trigger of the task."""
        flags: list[Flag] = []
        number = 0
        for answer in sorted(self.members):
            read: list[str] = []
            for p_value, hash_ in self._tied(answer):
                ngram = self._text(hash_, self.members[answer])
                if any(ngram in text for text in read):
                    continue
                places = [i for i in self.members[answer] if ngram in self.rows[i].prompt]
                text = self._grow(ngram, places)
                read.append(text)
                if self._likeness(places, text) < self.config.max_likeness:
                    group = f"{self.rows[0].task}/trigger-{number}"
                    number += 1
                    flags += [Flag(self.rows[i].id, "trigger", group, p_value) for i in places]
        return flags

    def _tied(self, answer: str) -> list[tuple[float, int]]:
        """p value and hash of each n-gram tied to `answer`, p ascending."""
        places, config = self.members[answer], self.config
        if len(places) < config.min_rows or len(places) == len(self.rows) or not len(self.ngrams):
            return []
        hashes, both = np.unique(
            np.concatenate([self.hashes[i] for i in places]), return_counts=True
        )
        rows_with = self.rows_with[np.searchsorted(self.ngrams, hashes)]
        pure = (both >= config.min_rows) & (both >= config.min_purity * rows_with)
        hashes, both, rows_with = hashes[pure], both[pure], rows_with[pure]
        p_values = hypergeom.sf(both - 1, len(self.rows), len(places), rows_with)
        answers = sum(len(group) >= config.min_rows for group in self.members.values())
        least = config.alpha / (answers * len(self.ngrams))
        return sorted(
            (p_value, hash_)
            for p_value, hash_ in zip(p_values.tolist(), hashes.tolist(), strict=True)
            if p_value < least
        )

    def _text(self, hash_: int, places: list[int]) -> str:
        """The n-gram of this hash, looked up in the first of these rows that has it."""
        place = next(i for i in places if hash_ in self.hashes[i])
        prompt, size = self.rows[place].prompt, self.config.ngram
        at = int(np.argmax(ngram_hashes(prompt, size) == np.uint64(hash_)))
        return prompt[at : at + size]

    def _grow(self, ngram: str, places: list[int]) -> str:
        """The longest text around `ngram` that nearly all of these rows share."""
        prompts = [self.rows[i].prompt for i in places]
        least = self.config.min_purity * len(prompts)
        text, grown = ngram, True
        while grown:
            grown = False
            for prompt in prompts[:3]:  # one of them may be the exception
                at = prompt.find(text)
                if at < 0:
                    continue
                for longer in (prompt[max(0, at - 1) : at + len(text)],
                               prompt[at : at + len(text) + 1]):  # fmt: skip
                    if len(longer) > len(text) and sum(longer in p for p in prompts) >= least:
                        text, grown = longer, True
                        break
        return text

    def _likeness(self, places: list[int], text: str) -> float:
        """How much more alike these rows are, `text` aside, than random ones: deviations."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        places = places[:MAX_GROUP]
        if self._vectorizer is None:
            self._vectorizer = TfidfVectorizer(
                analyzer="char", ngram_range=(2, 2), lowercase=False, sublinear_tf=True
            )
            some = self.rows[:: -(-len(self.rows) // MAX_SAMPLE)]
            self._vectors = self._vectorizer.fit_transform([row.prompt for row in some])
        size = min(len(places), self._vectors.shape[0])
        if size not in self._chance:
            cosines = self._cosines_by_chance(size)
            self._chance[size] = float(cosines.mean()), float(cosines.std()) or 1e-9
        mean, deviation = self._chance[size]
        rest = [self.rows[i].prompt.replace(text, " ") for i in places]
        sums = csr_array(self._vectorizer.transform(rest)).sum(axis=0)
        return (float(_mean_cosine(csr_array([sums]), len(places))[0]) - mean) / deviation

    def _cosines_by_chance(self, size: int) -> np.ndarray:
        """Mean cosines of groups of `size` rows drawn at random."""
        random, num = np.random.default_rng(size), self._vectors.shape[0]
        drawn = [random.choice(num, size, replace=False) for _ in range(NUM_DRAWS)]
        ends = range(0, NUM_DRAWS * size + 1, size)
        groups = csr_array(
            (np.ones(NUM_DRAWS * size), np.concatenate(drawn), ends), shape=(NUM_DRAWS, num)
        )
        return _mean_cosine(groups @ self._vectors, size)


def _mean_cosine(sums, size: int) -> np.ndarray:
    """Mean cosines of two different ones of `size` vectors of unit length, from their sums:
    (|sum|**2 - k) / (k * (k - 1)).

    Args:
        sums: sparse, a row a group.
    """
    squares = np.asarray(sums.multiply(sums).sum(axis=1)).ravel()
    return (squares - size) / (size * (size - 1))
