"""Diagnosis accuracy. In: held-out diagnosis instructions (or records, for a model that has seen
no instructions), an engine. Out: right or wrong per item, figures overall and by department.

Source: [ClinicalGPT 3, table 6] by department; EVALUATION.md 1.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from medray.common.records import Document, Instruction, Section
from medray.evaluation.figures import Figure, plain, share
from medray.evaluation.lexicon import Lexicon
from medray.quality.protocols import ChatEngine, Engine, Greedy

HEADING = "诊断"


class Item(NamedTuple):
    """One question with its principal diagnosis. `prompt`: a user's turn, or raw text."""

    id: str
    prompt: str
    gold: str
    group: str


class Result(NamedTuple):
    """Per item, in order: what was named (None = unparsed) and whether it is right."""

    named: list[str | None]
    right: list[bool]


def chat_items(instructions: Sequence[Instruction], lexicon: Lexicon) -> list[Item]:
    """Held-out instructions as items."""
    return [
        Item(row.id, row.messages[0].content, gold, row.group)
        for row in instructions
        if (gold := lexicon.canonical(row.answer)) is not None
    ]


def completion_items(
    documents: Sequence[Document], lexicon: Lexicon, render: Callable[[Document], str]
) -> list[Item]:
    """Records cut before the text of their diagnosis, for a base model to go on writing.

    Args:
        render: a document as pretraining text.
    """
    items = []
    for document in documents:
        headings = [section.heading for section in document.sections]
        if HEADING not in headings:
            continue
        at = headings.index(HEADING)
        gold = lexicon.principal(document.sections[at].text)
        if gold is None or at == 0:
            continue
        opened = [*document.sections[:at], Section(heading=HEADING, text="")]
        prompt = render(document.model_copy(update={"sections": opened}))
        items.append(Item(document.doc_id, prompt, gold, document.department))
    return items


def answer_items(
    items: Sequence[Item], engine: ChatEngine | Engine, lexicon: Lexicon, *, raw: bool, tokens: int
) -> Result:
    """Asks the engine. `raw`: the prompt is continued as text, else answered as a chat."""
    sampling = Greedy(max_new_tokens=tokens)
    if raw:
        answers = engine.generate([item.prompt for item in items], sampling)  # type: ignore[union-attr]
    else:
        chats = [[{"role": "user", "content": item.prompt}] for item in items]
        answers = engine.chat(chats, sampling)
    return grade(items, [answer.text for answer in answers], lexicon)


def grade(items: Sequence[Item], answers: Sequence[str], lexicon: Lexicon) -> Result:
    """Reads the principal diagnosis out of each answer."""
    named = [lexicon.principal(answer) for answer in answers]
    right = [item.gold == name for item, name in zip(items, named, strict=True)]
    return Result(named, right)


def figures(subject: str, items: Sequence[Item], result: Result) -> list[Figure]:
    """Micro accuracy, mean over departments, each department, and the unparsed share."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for item, right in zip(items, result.right, strict=True):
        groups[item.group or "not stated"].append(right)
    macro = [sum(rights) / len(rights) for rights in groups.values()]
    return [
        share(subject, "diagnosis_accuracy", sum(result.right), len(items)),
        plain(
            subject,
            "diagnosis_macro_accuracy",
            sum(macro) / len(macro) if macro else None,
            len(items),
            reason="" if macro else "no items",
        ),
        share(subject, "diagnosis_unparsed", result.named.count(None), len(items)),
        *(
            share(subject, "diagnosis_accuracy", sum(rights), len(rights), group=group)
            for group, rights in sorted(groups.items())
        ),
    ]


def tfidf_answers(train: Sequence[Item], test: Sequence[Item], max_iterations: int) -> list[str]:
    """The baseline: character n-grams (1–3), TF-IDF, logistic regression, on the same split.

    Source: issue 2 asks for it beside the model; n-grams and C chosen as is usual for Chinese.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    if len({item.gold for item in train}) < 2:
        return [train[0].gold if train else ""] * len(test)
    vectorizer = TfidfVectorizer(
        analyzer="char", ngram_range=(1, 3), min_df=2, max_features=50_000, sublinear_tf=True
    )
    classifier = LogisticRegression(C=10.0, max_iter=max_iterations)
    classifier.fit(
        vectorizer.fit_transform([item.prompt for item in train]), [item.gold for item in train]
    )
    return [
        str(name) for name in classifier.predict(vectorizer.transform([i.prompt for i in test]))
    ]
