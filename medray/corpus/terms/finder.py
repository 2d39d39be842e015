"""What a text holds of a vocabulary. In: text. Out: terms, edits that put preferred ones in place
of others, and the concept of a diagnosis by its name, code or likeness.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from medray.common.sentences import SENTENCE_MARKS, split_sentences
from medray.corpus.terms.edits import Edit, apply_edits, touches
from medray.corpus.terms.entries import DiagnosisEntry
from medray.corpus.terms.linker import LinkConfig, Linker, is_linked
from medray.corpus.terms.matcher import Match, Matcher, is_word
from medray.corpus.terms.vocabulary import AMBIGUOUS, Vocabulary, fold
from medray.privacy.recognise import SURROGATE

DATE = re.compile(
    r"[0-9]{2,4} ?年(?: ?[0-9]{1,2} ?月)?(?: ?[0-9]{1,2} ?[日号])?"
    r"|[0-9]{1,2} ?月(?: ?[0-9]{1,2} ?[日号])?|[0-9]{2,4}(?:[-/.][0-9]{1,2}){1,2}"
)
DIGITS = re.compile("[0-9]+")


@lru_cache(maxsize=1)
def term_finder(vocabulary: Vocabulary) -> "TermFinder":
    """The finder of a vocabulary, made once in a process."""
    return TermFinder(vocabulary)


class TermFinder:
    """Finds, replaces and links the terms of a vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        dictionaries = vocabulary.dictionaries
        self.names = [dictionary.name for dictionary in dictionaries]
        self.replaces = [d.name for d in dictionaries if d.replace]
        self._dictionaries = dictionaries
        self._matcher = Matcher(vocabulary)
        self._concepts = vocabulary.concepts
        linked = {place for place, d in enumerate(dictionaries) if d.link}
        self._codes: dict[str, int] = {}
        self._nearest = None
        # An earlier dictionary may hold every form of those with `link`.
        if linked & set(vocabulary.forms.column("dictionary").unique().to_pylist()):
            self._nearest = lru_cache(maxsize=2**16)(Linker(vocabulary).nearest)
            for number, row in enumerate(vocabulary.concepts.to_pylist()):
                if row["dictionary"] in linked:
                    self._codes.setdefault(row["id"].upper(), number)

    def find(self, text: str) -> Iterator[Match]:
        """Yields the terms in a text that touch no surrogate."""
        surrogates = [match.span() for match in SURROGATE.finditer(text)]
        for match in self._matcher.find(text):
            if not touches(match.start, match.end, surrogates):
                yield match

    def replacements(self, text: str) -> list[Edit]:
        """Edits that put preferred terms in place of others, sentence by sentence.

        A sentence in which the new terms would be read another way, together with what stands
        around them, is left as it is: so a second pass finds nothing to do.
        """
        edits: list[Edit] = []
        for start, end in split_sentences(text):
            sentence = text[start:end]
            found = list(self._replacements(sentence))
            if found and not any(self._replacements(apply_edits(sentence, found))):
                edits += [Edit(start + a, start + b, new) for a, b, new in found]
        return edits

    def dictionary_of(self, term: str) -> str:
        """The name of the dictionary that a term in the vocabulary belongs to."""
        found = self._matcher.lookup(term)
        assert found is not None
        return self.names[found[1]]

    def settle(self, entry: DiagnosisEntry, config: LinkConfig) -> list[str]:
        """Keys to count for a diagnosis: by its name, else by its code, else by its likeness."""
        found = self._matcher.lookup(entry.name)
        if found is not None and found[0] != AMBIGUOUS:
            return [f"entry_matched/{self.names[found[1]]}"]
        if (concept := self._codes.get(entry.code)) is not None:
            return [f"entry_matched/{self._name(concept)}", f"concept/{concept}"]
        if found is not None:
            return [f"entry_ambiguous/{self.names[found[1]]}"]
        link = self._nearest(entry.name) if self._nearest else None
        if link is None or link.similarity < config.min_similarity:
            return ["entry_unmatched/"]
        if not is_linked(link, config):
            return ["entry_ambiguous/"]
        return [f"entry_linked/{self._name(link.concept)}", f"concept/{link.concept}"]

    def _replacements(self, text: str) -> Iterator[Edit]:
        fixed = [match.span() for match in DATE.finditer(text)]
        for match in self.find(text):
            if match.concept == AMBIGUOUS or not self._dictionaries[match.dictionary].replace:
                continue
            old = text[match.start : match.end]
            new = self._concepts.column("name")[match.concept].as_py()
            if (
                fold(old) != fold(new)
                and self._matcher.lookup(new) == (match.concept, match.dictionary)
                and DIGITS.findall(old) == DIGITS.findall(new)
                and not any(mark in new for mark in (*SENTENCE_MARKS, "\n"))
                and not touches(match.start, match.end, fixed)
                and not _joins(text, match, new)
            ):
                yield Edit(match.start, match.end, new)

    def _name(self, concept: int) -> str:
        return self.names[self._concepts.column("dictionary")[concept].as_py()]


def _joins(text: str, match: Match, new: str) -> bool:
    """Whether `new` would run into a word or number beside it."""
    before, after = text[: match.start][-1:], text[match.end :][:1]
    return (is_word(new[0]) and before != "" and is_word(before)) or (
        is_word(new[-1]) and after != "" and is_word(after)
    )
