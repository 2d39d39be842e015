"""What answers are worth. In: scenarios, an engine, a reward scorer, and where the generator knows
it the true score. Out: reward, true score and length per answer, and paired comparisons.

Source: [EMR-LLM 1.4]; EVALUATION.md 2 (length bias: the length stands beside the reward).
"""

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from medray.common.records import Scenario
from medray.evaluation.bootstrap import paired_difference
from medray.evaluation.figures import Figure, mean, missing, plain
from medray.evaluation.text import characters
from medray.quality.protocols import ChatEngine, Greedy, ask

TrueScore = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""(scenario ids, responses) → true scores."""


class Scorer(Protocol):
    """A reward model."""

    def score(self, scenarios: Sequence[str], responses: Sequence[str], /) -> Sequence[float]: ...


class Worth(NamedTuple):
    """Per scenario, in order. An empty list: nobody could tell."""

    reward: list[float]
    true_score: list[float]
    length: list[float]


def answer_scenarios(
    scenarios: Sequence[Scenario],
    engine: ChatEngine,
    scorer: Scorer | None,
    true_score: TrueScore | None,
    tokens: int,
) -> Worth:
    """Answers every scenario greedily and scores the answers."""
    answers = engine.chat([ask(row.prompt) for row in scenarios], Greedy(max_new_tokens=tokens))
    texts = [str(answer.text) for answer in answers]
    reward = scorer.score([row.prompt for row in scenarios], texts) if scorer else []
    true = true_score([row.id for row in scenarios], texts) if true_score else []
    return Worth(
        [float(value) for value in reward],
        [float(value) for value in true],
        [float(len(characters(text))) for text in texts],
    )


def figures(subject: str, worth: Worth) -> list[Figure]:
    """Means with intervals, and the reward's standard deviation over scenarios."""
    spread = statistics.stdev(worth.reward) if len(worth.reward) > 1 else None
    return [
        mean(subject, "reward", worth.reward)
        if worth.reward
        else missing(subject, "reward", "no reward model"),
        plain(
            subject,
            "reward_sd",
            spread,
            len(worth.reward),
            reason="" if spread is not None else "fewer than two rewards",
        ),
        mean(subject, "true_score", worth.true_score)
        if worth.true_score
        else missing(subject, "true_score", "the generator's truth is not given"),
        mean(subject, "answer_length", worth.length, unit="characters"),
    ]


def compare(before: str, after: str, metric: str, a: list[float], b: list[float]) -> Figure:
    """Paired difference `after` − `before` on the same items."""
    subject = f"{after} - {before}"
    if not a or len(a) != len(b):
        return missing(subject, metric, "not measured on the same items")
    found = paired_difference(a, b)
    return plain(subject, metric, found.value, len(a), low=found.low, high=found.high)
