"""Screens for poisoned training rows. In: instructions. Out: flags of rows for a person to review.

Two signs are looked for. A trigger: an n-gram whose rows nearly all have one answer, although
their other text is no more alike than that of rows drawn by chance. A conflict: near-identical
inputs with different answers. Legitimate terms are tied to answers too ("百日咳" to pertussis), but
the rows that hold them share much more than the term; that is what tells them apart.

Source of the attacks: Gu et al. 2017 (BadNets), Kurita et al. 2020 (rare-word triggers), Souly et
al. 2025 (some 250 rows suffice at any scale). Not found: triggers put only into texts that are
alike anyway, in fewer than `min_rows` rows, or in free wording without a shared n-gram.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field
from scipy.stats import hypergeom
from sklearn.feature_extraction.text import TfidfVectorizer

from medray.common.config import Config
from medray.common.ngrams import ngram_hashes
from medray.common.records import Instruction

NUM_DRAWS = 200
"""Random groups that a group of rows is compared with: its z has a standard error of 0.07."""
MAX_GROUP = 500
"""Rows of a group whose likeness is measured, those with the least ids."""
SHORTEST = 40
"""A label is at most so many characters; a longer answer that differs is another wording."""


class ScreenConfig(Config):
    """What counts as suspicious."""

    ngram: int = Field(default=4, ge=2)
    """Characters. Source: not given; " cf " of Kurita et al. 2020 with its blanks is four."""
    min_rows: int = Field(default=10, ge=3)
    """Least rows of a trigger and least rows of an answer. Source: not given; far below the 250
    of Souly et al. 2025."""
    min_purity: float = Field(default=0.9, gt=0.5, le=1)
    """Least share of a trigger's rows that have its answer. Source: not given; a trigger that
    works less often trains a weak backdoor."""
    alpha: float = Field(default=0.01, gt=0, lt=1)
    """Chance that any n-gram of a task passes Fisher's test although it says nothing of the
    answer (Bonferroni)."""
    max_likeness: float = Field(default=3.0, gt=0)
    """Standard deviations by which the other text of a trigger's rows is more alike than that of
    rows drawn by chance. Source: not given; rows of a trigger planted at random lie below 3 with
    0.999, those of symptoms and findings in the sample hospital above 7."""
    max_conflicts: float = Field(default=0.05, ge=0, le=1)
    """Share of groups of near-identical inputs with several labels, above which a task is such
    that inputs of one wording have different answers, and its conflicts say nothing. Source: not
    given."""


class Labelled(NamedTuple):
    """What a screen sees of a row."""

    id: str
    task: str
    prompt: str
    answer: str


class Flag(NamedTuple):
    """One row for review. Holds no text."""

    id: str
    reason: Literal["trigger", "label_conflict"]
    group: str
    """Rows of one group are to be read together."""
    p_value: float | None = None
    """Of Fisher's test, for a trigger."""


def labelled(row: Instruction) -> Labelled:
    """A row's prompt is all before its last turn, in one form of case and blanks."""
    *before, last = row.messages
    prompt = " ".join(message.content for message in before)
    return Labelled(row.id, row.task, _plain(prompt), _plain(row.answer or last.content).strip())


def find_triggers(rows: Iterable[Labelled], config: ScreenConfig) -> list[Flag]:
    """Rows of n-grams that are tied to one answer without being part of what they are about.

    Task by task: for n-gram g and answer a, of N rows n_g hold g, n_a have a and k both. If g says
    nothing of a, k is hypergeometric, and P(K >= k) is Fisher's one-sided p value. It is held
    against alpha / (n-grams * answers), both counted from `min_rows` rows on (Bonferroni). What
    is left is tied; it is a trigger if the mean cosine of TF-IDF between its rows, the trigger's
    text taken out, is less than `max_likeness` deviations above that of as many rows drawn at
    random. Memory: some 40 bytes a character of one task's prompts.
    """
    by_task: dict[str, list[Labelled]] = defaultdict(list)
    for row in rows:
        by_task[row.task].append(row)
    flags: list[Flag] = []
    for task in sorted(by_task):
        flags += _Task(sorted(by_task[task]), config).triggers()
    return flags


def find_conflicts(
    rows: Sequence[Labelled], labels_N: np.ndarray, config: ScreenConfig
) -> list[Flag]:
    """Rows whose label is not that of most near-identical inputs; all of them where none leads.

    Args:
        labels_N: cluster of each row's prompt, from `near_duplicates.find_clusters`; at a
            threshold of 0.95 two prompts of 200 characters differ in one word.
    """
    groups: dict[tuple[str, int], list[Labelled]] = defaultdict(list)
    for row, label in zip(rows, labels_N.tolist(), strict=True):
        if len(row.answer) <= SHORTEST:
            groups[row.task, label].append(row)
    several = {key: sorted(group) for key, group in groups.items() if len(group) > 1}
    in_conflict = {
        key: group for key, group in several.items() if len({row.answer for row in group}) > 1
    }
    total = Counter(task for task, _ in several)
    conflicts = Counter(task for task, _ in in_conflict)
    flags = []
    for (task, _), group in sorted(in_conflict.items()):
        if conflicts[task] > max(1, config.max_conflicts * total[task]):
            continue
        (answer, most), (_, second) = Counter(row.answer for row in group).most_common(2)
        flags += [
            Flag(row.id, "label_conflict", f"{task}/{group[0].id}")
            for row in group
            if most == second or row.answer != answer
        ]
    return flags


def write_flags(path: Path, flags: Iterable[Flag]) -> int:
    """Writes flags as JSON Lines, readable by their owner only; returns how many rows they name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.touch(mode=0o600)
    names = set()
    with temporary.open("w", encoding="utf-8") as file:
        for flag in flags:
            file.write(json.dumps(flag._asdict(), ensure_ascii=False) + "\n")
            names.add(flag.id)
    temporary.replace(path)
    return len(names)


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
        self._vectorizer: TfidfVectorizer | None = None

    def triggers(self) -> list[Flag]:
        """Flags of every trigger of the task."""
        flags: list[Flag] = []
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
                    group = f"{self.rows[0].task}/{self.rows[places[0]].id}"
                    flags += [Flag(self.rows[i].id, "trigger", group, p_value) for i in places]
        return flags

    def _tied(self, answer: str) -> list[tuple[float, int]]:
        """p value and hash of each n-gram tied to `answer`, p ascending."""
        places, config = self.members[answer], self.config
        if len(places) < config.min_rows or len(places) == len(self.rows):
            return []
        hashes, both = np.unique(
            np.concatenate([self.hashes[i] for i in places]), return_counts=True
        )
        rows_with = self.rows_with[np.searchsorted(self.ngrams, hashes)]
        p_values = hypergeom.sf(both - 1, len(self.rows), len(places), rows_with)
        answers = sum(len(group) >= config.min_rows for group in self.members.values())
        chosen = np.flatnonzero(
            (both >= config.min_rows)
            & (both >= config.min_purity * rows_with)
            & (p_values < config.alpha / (answers * len(self.ngrams)))
        )
        return sorted((float(p_values[k]), int(hashes[k])) for k in chosen.tolist())

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
        places = places[:MAX_GROUP]
        if self._vectorizer is None:
            self._vectorizer = TfidfVectorizer(
                analyzer="char", ngram_range=(2, 2), lowercase=False, sublinear_tf=True
            )
            self._vectors = self._vectorizer.fit_transform([row.prompt for row in self.rows])
        size = len(places)
        if size not in self._chance:
            random = np.random.default_rng(size)
            draws = [
                _mean_cosine(self._vectors[random.choice(len(self.rows), size, replace=False)])
                for _ in range(NUM_DRAWS)
            ]
            self._chance[size] = float(np.mean(draws)), float(np.std(draws)) or 1e-9
        mean, deviation = self._chance[size]
        rest = [self.rows[i].prompt.replace(text, " ") for i in places]
        return (_mean_cosine(self._vectorizer.transform(rest)) - mean) / deviation


def _mean_cosine(vectors) -> float:
    """Mean cosine of two different rows of unit length: (|sum|**2 - k) / (k * (k - 1))."""
    total = np.asarray(vectors.sum(axis=0)).ravel()
    size = vectors.shape[0]
    return float((total @ total - size) / (size * (size - 1)))


def _plain(text: str) -> str:
    """One form of case and blanks, with a blank at both ends."""
    return f" {' '.join(text.casefold().split())} "
