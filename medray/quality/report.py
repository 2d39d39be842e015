"""The measure report. In: tallies and sample cases. Out: FHIR R4 MeasureReports in a Bundle
(JSON, for machines) and one HTML page (for people).

FHIR has no place for open cases, bounds and intervals: they are extensions.
Source: EVALUATION.md 3.
"""

import html
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from medray.quality.measure import Measure, Status, Tally
from medray.quality.verdict import VerdictRow

EXTENSION = "urn:medray:measure:"
POPULATION_SYSTEM = "http://terminology.hl7.org/CodeSystem/measure-population"
LABELS: dict[Status, str] = {
    "met": "达标",
    "unmet": "未达标",
    "unknown": "无法判定",
    "undetermined": "是否纳入不明",
    "excluded": "未纳入",
}
STYLE = """body{font-family:system-ui,sans-serif;margin:2rem auto;max-width:62rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}th,td{border:1px solid #ccc;
padding:.3rem .6rem;text-align:left;vertical-align:top}th{background:#f3f3f3}td.n{text-align:right}
.note{color:#666;font-size:.9rem}"""


class Example(NamedTuple):
    """A record shown in the page, with the verdicts on it."""

    doc_id: str
    indicator: str
    status: Status
    deciding: tuple[str, ...]
    rows: Sequence[VerdictRow]


def measure_reports(measures: Iterable[Measure], date: str) -> dict[str, Any]:
    """A FHIR R4 Bundle with one summary MeasureReport per indicator. `date`: when it was made."""
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": _measure_report(measure, date)} for measure in measures],
    }


def _measure_report(measure: Measure, date: str) -> dict[str, Any]:
    indicator = measure.indicator
    stratifiers = [
        {
            "code": [{"text": name}],
            "stratum": [
                {"value": {"text": value}, **_group(tally)}
                for (stratifier, value), tally in sorted(measure.strata.items())
                if stratifier == name
            ],
        }
        for name in indicator.stratifiers
    ]
    group = {"code": {"text": indicator.title or indicator.id}, **_group(measure.total)}
    if measure.strata:
        group["stratifier"] = stratifiers
    return {
        "resourceType": "MeasureReport",
        "status": "complete",
        "type": "summary",
        "measure": f"urn:medray:Measure/{indicator.id}",
        "date": date,
        "period": _period(measure),
        "group": [group],
    }


def _group(tally: Tally) -> dict[str, Any]:
    """Counts, score and extensions, as a group and a stratum both hold them."""
    extensions = [
        {"url": EXTENSION + name, "valueInteger": getattr(tally, name)}
        for name in ("met", "unmet", "unknown", "undetermined", "excluded")
    ]
    for name, pair in (("bounds", tally.bounds), ("wilson95", tally.interval)):
        if pair is not None:
            extensions.append(
                {
                    "url": EXTENSION + name,
                    "extension": [
                        {"url": "low", "valueDecimal": round(pair[0], 6)},
                        {"url": "high", "valueDecimal": round(pair[1], 6)},
                    ],
                }
            )
    group: dict[str, Any] = {
        "extension": extensions,
        "population": [
            {"code": {"coding": [{"system": POPULATION_SYSTEM, "code": code}]}, "count": count}
            for code, count in tally.populations.items()
        ],
    }
    if tally.rate is not None:
        group["measureScore"] = {"value": round(tally.rate, 6)}
    return group


def _period(measure: Measure) -> dict[str, Any]:
    """FHIR requires a period; without dates it says that they are absent."""
    if not measure.first_date:
        url = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
        return {"extension": [{"url": url, "valueCode": "unknown"}]}
    return {"start": measure.first_date, "end": measure.last_date}


def html_report(measures: Iterable[Measure], examples: Sequence[Example], date: str) -> str:
    """One page: per indicator its definition, counts, rate, strata and sample records."""
    parts = [
        "<!doctype html><html lang='zh'><head><meta charset='utf-8'><title>质控指标报告</title>",
        f"<style>{STYLE}</style></head><body><h1>质控指标报告</h1>",
        f"<p class='note'>{html.escape(date)}。率 = 达标 / (达标 + 未达标)；区间为 Wilson 95%；",
        "上下界为无法判定者全部未达标至全部达标。</p>",
    ]
    for measure in measures:
        indicator = measure.indicator
        parts.append(f"<h2>{_(indicator.title or indicator.id)}</h2><p><code>{_(indicator.id)}")
        parts.append("</code></p><ul>")
        parts += [f"<li>{_(k)}：{_(t.question)}</li>" for k, t in indicator.tasks.items()]
        parts += [f"<li><code>{k} = {_(v)}</code></li>" for k, v in indicator.populations.items()]
        parts.append("</ul>" + _tally_table(measure))
        shown = [example for example in examples if example.indicator == indicator.id]
        if shown:
            parts.append(_example_table(shown))
    return "".join([*parts, "</body></html>\n"])


def _(text: str) -> str:
    return html.escape(text)


def _tally_table(measure: Measure) -> str:
    head = ["", *LABELS.values(), "率", "95% 区间", "上下界"]
    rows = [("全部", measure.total)]
    rows += [(f"{name}：{value}", t) for (name, value), t in sorted(measure.strata.items())]
    body = "".join(
        f"<tr><td>{_(label)}</td>"
        + "".join(f"<td class='n'>{getattr(tally, status)}</td>" for status in LABELS)
        + f"<td class='n'>{percent(tally.rate)}</td><td>{_pair(tally.interval)}</td>"
        + f"<td>{_pair(tally.bounds)}</td></tr>"
        for label, tally in rows
    )
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{body}</table>"


def _example_table(examples: Sequence[Example]) -> str:
    rows = []
    for example in examples:
        evidence = "<br>".join(
            f"{_(row.task)} {row.reason}" + (f"：“{_(row.evidence.quote)}”" if row.evidence else "")
            for row in example.rows
        )
        rows.append(
            f"<tr><td>{_(example.doc_id)}</td><td>{LABELS[example.status]}</td>"
            f"<td>{_('、'.join(example.deciding))}</td><td>{evidence}</td></tr>"
        )
    head = "<tr><th>病历</th><th>结论</th><th>决定的子任务</th><th>依据</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def percent(value: float | None) -> str:
    """A fraction as a percentage, or n/a."""
    return "n/a" if value is None else f"{100 * value:.1f}%"


def _pair(pair: tuple[float, float] | None) -> str:
    return "n/a" if pair is None else f"{percent(pair[0])} – {percent(pair[1])}"
