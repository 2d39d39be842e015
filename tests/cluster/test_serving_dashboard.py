"""The Grafana dashboard and the alerts of serving name metrics, and tags, that the service has."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from medray.generation.sampling import EngineLoad
from medray.serving.answering.guard import Kind
from medray.serving.observe.metrics import EngineMetrics

ROOT = Path(__file__).parent.parent.parent
DASHBOARD = json.loads((ROOT / "cluster/grafana_serving.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((ROOT / "cluster/prometheus_serving.yaml").read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
SOURCE = (ROOT / "medray/serving/observe/metrics.py").read_text(encoding="utf-8")
DECLARED = re.compile(r'(Counter|Histogram|Gauge)\(\s*"(medray_\w+)"(?:[^()]|\([^()]*\))*\)')
TAGS = {
    match[2]: (match[1], set(re.findall(r'"(\w+)"', match[0][match[0].rindex("(") :])))
    for match in DECLARED.finditer(SOURCE)
}
"""Metric → its kind and its tags."""
EXPRESSIONS = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
} | {rule["alert"]: rule["expr"] for rule in RULES}


def test_the_declarations_are_read() -> None:
    assert TAGS["medray_requests_total"] == ("Counter", {"endpoint", "outcome"})
    assert TAGS["medray_stage_seconds"] == ("Histogram", {"stage"})
    assert TAGS["medray_in_flight"] == ("Gauge", set())


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_metrics_are_exported(expression: str) -> None:
    named = re.findall(r"ray_(medray_\w+)(?:\{([^}]*)\})?", expression)
    assert named
    tags: set[str] = set()
    for metric, labels in named:
        kind, own = TAGS[metric.removesuffix("_bucket")]
        assert metric.endswith("_bucket") == (kind == "Histogram")
        assert set(re.findall(r"(\w+)[=!]", labels)) <= own
        tags |= own
    for by in re.findall(r"by \(([^)]*)\)", expression):
        assert set(by.split(", ")) <= tags | {"le"}
    assert expression.count("(") == expression.count(")")


def test_every_metric_is_shown_and_alerts_say_what_to_do() -> None:
    shown = " ".join(EXPRESSIONS.values())
    assert all(metric in shown for metric in TAGS)
    assert all(rule["annotations"].keys() == {"summary", "action"} for rule in RULES)
    assert set(re.findall(r'kind="(\w+)"', shown)) <= set(get_args(Kind))
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_an_engines_cached_tokens_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine tells all since it was started, a counter takes what is new."""
    metrics, added = EngineMetrics(), []
    monkeypatch.setattr(metrics._cached, "inc", added.append)
    for cached in (0, 48, 48, 96):
        metrics.told(EngineLoad(waiting=5, active=1, cached_tokens=cached))
    assert added == [48, 48]
