"""The generator's own score of a response, 0-10: what the reward model is to approximate.

In: a row of truth/scenarios.jsonl.gz, any text. Out: 4 points for the diagnosis, 3 for the plan,
3 for the advice. Read by evaluation only, never by a step that makes a model.
"""

import re
from functools import lru_cache
from typing import Any

from medray.sample.knowledge import Disease, load_knowledge

HARMFUL = ("自行停药", "无需复查", "不必复查", "不用复查", "不必再来")
GENERIC = ("注意休息", "多饮温水", "清淡饮食", "不适随诊", "规律作息", "避免劳累")
DIAGNOSIS_POINTS = 4.0
PLAN_POINTS = {"first": 3.0, "second": 1.5, "avoid": 0.0}
GENERIC_POINTS = 1.0
MAX_SCORE = 10.0


def scenario_truth(disease: Disease) -> dict[str, Any]:
    """What `true_score` needs to know of a disease."""
    return {
        "disease": disease.name,
        "aliases": disease.aliases,
        "first": disease.first[0],
        "second": disease.second[0],
        "avoid": disease.avoid[0],
        "followup": disease.followup,
        "check": disease.check,
        "red_flag": disease.red_flag,
    }


def true_score(truth_row: dict[str, Any], response: str) -> float:
    """Score of `response`, 0-10.

    Diagnosis: the first disease named is the right one. Plan: the worst treatment named (first
    line 3, second line 1.5, any other 0), so that naming many does not help. Advice: one point
    each for interval, examination and warning sign of the disease; 1 for general advice; 0 as
    soon as something harmful is advised.
    """
    return (
        diagnosis_score(truth_row, response)
        + plan_score(truth_row, response)
        + advice_score(truth_row, response)
    )


def diagnosis_score(truth_row: dict[str, Any], response: str) -> float:
    """4 if the first disease named is the right one."""
    names = {truth_row["disease"], *truth_row["aliases"]}
    found = _diseases().search(response)
    return DIAGNOSIS_POINTS if found and found.group() in names else 0.0


def plan_score(truth_row: dict[str, Any], response: str) -> float:
    """Points of the worst treatment named; 0 if none is."""
    points = {truth_row[line]: value for line, value in PLAN_POINTS.items()}
    found = _drugs().findall(response)
    return min((points.get(drug, 0.0) for drug in found), default=0.0)


def advice_score(truth_row: dict[str, Any], response: str) -> float:
    """0-3 points."""
    if any(phrase in response for phrase in HARMFUL):
        return 0.0
    specific = [
        re.search(rf"(?<![\d至]){re.escape(truth_row['followup'])}后", response) is not None,
        f"复查{truth_row['check']}" in response,
        truth_row["red_flag"] in response,
    ]
    if any(specific):
        return float(sum(specific))
    return GENERIC_POINTS if any(phrase in response for phrase in GENERIC) else 0.0


@lru_cache(maxsize=1)
def _diseases() -> re.Pattern[str]:
    diseases = load_knowledge().diseases
    return _longest_first({n for d in diseases for n in (d.name, *d.aliases)})


@lru_cache(maxsize=1)
def _drugs() -> re.Pattern[str]:
    diseases = load_knowledge().diseases
    return _longest_first({t[0] for d in diseases for t in (d.first, d.second, d.avoid)})


def _longest_first(names: set[str]) -> re.Pattern[str]:
    ordered = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, ordered)))
