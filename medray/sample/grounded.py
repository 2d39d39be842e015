"""Grounded question answering: passages, of which at most one answers, and the clause to quote.

In: the knowledge, a seed. Out: rows. In most examples the fact in the passage is not the true one
but another of its kind, so that it can only be copied, never remembered.
"""

import random
from collections.abc import Iterator
from typing import Any

from medray.sample.facts import ASPECTS, Aspect, clause, passage, question
from medray.sample.knowledge import Disease, Knowledge

NO_ANSWER = 0.2
COUNTERFACTUAL = 0.6
NUM_PASSAGES = 3
MAX_ROWS = 20_000


def grounded(knowledge: Knowledge, seed: int, num: int) -> Iterator[dict[str, Any]]:
    """Examples: question, passages, gold index and quote (None if nothing answers)."""
    for i in range(min(num, MAX_ROWS)):
        rng = random.Random(f"{seed}:grounded:{i}")
        disease, aspect = rng.choice(knowledge.diseases), rng.choice(ASPECTS)
        quote, gold = None, None
        passages = [_distractor(knowledge, disease, aspect, rng) for _ in range(NUM_PASSAGES)]
        while len({p["title"] for p in passages}) < NUM_PASSAGES:
            passages = [_distractor(knowledge, disease, aspect, rng) for _ in range(NUM_PASSAGES)]
        if rng.random() >= NO_ANSWER:
            gold = rng.randrange(NUM_PASSAGES)
            quote = clause(aspect, disease.name, _value(knowledge, disease, aspect, rng), rng)
            passages[gold] = _passage(disease, aspect, quote, rng)
        yield {
            "id": f"G{i:06d}",
            "question": question(aspect, disease.name, rng),
            "passages": passages,
            "quote": quote,
            "gold": gold,
        }


def _value(knowledge: Knowledge, disease: Disease, aspect: Aspect, rng: random.Random) -> str:
    value = true = aspect.value(disease)
    if rng.random() < COUNTERFACTUAL:
        while value == true:
            value = aspect.value(rng.choice(knowledge.diseases))
    return value


def _distractor(
    knowledge: Knowledge, disease: Disease, aspect: Aspect, rng: random.Random
) -> dict[str, str]:
    """The same aspect of another disease, or another aspect of the same disease."""
    if rng.random() < 0.5:
        other = rng.choice([d for d in knowledge.diseases if d.name != disease.name])
    else:
        other = disease
        aspect = rng.choice([a for a in ASPECTS if a is not aspect])
    fact = clause(aspect, other.name, _value(knowledge, other, aspect, rng), rng)
    return _passage(other, aspect, fact, rng)


def _passage(disease: Disease, aspect: Aspect, fact: str, rng: random.Random) -> dict[str, str]:
    return {
        "title": f"{disease.name} {aspect.heading}",
        "text": passage(aspect, disease.name, fact, rng),
    }
