"""The demo's table. In: a storage root with pipeline.json and the artefacts it names. Out: one
line per figure, with its goal, as text or as JSON.

Every figure is read from a manifest; one whose step did not run or did not measure it is n/a.
Source: issue 2 for the figures and their goals.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medray.common.errors import DataError
from medray.common.manifest import read_manifest
from medray.common.storage import MANIFEST

PIPELINE = "pipeline.json"
STAGES = ("pretrain", "encoder", "sft", "reward", "ppo")
MODELS = ("pretrain", "sft", "ppo")


class Step(NamedTuple):
    """One finished step: its headline figures, how long it took, and whether it was there."""

    metrics: dict[str, Any]
    seconds: float
    reused: bool


class Line(NamedTuple):
    """One line of the table. `met`: whether the goal is reached; None without goal or value."""

    group: str
    name: str
    value: float | None
    shown: str
    goal: str = ""
    met: bool | None = None


def read_steps(root: Path) -> dict[str, Step]:
    """The steps of the last pipeline run under `root`.

    Raises:
        DataError: if there is no pipeline.json, or an artefact it names is gone.
    """
    path = root / PIPELINE
    if not path.is_file():
        raise DataError(f"no {PIPELINE} in {root}; run the pipeline first, or check --root")
    steps = {}
    for name, step in json.loads(path.read_text(encoding="utf-8"))["steps"].items():
        directory = Path(step["path"])
        directory = directory if directory.is_absolute() else root / directory
        if not (directory / MANIFEST).is_file():
            directory = root / name / step["key"]  # the root was moved since
        if not (directory / MANIFEST).is_file():
            raise DataError(f"{path} names {directory}, which is gone; run the pipeline again")
        steps[name] = Step(read_manifest(directory).metrics, step["seconds"], step["reused"])
    return steps


def read_table(root: Path) -> list[Line]:
    """The table of the last pipeline run under `root`; errors as `read_steps`."""
    return build_table(read_steps(root))


def build_table(steps: Mapping[str, Step]) -> list[Line]:
    """The lines of the table, in the order of the stages."""
    metrics = {name: step.metrics for name, step in steps.items()}
    evaluation = metrics.get("evaluation", {})
    return [
        *_stage_lines(steps),
        *_loss_lines(evaluation),
        *_diagnosis_lines(evaluation),
        *_ppo_lines(metrics.get("ppo", {}), evaluation),
        *_retrieval_lines(metrics.get("index", {})),
        *_quality_lines(metrics.get("quality", {})),
        *_grounded_lines(evaluation),
    ]


def _stage_lines(steps: Mapping[str, Step]) -> list[Line]:
    lines = []
    for name, step in steps.items():
        took = "reused" if step.reused else f"{step.seconds:.0f} s"
        changes = [
            f"{label}{_number(step.metrics[key])} → {_number(step.metrics[after])}"
            for key, label in (
                ("loss_before", "loss "),
                ("mlm/loss_before", "MLM "),
                ("contrastive/loss_before", "contrastive "),
            )
            if key in step.metrics and (after := key.replace("before", "after")) in step.metrics
        ]
        shown = "; ".join([took, *changes])
        lines.append(Line("step", name, step.metrics.get("loss_after"), shown))
    return lines


def _loss_lines(evaluation: Mapping[str, Any]) -> list[Line]:
    closed = evaluation.get("pretrain/distance_closed")
    names = ("unigram", "pretrain", "bound")
    nats = [_number(evaluation.get(f"{name}/record_nats_per_token")) for name in names]
    return [
        _line("pretrain", "distance to the bound closed", closed, 0.5),
        Line("pretrain", "unigram / model / bound, nats a token", None, " / ".join(nats)),
    ]


def _diagnosis_lines(evaluation: Mapping[str, Any]) -> list[Line]:
    ceiling = evaluation.get("ceiling/diagnosis_accuracy")
    goal = None if ceiling is None else 0.8 * ceiling
    lines = [
        _line(
            "diagnosis",
            f"accuracy after {model}",
            evaluation.get(f"{model}/diagnosis_accuracy"),
            goal if model == "sft" else None,
        )
        for model in MODELS
    ]
    lines.append(_line("diagnosis", "ceiling", ceiling))
    tfidf = evaluation.get("tfidf/diagnosis_accuracy")
    lines.append(_line("diagnosis", "TF-IDF + logistic regression", tfidf))
    return lines


def _ppo_lines(ppo: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[Line]:
    before, after, sd = (ppo.get(key) for key in ("reward_before", "reward_after", "reward_sd"))
    gain = None
    if before is not None and after is not None and sd:
        gain = (after - before) / sd
    lines = [
        _change("PPO", "reward", before, after),
        _line("PPO", "reward gain in standard deviations", gain, 0.5),
    ]
    kl, target = ppo.get("kl"), ppo.get("kl_target")
    is_under = None if kl is None or target is None else kl < target
    lines.append(Line("PPO", "KL", kl, _number(kl), f"< {_number(target)}", is_under))
    true = [
        ppo.get(f"true_score_{when}", evaluation.get(f"{model}/true_score"))
        for when, model in (("before", "sft"), ("after", "ppo"))
    ]
    rises = None if None in true else true[1] > true[0]
    lines.append(_change("PPO", "true score", *true)._replace(goal="rises", met=rises))
    lengths = ppo.get("length_before"), ppo.get("length_after")
    within = None
    if None not in lengths and lengths[0]:
        within = abs(lengths[1] / lengths[0] - 1) <= 0.2
    lines.append(_change("PPO", "answer length", *lengths)._replace(goal="± 20 %", met=within))
    return lines


def _retrieval_lines(index: Mapping[str, Any]) -> list[Line]:
    return [
        _line("retrieval", "recall@5", index.get("recall@5"), 0.9),
        _line("retrieval", "recall@5, BM25 alone", index.get("bm25/recall@5")),
    ]


def _quality_lines(quality: Mapping[str, Any]) -> list[Line]:
    lines = []
    for level in ("subtask", "indicator"):
        key = f"quality/{level}_balanced_accuracy"
        lines += [
            _line("quality", f"{level} balanced accuracy", quality.get(key), 0.9),
            _line("quality", f"{level}, majority class", quality.get(f"{key}_majority")),
            _line("quality", f"{level}, regular expressions", quality.get(f"{key}_regex")),
        ]
    return lines


def _grounded_lines(evaluation: Mapping[str, Any]) -> list[Line]:
    model = "ppo" if "ppo/fact_swap_followed" in evaluation else "sft"
    return [
        _line("grounded", "right quote", evaluation.get(f"{model}/grounded_right_quote")),
        _line(
            "grounded",
            "right quote, not guided",
            evaluation.get(f"{model}/grounded_unguided_quote"),
        ),
        _line(
            "grounded", "follows an exchanged fact", evaluation.get(f"{model}/fact_swap_followed")
        ),
        _line("grounded", "quotes it verbatim", evaluation.get(f"{model}/fact_swap_verbatim")),
    ]


def _line(group: str, name: str, value: float | None, at_least: float | None = None) -> Line:
    goal = "" if at_least is None else f"≥ {_number(at_least)}"
    met = None if value is None or at_least is None else value >= at_least
    return Line(group, name, value, _number(value), goal, met)


def _change(group: str, name: str, before: float | None, after: float | None) -> Line:
    return Line(group, name, after, f"{_number(before)} → {_number(after)}")


def _number(value: Any) -> str:
    if value is None:
        return "n/a"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}"


def format_table(lines: Sequence[Line]) -> str:
    """The table as text; wide (Chinese) characters count as two columns."""
    rows = [("", "figure", "value", "goal", "")]
    group = ""
    for line in lines:
        mark = {True: "✓", False: "✗", None: ""}[line.met]
        label = line.group if line.group != group else ""
        rows.append((label, line.name, line.shown, line.goal, mark))
        group = line.group
    widths = [max(width(row[k]) for row in rows) for k in range(len(rows[0]))]
    text = ["  ".join(map(_pad, row, widths)).rstrip() for row in rows]
    return "\n".join([text[0], "─" * (sum(widths) + 2 * (len(widths) - 1)), *text[1:]])


def width(text: str) -> int:
    """Columns that `text` takes in a terminal."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _pad(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))
