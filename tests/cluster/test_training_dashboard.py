"""The Grafana dashboard and the alerts of training name gauges that training exports."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from medray.training.forgetting import HELD_OUT
from medray.training.loop import speed
from medray.training.watching import gauge_of
from medray.training.workers import WorkersConfig

ROOT = Path(__file__).parent.parent.parent
GAUGE = re.compile(r"ray_(medray_\w+)")
DASHBOARD = json.loads((ROOT / "cluster/grafana_training.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((ROOT / "cluster/prometheus_training.yaml").read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]


def figures_in_the_code() -> set[str]:
    """Names that medray/training gives its figures: keys of dictionaries, and items set in them."""
    names: set[str] = set()
    for path in (ROOT / "medray/training").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict):
                keys = node.keys
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                keys = [node.slice]
            else:
                continue
            names |= {key.value for key in keys if isinstance(key, ast.Constant)}
    return names


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """Gauges of the figures; what is measured on held-out rows has its group put before it."""
    code = figures_in_the_code()
    held_out = {f"{HELD_OUT}{name}" for name in code if "/" not in str(name)}
    of_a_step = speed({"train/tokens": 1.0, "train/flops": 1.0}, 1.0, 1.0)
    figures = {name for name in code if "/" in str(name)} | held_out | set(of_a_step)
    return {gauge_of(figure)[0] for figure in figures | {"step", "workers"}}


def expressions() -> dict[str, str]:
    """Title of a panel or name of an alert → what it asks Prometheus for."""
    panels = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    }
    return panels | {rule["alert"]: rule["expr"] for rule in RULES}


@pytest.mark.parametrize("expression", expressions().values(), ids=expressions())
def test_gauges_are_exported(expression: str, exported: set[str]) -> None:
    named = set(GAUGE.findall(expression))
    assert named
    assert named <= exported
    assert expression.count("(") == expression.count(")")


def test_the_dashboard_shows_what_is_asked_after() -> None:
    shown = set(GAUGE.findall(" ".join(expressions().values())))
    assert shown >= {
        "medray_train_loss", "medray_time_tokens_per_s", "medray_time_mfu", "medray_time_step_s",
        "medray_time_checkpoint_age_s", "medray_workers", "medray_step",
    }  # fmt: skip
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for place in places:
        assert place["x"] + place["w"] <= 24
        overlapping = [
            other
            for other in places
            if place["x"] < other["x"] + other["w"] and other["x"] < place["x"] + place["w"]
            and place["y"] < other["y"] + other["h"] and other["y"] < place["y"] + place["h"]
        ]  # fmt: skip
        assert overlapping == [place]


def test_variables_of_the_dashboard_are_its_own() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(DASHBOARD)))
    assert used == variables == {"datasource", "stage", "run"}


def test_alerts_say_what_to_do() -> None:
    for rule in RULES:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+m", rule["for"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "action"}
        assert "{{ $labels.stage }}-{{ $labels.run }}" in rule["annotations"]["summary"]
        # The settings that it names are there.
        for setting in re.findall(r"workers\.(\w+)", rule["annotations"]["action"]):
            assert setting in WorkersConfig.model_fields
