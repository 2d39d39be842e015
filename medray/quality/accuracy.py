"""How right the verdicts are. In: verdict rows and expert labels of the same records. Out:
balanced accuracy of sub-tasks and of the measure, beside majority class and regular expressions.

A sub-task has three answers: yes, no, not mentioned. A verdict that could not be shown or read is
none of them, hence wrong. The measure is compared on the records that truly count.
The majority class is taken from the labels evaluated, which favours it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, ValidationError

from medray.common.errors import DataError
from medray.common.records import Document, Row
from medray.common.sentences import numbered_sentences
from medray.quality import regex_baseline
from medray.quality.indicators import Indicator
from medray.quality.intervals import balanced_accuracy
from medray.quality.measure import classify
from medray.quality.verdict import VerdictRow, values

ANSWERS = {"met": "yes", "unmet": "no", "absent": "not mentioned"}
WORDS = {True: "yes", False: "no", None: "not mentioned"}


class LabelRow(Row):
    """One expert verdict, as the instructions step writes it in quality/labels."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    record_id: str
    indicator: str
    level: Literal["task", "population"]
    name: str
    value: bool | None
    section: str = ""
    """Heading of the sentence that shows it; empty if the expert named none."""
    sentence: int | None = None
    """Place of that sentence in its section, from 0."""


class Label(NamedTuple):
    """An expert's verdicts on one record for one indicator; None = not mentioned."""

    tasks: dict[str, bool | None]
    populations: dict[str, bool | None]
    evidence: dict[str, tuple[str, int]]
    """Task → (heading, sentence within the section from 0)."""


class Pair(NamedTuple):
    """The truth and the three answers to it; `regex` is None where there is no rule."""

    truth: str
    model: str
    regex: str | None


def group_labels(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Label]:
    """(record, indicator) → label, from rows of a `LabelRow`'s fields; other fields are ignored.

    Raises:
        DataError: naming the fields that do not fit.
    """
    labels: dict[tuple[str, str], Label] = {}
    for given in rows:
        try:
            row = LabelRow.model_validate(given)
        except ValidationError as error:
            fields = {".".join(str(part) for part in fault["loc"]) for fault in error.errors()}
            raise DataError(
                f"quality label of record {given.get('record_id', '?')}: wrong or missing "
                f"{', '.join(sorted(fields))}; a row holds {', '.join(LabelRow.model_fields)}"
            ) from None
        label = labels.setdefault((row.record_id, row.indicator), Label({}, {}, {}))
        if row.level == "population":
            label.populations[row.name] = row.value
            continue
        label.tasks[row.name] = row.value
        if row.section and row.sentence is not None:
            label.evidence[row.name] = (row.section, row.sentence)
    return labels


class Accuracy:
    """Collects pairs record by record and sums them up."""

    def __init__(
        self, rows: Iterable[Mapping[str, Any]], doc_ids: Mapping[str, str] | None = None
    ) -> None:
        """`doc_ids` maps a label's record id to the document's id where they differ."""
        names = doc_ids or {}
        self._labels = {
            (names.get(record, record), indicator): label
            for (record, indicator), label in group_labels(rows).items()
        }
        self._shown = self._cited = 0
        self._tasks: dict[tuple[str, str], list[Pair]] = defaultdict(list)
        self._cases: dict[str, list[Pair]] = defaultdict(list)
        self.num_disagreeing = 0
        """Labels whose own populations differ from what their tasks give by the expressions."""

    def add(self, document: Document, indicator: Indicator, rows: Sequence[VerdictRow]) -> None:
        """Compares one record's verdicts with its label, if it has one."""
        label = self._labels.get((document.doc_id, indicator.id))
        if label is None:
            return
        guesses: dict[str, bool | None] = {}
        has_rules = regex_baseline.covers(indicator)
        for row in rows:
            guess = None
            if has_rules:
                guesses[row.task] = regex_baseline.predict(indicator, row.task, document)
                guess = WORDS[guesses[row.task]]
            if row.task in label.tasks:
                answer = ANSWERS.get(row.reason, row.reason)
                pair = Pair(WORDS[label.tasks[row.task]], answer, guess)
                self._tasks[indicator.id, row.task].append(pair)
                self._compare_evidence(document, row, label)
        truth = classify(indicator, _filled(indicator, label.tasks))
        self.num_disagreeing += any(
            code in truth.populations and truth.populations[code] != value
            for code, value in label.populations.items()
        )
        if truth.status not in ("met", "unmet", "unknown"):
            return
        regex = classify(indicator, _filled(indicator, guesses)).status if has_rules else None
        self._cases[indicator.id].append(
            Pair(truth.status, classify(indicator, values(rows)).status, regex)
        )

    def _compare_evidence(self, document: Document, row: VerdictRow, label: Label) -> None:
        """Of the rightly met verdicts: how many rest on the sentence that the expert named."""
        if row.reason != "met" or not label.tasks[row.task] or row.task not in label.evidence:
            return
        heading, index = label.evidence[row.task]
        sentences = [
            sentence
            for sentence in numbered_sentences(document.sections, [heading])
            if sentence.index == index
        ]
        self._shown += 1
        found = row.evidence
        self._cited += found is not None and any(
            found.quote in sentence.text for sentence in sentences
        )

    def metrics(self) -> dict[str, Any]:
        """Means over sub-tasks and over indicators, then each one; None where nothing is known."""
        tasks = {f"{name}/{task}": pairs for (name, task), pairs in sorted(self._tasks.items())}
        result: dict[str, Any] = {}
        for level, groups in (("subtask", tasks), ("indicator", dict(sorted(self._cases.items())))):
            scores = {name: _scores(pairs) for name, pairs in groups.items()}
            for column, suffix in (("model", ""), ("majority", "_majority"), ("regex", "_regex")):
                known = [v for s in scores.values() if (v := s[column]) is not None]
                mean = sum(known) / len(known) if known and len(known) == len(scores) else None
                result[f"quality/{level}_balanced_accuracy{suffix}"] = mean
            result[f"quality/num_{level}_labels"] = sum(len(pairs) for pairs in groups.values())
            result[f"quality/by_{level}"] = {
                name: {**score, "n": len(groups[name]), "truth": _counts(groups[name])}
                for name, score in scores.items()
            }
        result["quality/evidence_accuracy"] = self._cited / self._shown if self._shown else None
        result["quality/num_disagreeing_labels"] = self.num_disagreeing
        return result


def _filled(indicator: Indicator, tasks: Mapping[str, bool | None]) -> dict[str, bool | None]:
    """Puts what "not mentioned" means in place of null."""
    return {
        task: indicator.absent_value(task) if tasks.get(task) is None else tasks[task]
        for task in indicator.tasks
    }


def _scores(pairs: Sequence[Pair]) -> dict[str, float | None]:
    truth = [pair.truth for pair in pairs]
    regex = [pair.regex for pair in pairs]
    most = Counter(truth).most_common(1)[0][0]
    return {
        "model": balanced_accuracy(truth, [pair.model for pair in pairs]),
        "majority": balanced_accuracy(truth, [most] * len(truth)),
        "regex": None if None in regex else balanced_accuracy(truth, regex),
    }


def _counts(pairs: Sequence[Pair]) -> dict[str, int]:
    return dict(sorted(Counter(pair.truth for pair in pairs).items()))
