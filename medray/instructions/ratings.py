"""Physicians' judgements as reward data. In: responses.jsonl, ratings.jsonl. Out: scores.jsonl and
preferences.jsonl as sources of the instructions, and how far the raters agree.

A score is the mean of the raters' scores. A pair is taken for two answers to a scenario of which
more raters prefer the one, by rank where they gave one, else by score; even votes give none.
Agreement: Krippendorff's α of the scores (interval) and of the ranks (ordinal), EVALUATION.md 1;
and the share of pairs judged by two raters that they order alike, ties left out.
Source: [EMR-LLM 1.4], [ClinicalGPT 2.3].
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from medray.common.errors import DataError
from medray.common.ratings import Rating, RatingTask, read_lines

Judged = Mapping[str, Mapping[str, Rating]]
"""Response → rater → rating, of one scenario."""


class Imported(NamedTuple):
    """What came of the ratings."""

    scores: list[dict[str, Any]]
    preferences: list[dict[str, Any]]
    agreement: dict[str, float | int | None]


def import_ratings(responses: Path, ratings: Path, out: Path) -> Imported:
    """Reads both files and writes three into `out`, which is made.

    Raises:
        DataError: a line that is none, a rating of an answer that is not there, or two ratings of
            one answer by one rater; the message names the file and the line.
    """
    tasks = {task.scenario_id: task for _, task in read_lines(responses, RatingTask)}
    judged = _by_scenario(ratings, tasks)
    result = Imported(
        [row for s, task in tasks.items() for row in _scores(task, judged[s])],
        [row for s, task in tasks.items() for row in _preferences(task, judged[s])],
        agreement(judged),
    )
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("scores", result.scores), ("preferences", result.preferences)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        _write(out / f"{name}.jsonl", lines)
    _write(out / "agreement.json", json.dumps(result.agreement, indent=1))
    return result


def agreement(judged: Mapping[str, Judged]) -> dict[str, float | int | None]:
    """α of scores and ranks, the share of pairs ordered alike, and what they rest on; None where no
    answer was judged by two raters, or all judgements are the same."""
    raters = sorted({r for scenario in judged.values() for row in scenario.values() for r in row})
    answers = [row for scenario in judged.values() for row in scenario.values()]
    same = total = 0
    for scenario in judged.values():
        for one, other in combinations(scenario.values(), 2):
            both = (_vote(one[r], other[r]) for r in one.keys() & other.keys())
            votes = [vote for vote in both if vote]
            total += len(votes) * (len(votes) - 1) // 2
            same += sum(a == b for a, b in combinations(votes, 2))
    return {
        "raters": len(raters),
        "responses": len(answers),
        "score_alpha": _alpha([[_value(row.get(r), "score") for row in answers] for r in raters],
                              "interval"),
        "rank_alpha": _alpha([[_value(row.get(r), "rank") for row in answers] for r in raters],
                             "ordinal"),
        "pairs_alike": same / total if total else None,
        "pairs": total,
    }  # fmt: skip


def _alpha(
    values_RN: Sequence[Sequence[float]], level: Literal["interval", "ordinal"]
) -> float | None:
    import krippendorff

    data = np.array(values_RN, float).reshape(len(values_RN), -1)
    shared = (~np.isnan(data)).sum(0) >= 2
    known = data[:, shared] if data.size else data
    if not shared.any() or len(np.unique(known[~np.isnan(known)])) < 2:
        return None
    return float(krippendorff.alpha(known, level_of_measurement=level))


def _value(rating: Rating | None, name: str) -> float:
    value = None if rating is None else getattr(rating, name)
    return float("nan") if value is None else float(value)


def _vote(one: Rating, other: Rating) -> int:
    """1 if the first is better, −1 if the other, 0 if neither."""
    if one.rank is not None and other.rank is not None:
        return (one.rank < other.rank) - (one.rank > other.rank)
    if one.score is not None and other.score is not None:
        return (one.score > other.score) - (one.score < other.score)
    return 0


def _scores(task: RatingTask, judged: Judged) -> Iterator[dict[str, Any]]:
    for response in task.responses:
        given = [r.score for r in judged.get(response.response_id, {}).values()]
        known = [score for score in given if score is not None]
        if known:
            yield {
                "id": response.response_id,
                "scenario": task.scenario,
                "response": response.text,
                "score": round(sum(known) / len(known), 4),
            }


def _preferences(task: RatingTask, judged: Judged) -> Iterator[dict[str, Any]]:
    for one, other in combinations(task.responses, 2):
        first, second = (judged.get(x.response_id, {}) for x in (one, other))
        votes = sum(_vote(first[r], second[r]) for r in first.keys() & second.keys())
        if votes and one.text != other.text:
            better, worse = (one, other) if votes > 0 else (other, one)
            yield {
                "id": f"{better.response_id}>{worse.response_id}",
                "scenario": task.scenario,
                "chosen": better.text,
                "rejected": worse.text,
            }


def _by_scenario(path: Path, tasks: Mapping[str, RatingTask]) -> dict[str, Judged]:
    judged: dict[str, dict[str, dict[str, Rating]]] = {s: defaultdict(dict) for s in tasks}
    known = {s: {r.response_id for r in task.responses} for s, task in tasks.items()}
    for number, rating in read_lines(path, Rating):
        if rating.response_id not in known.get(rating.scenario_id, ()):
            raise DataError(
                f"{path}, line {number}: no answer {rating.response_id!r} to scenario "
                f"{rating.scenario_id!r} was handed out; give the responses.jsonl of this round"
            )
        row = judged[rating.scenario_id][rating.response_id]
        if rating.rater in row:
            raise DataError(
                f"{path}, line {number}: rater {rating.rater!r} has judged "
                f"{rating.response_id!r} before; keep one of the two lines"
            )
        row[rating.rater] = rating
    return {s: dict(rows) for s, rows in judged.items()}


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
