"""Multiple-choice accuracy. In: held-out exam questions, an engine. Out: figures.

The answer is the option letter with the highest log-probability, so none is unparsed; only
questions with one right letter are asked, the others are counted.
Source: EVALUATION.md 1 (argmax over options' log-probability), 2 (no blank after `答案：`).
"""

from collections import defaultdict
from collections.abc import Sequence

from medray.common.records import ExamQuestion
from medray.evaluation.figures import Figure, plain, share
from medray.generation.prompts import exam_prompt
from medray.quality.protocols import Engine, ask


def choose(questions: Sequence[ExamQuestion], engine: Engine, *, raw: bool) -> list[str]:
    """The letter that the engine finds likeliest, per question."""
    letters = [list(question.options) for question in questions]
    prompts = [exam_prompt(question.question, question.options) for question in questions]
    if raw:
        scores = engine.score(prompts, letters)
    else:
        scores = engine.chat_score([ask(prompt) for prompt in prompts], letters)
    return [
        options[max(range(len(options)), key=values.__getitem__)]
        for options, values in zip(letters, scores, strict=True)
    ]


def figures(
    subject: str, questions: Sequence[ExamQuestion], engine: Engine, *, raw: bool
) -> list[Figure]:
    """Micro accuracy with its interval, mean over subjects, chance, and questions left out."""
    asked = [question for question in questions if len(question.answer) == 1]
    groups: dict[str, list[bool]] = defaultdict(list)
    for question, letter in zip(asked, choose(asked, engine, raw=raw), strict=True):
        groups[question.subject or "not stated"].append(letter == question.answer)
    right = sum(map(sum, groups.values()))
    macro = [sum(rights) / len(rights) for rights in groups.values()]
    n, reason = len(asked), "" if asked else "no question with one right letter"
    chance = sum(1 / len(question.options) for question in asked) / n if n else None
    return [
        share(subject, "exam_accuracy", right, n, reason=reason),
        plain(
            subject,
            "exam_macro_accuracy",
            sum(macro) / len(macro) if macro else None,
            n,
            reason=reason,
        ),
        plain(subject, "exam_chance", chance, n, reason=reason),
        plain(subject, "exam_multiple_answers", float(len(questions) - n), len(questions)),
    ]
