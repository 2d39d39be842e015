"""Builds a section's text: identifiers at known offsets, misspellings at a set rate.

In: fragments. Out: text and identifier spans, text[start:end] = the identifier.
"""

import re
from typing import NamedTuple

from medray.sample.sampler import Sampler


class Span(NamedTuple):
    """An identifier of class `phi_class` at text[start:end]."""

    start: int
    end: int
    phi_class: str


class Speller:
    """Replaces characters by ones they are mistaken for, each with probability `rate`."""

    def __init__(self, table: dict[str, str], rate: float) -> None:
        self.table = table
        self.rate = rate
        self.num_eligible = 0
        self.num_changed = 0
        self._eligible = re.compile(f"[{''.join(map(re.escape, table))}]") if table else None

    def spell(self, text: str, sampler: Sampler) -> str:
        """`text` with misspellings; of the same length, so offsets stay."""
        if self._eligible is None or self.rate <= 0:
            return text

        def replace(match: re.Match[str]) -> str:
            self.num_eligible += 1
            if not sampler.flip(self.rate):
                return match.group()
            self.num_changed += 1
            return sampler.choice(self.table[match.group()])

        return self._eligible.sub(replace, text)


class TextBuilder:
    """One section under construction."""

    def __init__(self, sampler: Sampler, speller: Speller | None) -> None:
        self.sampler = sampler
        self.speller = speller
        self.spans: list[Span] = []
        self._parts: list[str] = []
        self._length = 0

    def add(self, text: str) -> "TextBuilder":
        """Clinical text, open to misspelling."""
        return self.exact(self.speller.spell(text, self.sampler) if self.speller else text)

    def exact(self, text: str) -> "TextBuilder":
        """Text that is never misspelt (a diagnosis, a label)."""
        self._parts.append(text)
        self._length += len(text)
        return self

    def phi(self, phi_class: str, text: str) -> "TextBuilder":
        """An identifier; its offsets are kept."""
        self.spans.append(Span(self._length, self._length + len(text), phi_class))
        return self.exact(text)

    @property
    def text(self) -> str:
        """What was built so far."""
        return "".join(self._parts)
