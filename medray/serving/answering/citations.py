"""Holds an answer back, sentence by sentence, until its citations are checked.

In: text deltas of the model and the passages it was shown. Out: the text to send on, the checked
citations and one verdict a sentence. Pure, and independent of where the deltas were cut.

A sentence is held from its start, since it may cite at its end. It is sent on if every citation in
it names a passage that exists, by that passage's title, and quotes a span that stands in that
passage. Else the whole sentence is left out, nothing takes its place, and the answer ends with a
notice that says so; the verdicts say what was wrong. A sentence with no citation is sent on and
marked `uncited`: whether it is true is not decided here.
Source: DESIGN.md 3, serving graph; the format is `medray.generation.prompts`.
"""

import re
from collections.abc import Sequence

from medray.generation.prompts import (
    NO_ANSWER,
    Citation,
    check_citation,
    parse_citations,
    replace_citations,
    shown,
)
from medray.serving.schema.grounding import CheckedCitation, Fault, FoundPassage, SentenceVerdict

ENDS = "。！？!?\n"
CLOSERS = {"“": "”", "《": "》"}  # an end inside a quote or a title ends no sentence
MARKER = re.compile(r"[\[［【]\s*\d+\s*[\]］】]")


def notice(num_omitted: int) -> str:
    """What the answer says when sentences were left out."""
    count = "一" if num_omitted == 1 else str(num_omitted)
    return f"（{count}处引用未通过核对，已略去。）"


class CitationGate:
    """Checks one answer while it is being written."""

    def __init__(self, passages: Sequence[FoundPassage]) -> None:
        """`passages` in the order of their numbers, from 1."""
        self.citations: list[CheckedCitation] = []
        self.verdicts: list[SentenceVerdict] = []
        self._passages = passages
        self._numbered = [shown(p.title, p.text) for p in passages]
        self._held = ""
        self._closer = ""

    def feed(self, delta: str) -> str:
        """Takes text of the model and returns what may be sent on, often nothing."""
        released = []
        for character in delta:
            self._held += character
            # A line's end closes everything: a quote left open must not hold back the rest.
            if character in (self._closer, "\n"):
                self._closer = ""
            elif not self._closer:
                self._closer = CLOSERS.get(character, "")
            if character in ENDS and not self._closer:
                released.append(self._release())
        return "".join(released)

    def finish(self) -> str:
        """Ends the answer: returns what is still held, if it holds, and the notice, if due."""
        rest = self._release()
        omitted = sum(verdict.verdict == "failed" for verdict in self.verdicts)
        return rest + (notice(omitted) if omitted else "")

    def _release(self) -> str:
        sentence, self._held, self._closer = self._held, "", ""
        if not sentence.strip():
            return sentence
        citations = [self._check(citation) for citation in parse_citations(sentence)]
        faults: list[Fault] = [c.fault for c in citations if c.fault]
        if MARKER.search(replace_citations(sentence, lambda _: "")):
            faults.append("no_quote")
        self.citations += citations
        if faults:
            self.verdicts.append(SentenceVerdict(verdict="failed", faults=faults))
            return ""
        if citations:
            verdict = SentenceVerdict(verdict="supported")
        elif sentence.strip() == NO_ANSWER:
            verdict = SentenceVerdict(verdict="no_answer")
        else:
            verdict = SentenceVerdict(verdict="uncited")
        self.verdicts.append(verdict)
        return sentence

    def _check(self, citation: Citation) -> CheckedCitation:
        fault = check_citation(citation, self._numbered)
        exists = 1 <= citation.number <= len(self._passages)
        passage = self._passages[citation.number - 1] if exists else None
        start = None
        if passage is not None and fault is None:
            as_shown = self._numbered[citation.number - 1]
            if citation.title != as_shown.title:
                fault = "other_title"
            else:
                start = passage.start + as_shown.text.index(citation.quote)
        return CheckedCitation(
            sentence=len(self.verdicts),
            number=citation.number,
            passage_id=passage.passage_id if passage else None,
            source=passage.source if passage else "",
            title=citation.title,
            section=passage.section if passage else "",
            quote=citation.quote,
            start=start,
            end=None if start is None else start + len(citation.quote),
            ok=fault is None,
            fault=fault,  # type: ignore[arg-type]
        )
