"""Feedback of a served model as reward data. In: the gateway's audit log. Out: two task files.

`scores.jsonl` holds scenario, response and score of each answer that was scored,
`preferences.jsonl` the corrected answer over the one that was given: task files of the kinds
`score` and `preference`, which `build_instructions` reads, de-identifies and splits like others.
Source: scored responses [EMR-LLM 1.4]; pairs [ClinicalGPT 2.3].
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from medray.common.errors import DataError
from medray.serving.audit_log import read_entries, verify

EXPERTS = ("clinician", "quality", "admin")
"""Roles whose feedback counts for anybody's answers; a patient's does for the patient's own."""


class Exported(NamedTuple):
    """How much feedback there was, and what became of it."""

    num_scores: int
    num_preferences: int
    left_out: dict[str, int]


def export_feedback(directory: Path, out: Path, key: bytes) -> Exported:
    """Writes the two files, readable by their owner alone: they hold what patients wrote.

    Of several scores of an answer by one person the last counts; of several people the mean.
    Raises:
        DataError: if the log is not sound, the key is another's, or the files are there already.
    """
    if faults := verify(directory).faults:
        raise DataError(f"the audit log is not sound, first: {faults[0]}; see medray audit verify")
    paths = [out / "scores.jsonl", out / "preferences.jsonl"]
    if there := [path for path in paths if path.exists()]:
        raise DataError(f"{there[0]} is there already; give another directory")
    asked, answers = {}, {}
    said: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    left_out: dict[str, int] = defaultdict(int)
    for entry in map(json.loads, read_entries(directory, key=key)):
        request, event = entry.get("request", ""), entry["event"]
        if event == "asked" and "messages" in entry.get("texts", {}):
            asked[request] = entry
        elif event == "answered" and "answer" in entry.get("texts", {}):
            answers[request] = entry["texts"]["answer"]
        elif event == "feedback":
            said[request].setdefault(entry["caller"], {}).update(_said(entry))
    scores, preferences = [], []
    for request, by_caller in said.items():
        if request not in asked or request not in answers:
            left_out["no_such_answer"] += len(by_caller)
            continue
        messages = json.loads(asked[request]["texts"]["messages"])
        if len(messages) > 1:
            left_out["several_turns"] += len(by_caller)
            continue
        counted = {
            caller: words
            for caller, words in by_caller.items()
            if words["role"] in EXPERTS or caller == asked[request]["caller"]
        }
        left_out["not_their_answer"] += len(by_caller) - len(counted)
        row = {"id": request, "scenario": messages[0]["content"]}
        given = [words["score"] for words in counted.values() if "score" in words]
        if given:
            mean = sum(given) / len(given)
            scores.append(row | {"response": answers[request], "score": mean})
        for caller, words in counted.items():
            if words.get("corrected"):
                pair = {"chosen": words["corrected"], "rejected": answers[request]}
                preferences.append(row | pair | {"id": f"{request}-{caller}"})
    out.mkdir(parents=True, exist_ok=True)
    for path, rows in zip(paths, (scores, preferences), strict=True):
        path.touch(mode=0o600)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8")
    return Exported(len(scores), len(preferences), {k: n for k, n in left_out.items() if n})


def _said(entry: dict[str, Any]) -> dict[str, Any]:
    words = {"role": entry["role"], **entry.get("texts", {})}
    return words if entry["score"] is None else words | {"score": entry["score"]}
