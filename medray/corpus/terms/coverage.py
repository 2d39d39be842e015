"""What the terms of a corpus add up to. In: the counts of `normalise_terms`, a document each. Out:
the manifest's metrics `terms` and `units`, from which the report page is drawn.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from medray.corpus.terms.vocabulary import Vocabulary

TOP_CONCEPTS = 30


class TermTotals:
    """Sums over documents; memory: one number a source, dictionary and concept."""

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        self._vocabulary = vocabulary
        self._units: Counter[str] = Counter()
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._sources: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, source: str, num_chars: int, counts: Mapping[str, int]) -> None:
        """Takes in a document of `num_chars` characters."""
        for key, times in counts.items():
            what, _, name = key.partition("/")
            if what == "unit":
                self._units[name] += times
            else:
                self._counts[what][name] += times
        covered = counts.get("covered/", 0)
        self._sources[source].update(
            documents=1, with_terms=int(covered > 0), chars=num_chars, covered_chars=covered
        )

    def metrics(self) -> dict[str, Any]:
        """Keys `units` and `terms`, each only if something was looked for or found."""
        metrics: dict[str, Any] = {}
        if self._units:
            metrics["units"] = dict(sorted(self._units.items()))
        if self._vocabulary is not None:
            metrics["terms"] = {
                "sources": {name: dict(c) for name, c in sorted(self._sources.items())},
                "dictionaries": {d.name: self._of(d.name) for d in self._vocabulary.dictionaries},
                "entries": {
                    what: self._counts[f"entry_{what}"].total()
                    for what in ("matched", "linked", "ambiguous", "unmatched")
                },
                "concepts": self._top(self._vocabulary),
            }
        return metrics

    def _of(self, dictionary: str) -> dict[str, int]:
        assert self._vocabulary is not None
        whats = ("matched", "ambiguous", "replaced", "entry_matched", "entry_linked")
        counts = {what: self._counts[what][dictionary] for what in whats}
        return {**counts, "names_too_short": self._vocabulary.too_short[dictionary]}

    def _top(self, vocabulary: Vocabulary) -> list[dict[str, Any]]:
        """The most frequent concepts; of equally frequent ones, those that come first."""
        concepts = self._counts["concept"]
        best = sorted(concepts, key=lambda number: (-concepts[number], int(number)))[:TOP_CONCEPTS]
        rows = vocabulary.concepts.take(pa.array(map(int, best), pa.int64())).to_pylist()
        names = [dictionary.name for dictionary in vocabulary.dictionaries]
        return [
            {**row, "dictionary": names[row["dictionary"]], "times": concepts[number]}
            for number, row in zip(best, rows, strict=True)
        ]
