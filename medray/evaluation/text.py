"""How close and how varied generated text is. In: responses and references. Out: ROUGE-L,
character F1, length, distinct-1/2.

Everything is by character: Chinese has no blanks, and a package made for English gives 0.
Source: EVALUATION.md 1, 2.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from medray.evaluation.figures import Figure, mean, plain


def characters(text: str) -> list[str]:
    """The non-space characters."""
    return [c for c in text if not c.isspace()]


def rouge_l(response: str, reference: str) -> float:
    """F of ROUGE-L over characters; an empty response or reference gives 0."""
    from rouge_chinese import Rouge

    ours, theirs = characters(response), characters(reference)
    if not ours or not theirs:
        return 0.0
    # The package takes words between blanks and raises on empty text.
    scores: Any = Rouge(metrics=["rouge-l"]).get_scores(" ".join(ours), " ".join(theirs))
    return float(scores[0]["rouge-l"]["f"])


def character_f1(response: str, reference: str) -> float:
    """SQuAD's F1 over characters, repeated ones counted as often as they occur in both."""
    ours, theirs = Counter(characters(response)), Counter(characters(reference))
    shared = (ours & theirs).total()
    if not shared:
        return 0.0
    precision, recall = shared / ours.total(), shared / theirs.total()
    return 2 * precision * recall / (precision + recall)


def distinct(responses: Sequence[str], n: int) -> float | None:
    """Distinct n-grams among all n-grams of the responses together; None if there are none."""
    grams = Counter(
        tuple(chars[k : k + n])
        for chars in map(characters, responses)
        for k in range(len(chars) - n + 1)
    )
    return len(grams) / grams.total() if grams else None


def figures(
    subject: str, task: str, responses: Sequence[str], references: Sequence[str]
) -> list[Figure]:
    """The text metrics of one task."""
    pairs = list(zip(responses, references, strict=True))
    lengths = [float(len(characters(response))) for response in responses]
    return [
        mean(subject, "rouge_l", [rouge_l(*pair) for pair in pairs], group=task),
        mean(subject, "char_f1", [character_f1(*pair) for pair in pairs], group=task),
        mean(subject, "length", lengths, unit="characters", group=task),
        *(
            plain(
                subject,
                f"distinct_{n}",
                value,
                len(responses),
                group=task,
                reason="" if value is not None else "no text",
            )
            for n, value in ((n, distinct(responses, n)) for n in (1, 2))
        ),
    ]
