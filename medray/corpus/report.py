"""The corpus on one page. In: a corpus artefact. Out: an HTML file with its pictures inside.

For the people who answer for the data: where every row went, how long and how clean the texts are,
what was taken for an identifier, and a few texts to read, with the surrogates covered.
"""

import html
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from medray.common.manifest import Manifest, read_manifest
from medray.common.records import Document
from medray.common.rows import read_rows
from medray.common.split import unit_hash
from medray.corpus.clean import distinct_fraction, render, word_fraction
from medray.privacy.recognise import SURROGATE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """body{font-family:system-ui,sans-serif;margin:2rem auto;max-width:62rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}th,td{border:1px solid #ccc;
padding:.25rem .6rem;text-align:left;vertical-align:top}th{background:#f3f3f3}td.n{text-align:right}
svg{max-width:100%;height:auto}mark{background:#222;color:#222}.note{color:#666;font-size:.9rem}
pre{white-space:pre-wrap;background:#f7f7f7;padding:.6rem}"""
OPERATORS = (
    "deidentify", "filter", "decontaminate", "dedup", "near_duplicates", "medical_filter",
    "tokenise",
)  # fmt: skip
EXAMPLES, EXAMPLE_CHARS = 3, 240


class Texts(NamedTuple):
    """What the documents themselves show, by source."""

    chars: dict[str, list[int]]
    words: dict[str, list[float]]
    """Share of letters and digits among the characters that are not blank."""
    distinct: dict[str, list[float]]
    """Share of distinct runs of 8 characters, of texts of 200 characters and more."""
    examples: dict[str, list[Document]]
    """Those of least hash."""


def write_report(corpus: Path, path: Path) -> None:
    """Writes the page of the corpus artefact at `corpus` to `path`, whole or not at all."""
    page = html_page(read_manifest(corpus), read_texts(corpus / "documents"))
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)


def read_texts(documents: Path) -> Texts:
    """Measures every document; memory: three numbers a document."""
    texts = Texts(*(defaultdict(list) for _ in range(4)))
    for document in read_rows(documents, Document):
        text, source = render(document), document.source
        texts.chars[source].append(len(text))
        texts.words[source].append(word_fraction(text))
        if (distinct := distinct_fraction(text)) is not None:
            texts.distinct[source].append(distinct)
        shown = [*texts.examples[source], document]
        texts.examples[source] = sorted(shown, key=lambda d: unit_hash(d.doc_id))[:EXAMPLES]
    return texts


def html_page(manifest: Manifest, texts: Texts) -> str:
    """The whole page."""
    phi = manifest.metrics.get("phi", {})
    rejected: Counter[str] = Counter()
    for operator, counts in manifest.counts.items():
        for reason, rows in counts.rejected.items():
            rejected[f"{operator}: {reason}"] += rows
    parts = [
        f"<p class='note'>corpus/{manifest.key}, {manifest.created}, medray {manifest.medray}</p>",
        "<h2>Where the rows went</h2>",
        bars("rows out", funnel(manifest)),
        bars("rows rejected, by reason", dict(rejected.most_common(20))) if rejected else "",
        _table(manifest),
        "<h2>Texts</h2>",
        histogram("characters a document", texts.chars, log=True),
        histogram("share of letters and digits", texts.words),
        histogram("share of distinct runs of 8 characters", texts.distinct),
        "<h2>Identifiers replaced</h2>",
        bars("spans, by class", dict(sorted(phi.items()))) if phi else "<p>none</p>",
        *_terms(manifest.metrics.get("terms")),
        *_units(manifest.metrics.get("units")),
        "<h2>Examples</h2><p class='note'>What stands for an identifier is covered.</p>",
        *_examples(texts),
    ]
    return (
        "<!doctype html><html><head><meta charset='utf-8'><title>medray corpus</title>"
        f"<style>{STYLE}</style></head><body><h1>Corpus</h1>{''.join(parts)}</body></html>\n"
    )


def funnel(manifest: Manifest) -> dict[str, int]:
    """Rows left after each operator, in their order; reading summed over the sources."""
    read = [counts for name, counts in manifest.counts.items() if name.startswith("read/")]
    rows = {"lines": sum(c.rows_in for c in read), "read": sum(c.rows_out for c in read)}
    done = [name for name in OPERATORS if name in manifest.counts]
    return rows | {name: manifest.counts[name].rows_out for name in done}


def bars(title: str, values: Mapping[str, int]) -> str:
    """Horizontal bars with their numbers, as SVG."""
    figure, axes = _axes(title, 0.6 + 0.28 * len(values))
    drawn = axes.barh(list(values), list(values.values()), color="#4477aa")
    axes.bar_label(drawn, [f"{value:,}" for value in values.values()], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    return _svg(figure)


def histogram(title: str, values: Mapping[str, list[Any]], *, log: bool = False) -> str:
    """Densities of one figure, a line a source, as SVG; empty if there is no value."""
    everything = [value for source in values.values() for value in source]
    if not everything:
        return ""
    low, high = min(everything), max(everything)
    edges = np.geomspace(max(1, low), high + 1, 41) if log else np.linspace(0, 1, 41)
    figure, axes = _axes(title, 2.6)
    for source, numbers in sorted(values.items()):
        weights = np.full(len(numbers), 1 / max(1, len(numbers)))
        axes.hist(numbers, edges.tolist(), weights=weights, histtype="step", label=source)
    axes.set_ylabel("share of documents")
    axes.legend(frameon=False)
    if log:
        axes.set_xscale("log")
    return _svg(figure)


def covered(text: str) -> str:
    """HTML of a text, every surrogate under a bar."""
    pieces, at = [], 0
    for match in re.finditer(SURROGATE, text):
        pieces += [html.escape(text[at : match.start()]), "<mark>███</mark>"]
        at = match.end()
    return "".join([*pieces, html.escape(text[at:])])


def _examples(texts: Texts) -> Iterator[str]:
    for source, documents in sorted(texts.examples.items()):
        yield f"<h3>{html.escape(source)}</h3>"
        for document in documents:
            yield f"<pre>{covered(render(document)[:EXAMPLE_CHARS])} …</pre>"


def _terms(terms: Mapping[str, Any] | None) -> Iterator[str]:
    """What `medray.corpus.terms.coverage` counted."""
    if terms is None:
        return
    yield "<h2>Terms</h2>"
    sources = [
        [name, c["documents"], f"{c['with_terms'] / max(1, c['documents']):.1%}",
         f"{c['covered_chars'] / max(1, c['chars']):.1%}"]
        for name, c in terms["sources"].items()
    ]  # fmt: skip
    yield _rows(["source", "documents", "with a term", "characters within terms"], sources)
    whats = ["matched", "ambiguous", "replaced", "entry_matched", "entry_linked", "names_too_short"]
    yield _rows(
        ["dictionary", *(what.replace("_", " ") for what in whats)],
        [[name, *(c[what] for what in whats)] for name, c in terms["dictionaries"].items()],
    )
    entries = terms["entries"]
    yield (
        f"<p>Diagnoses: {entries['matched']:,} in a dictionary, {entries['linked']:,} linked to "
        f"the nearest name, {entries['ambiguous']:,} ambiguous, {entries['unmatched']:,} "
        "unmatched.</p><h3>Most frequent concepts</h3>"
    )
    columns = ["name", "id", "dictionary", "times"]
    yield _rows(columns, [[c[column] for column in columns] for c in terms["concepts"]])


def _units(units: Mapping[str, int] | None) -> Iterator[str]:
    if units:
        yield "<h2>Units respelled</h2>"
        yield _rows(["unit", "times"], list(units.items()))


def _table(manifest: Manifest) -> str:
    rows = [
        [name, counts.rows_in, counts.rows_out, _reasons(counts.rejected)]
        for name, counts in manifest.counts.items()
    ]
    return _rows(["operator", "in", "out", "rejected"], rows)


def _rows(header: Sequence[str], rows: Sequence[Sequence[str | int]]) -> str:
    """An HTML table; numbers to the right."""
    head = "".join(f"<th>{html.escape(cell)}" for cell in header)
    body = "".join(f"<tr>{''.join(map(_cell, cells))}</tr>" for cells in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: str | int) -> str:
    if isinstance(value, int):
        return f"<td class='n'>{value:,}</td>"
    return f"<td>{html.escape(value)}</td>"


def _reasons(rejected: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {rows:,}" for reason, rows in sorted(rejected.items()))


def _axes(title: str, inches: float) -> tuple["Figure", Any]:
    from matplotlib.figure import Figure  # of its own: no window, no state shared with others

    figure = Figure(figsize=(8, inches), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: "Figure") -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().partition("?>")[2]
