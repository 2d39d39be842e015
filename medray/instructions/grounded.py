"""Answers that quote a passage. In: raw grounded rows. Out: an `Instruction` whose answer cites.

The citation that the model is to learn is checked as a served one would be: it must parse and its
quote must stand in its passage, so a wrong example cannot teach a wrong habit.
Source: `[q; d1; …; dk]` [EMR-LLM 1.5]; the citation form is ours (medray.generation.prompts).
"""

from medray.common.records import Instruction
from medray.common.split import Split
from medray.generation.prompts import (
    NO_ANSWER,
    check_citation,
    grounded_answer,
    grounded_prompt,
    parse_citations,
    shown,
)
from medray.instructions.examples import Mask, Skipped, exchange
from medray.instructions.raw import Grounded


def grounded(row: Grounded, split: Split, mask: Mask) -> Instruction | Skipped:
    """Question and numbered passages → quote with its passage, or that there is no answer.

    All passages are kept, whatever their length: without one, its number would be another's.
    """
    passages = [shown(p.title, p.text) for p in row.passages]
    quote = shown("", row.quote or "").text
    answer = NO_ANSWER
    if row.gold is not None:
        if not 0 <= row.gold < len(passages) or not quote:
            return Skipped("no_such_passage")
        answer = grounded_answer(passages[row.gold].title, row.gold + 1, quote)
        citations = parse_citations(answer)
        if len(citations) != 1 or citations[0].quote != quote:
            return Skipped("citation_unreadable")
        fault = check_citation(citations[0], passages)
        if fault:
            return Skipped(fault)
    return Instruction(
        id=f"grounded-{row.id}",
        task="grounded",
        messages=exchange(grounded_prompt(mask(row.question), passages), answer),
        split=split,
        answer=quote,
        group="no_answer" if row.gold is None else "answer",
    )
