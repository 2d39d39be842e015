"""The evaluation report. In: figures. Out: report.json and report.html; every row prints n and
the interval, and a figure without a value prints why.
"""

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from medray.evaluation.figures import Figure

STYLE = """body{font-family:system-ui,sans-serif;margin:2rem auto;max-width:60rem;color:#222}
table{border-collapse:collapse}th,td{border:1px solid #ccc;padding:.25rem .6rem;text-align:left}
th{background:#f3f3f3}td.n{text-align:right}tr.na td{color:#888}"""


def write_report(figures: Sequence[Figure], directory: Path) -> None:
    """Writes report.json and report.html into `directory`."""
    rows = [figure.model_dump() for figure in figures]
    text = json.dumps({"figures": rows}, ensure_ascii=False, indent=1)
    (directory / "report.json").write_text(text, encoding="utf-8")
    (directory / "report.html").write_text(html_page(figures), encoding="utf-8")


def html_page(figures: Iterable[Figure]) -> str:
    """One table, grouped by metric so that models stand below each other."""
    ordered = sorted(figures, key=lambda figure: (figure.metric, figure.group))
    rows = "".join(_row(figure) for figure in ordered)
    names = ("metric", "group", "model", "value", "95 % interval", "n", "unit")
    head = "".join(f"<th>{name}</th>" for name in names)
    return (
        "<!doctype html><html><head><meta charset='utf-8'><title>medray evaluation</title>"
        f"<style>{STYLE}</style></head><body><h1>Evaluation</h1>"
        f"<table><tr>{head}</tr>{rows}</table></body></html>\n"
    )


def _row(figure: Figure) -> str:
    names = "".join(
        f"<td>{html.escape(text)}</td>" for text in (figure.metric, figure.group, figure.subject)
    )
    if figure.value is None:
        reason = html.escape(figure.reason)
        return f"<tr class='na'>{names}<td colspan='4'>n/a: {reason}</td></tr>"
    interval = "" if figure.low is None else f"{figure.low:.3f} – {figure.high:.3f}"
    return (
        f"<tr>{names}<td class='n'>{figure.value:.4g}</td><td>{interval}</td>"
        f"<td class='n'>{figure.n}</td><td>{html.escape(figure.unit)}</td></tr>"
    )
