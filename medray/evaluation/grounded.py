"""Does an answer come from the passages? In: held-out grounded examples, an engine. Out: right
quotes, valid citations, abstention, and what happens when the fact in a passage is exchanged.

The exchange: in the passage that answers, the clause to be quoted is replaced by the clause of
another example whose passage stands under the same heading (`肺炎 治疗` ← `胃炎 治疗`), told of
this one's subject, so that it still answers the question. A model that reads quotes the new
clause; one that recites keeps the old one.
Source: issue 2; [EMR-LLM 1.5] for `[q; d1; …; dk]`.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from medray.common.records import Instruction
from medray.evaluation.figures import Figure, share
from medray.generation.prompts import (
    NO_ANSWER,
    Numbered,
    check_citation,
    parse_citations,
    passage_line,
    read_passages,
)
from medray.quality.protocols import ChatEngine, Greedy, ask


class Grounded(NamedTuple):
    """One example read back from its instruction; `quote` is empty if no passage answers."""

    prompt: str
    passages: list[Numbered]
    number: int
    quote: str

    @property
    def heading(self) -> str:
        """The kind of fact: the last word of the gold passage's title."""
        words = self.passages[self.number - 1].title.split() if self.quote else []
        return words[-1] if words else ""

    @property
    def subject(self) -> str:
        """What the gold passage is about: its title without the heading."""
        return self.passages[self.number - 1].title.removesuffix(self.heading).strip()


def read_examples(instructions: Sequence[Instruction]) -> list[Grounded]:
    """Grounded instructions with their passages; one that does not read back is left out."""
    examples = []
    for row in instructions:
        prompt = row.messages[0].content
        passages = read_passages(prompt)
        citations = parse_citations(row.messages[-1].content)
        if citations and check_citation(citations[0], passages) is None:
            examples.append(Grounded(prompt, passages, citations[0].number, citations[0].quote))
        elif row.messages[-1].content.strip() == NO_ANSWER:
            examples.append(Grounded(prompt, passages, 0, ""))
    return examples


def exchange_facts(examples: Sequence[Grounded]) -> list[tuple[Grounded, str]]:
    """Returns (example with the new fact, old fact); examples without a partner are left out.

    The partner is the next example under the same heading with another quote, so the exchange is
    the same in every run.
    """
    by_heading: dict[str, list[Grounded]] = defaultdict(list)
    for example in examples:
        if example.quote:
            by_heading[example.heading].append(example)
    swapped = []
    for group in by_heading.values():
        for k, example in enumerate(group):
            others = [_about(example, other) for other in group[k + 1 :] + group[:k]]
            new = next((q for q in others if _differs(q, example)), None)
            if new is None:
                continue
            line = passage_line(example.number, example.passages[example.number - 1])
            prompt = example.prompt.replace(line, line.replace(example.quote, new, 1), 1)
            changed = example._replace(prompt=prompt, passages=read_passages(prompt), quote=new)
            swapped.append((changed, example.quote))
    return swapped


def figures(
    subject: str, examples: Sequence[Grounded], engine: ChatEngine, tokens: int
) -> list[Figure]:
    """Shares over examples with an answer, without one, and with an exchanged fact.

    Citations are guided, as the served ones are; `grounded_unguided_quote` is what
    the model does by itself.
    """
    sampling = Greedy(max_new_tokens=tokens)
    alone = Greedy(max_new_tokens=tokens, guided_quotes=False)
    answered = [example for example in examples if example.quote]
    silent = [example for example in examples if not example.quote]
    swapped = exchange_facts(examples)
    asked = [*answered, *silent, *(example for example, _ in swapped)]
    answers = [str(a.text) for a in engine.chat([ask(e.prompt) for e in asked], sampling)]
    first, second = answers[: len(answered)], answers[len(answered) : len(answered) + len(silent)]
    third = answers[len(answered) + len(silent) :]
    old = [quote for _, quote in swapped]
    unguided = [str(a.text) for a in engine.chat([ask(e.prompt) for e in answered], alone)]
    return [
        share(subject, "grounded_right_quote", _count_quotes(answered, first), len(answered)),
        share(subject, "grounded_unguided_quote", _count_quotes(answered, unguided), len(answered)),
        share(subject, "grounded_valid_citation", _count_valid(answered, first), len(answered)),
        share(subject, "grounded_abstains", sum(NO_ANSWER in a for a in second), len(silent)),
        share(
            subject,
            "fact_swap_followed",
            _count_quotes([example for example, _ in swapped], third),
            len(swapped),
            reason="no two examples under one heading",
        ),
        share(
            subject,
            "fact_swap_verbatim",
            _count_valid([example for example, _ in swapped], third),
            len(swapped),
            reason="no two examples under one heading",
        ),
        share(
            subject,
            "fact_swap_recited",
            sum(quote in answer for quote, answer in zip(old, third, strict=True)),
            len(swapped),
            reason="no two examples under one heading",
        ),
    ]


def _about(example: Grounded, other: Grounded) -> str:
    """The other's clause, told of this example's subject."""
    if not (other.subject and example.subject):
        return other.quote
    return other.quote.replace(other.subject, example.subject)


def _differs(quote: str, example: Grounded) -> bool:
    return quote not in example.prompt and example.quote not in quote and quote not in example.quote


def _count_quotes(examples: Sequence[Grounded], answers: Sequence[str]) -> int:
    """Answers that cite the gold passage with its fact and whose citation holds."""
    right = 0
    for example, answer in zip(examples, answers, strict=True):
        right += any(
            citation.number == example.number
            and citation.quote == example.quote
            and check_citation(citation, example.passages) is None
            for citation in parse_citations(answer)
        )
    return right


def _count_valid(examples: Sequence[Grounded], answers: Sequence[str]) -> int:
    """Answers that cite, and all of whose citations hold."""
    valid = 0
    for example, answer in zip(examples, answers, strict=True):
        citations = parse_citations(answer)
        valid += bool(citations) and all(
            check_citation(citation, example.passages) is None for citation in citations
        )
    return valid
