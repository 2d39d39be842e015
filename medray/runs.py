"""Training runs under a storage root. In: manifests and metrics.jsonl of its artefacts and of the
checkpoints of those in the making. Out: a table of runs, and their curves on one page.

A run is an artefact with metrics of steps, named STEP/KEY; the start of the key will do. One that
is still going on, or was stopped, is known by its newest checkpoint: what it did since is not seen,
nor which of the two it is, for only Ray knows whether its workers live.
"""

import contextlib
import html
import io
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow.fs as pafs

from medray.common.errors import DataError
from medray.common.manifest import stored_manifest
from medray.common.metrics import parse_metrics
from medray.common.storage import TRAIN, Storage
from medray.training.forgetting import HELD_OUT

logger = logging.getLogger(__name__)
METRICS = "metrics.jsonl"
FIGURES = ("loss_before", "loss_after", "reward_before", "reward_after", "steps", "seconds")
SMOOTH = 50
"""Points that a curve is smoothed to at most, as means; a page holds many curves."""


class Run(NamedTuple):
    """A training run."""

    name: str
    state: Literal["finished", "unfinished"]
    made: str
    """When it ended, or wrote its newest checkpoint: UTC, as 2026-01-31T12:00:00."""
    minutes: float
    """Of the whole step; of an unfinished one, those that its training steps took."""
    figures: Mapping[str, Any]
    metrics: str
    """Where its metrics.jsonl lies below the root."""


def list_runs(storage: Storage) -> list[Run]:
    """Every run, the newest first. Starts nothing."""
    found: dict[str, Run] = {}
    for step, key in storage.list():
        manifest = stored_manifest(storage, step, key)
        if any(entry.path == METRICS for entry in manifest.files):
            name, minutes = f"{step}/{key}", manifest.duration_s / 60
            made, figures = manifest.created[:19], manifest.metrics
            found[name] = Run(name, "finished", made, minutes, figures, f"{name}/{METRICS}")
    newest = {name: (path, seconds) for name, path, seconds in sorted(_checkpoints(storage))}
    for name in newest.keys() - found.keys():
        found[name] = _unfinished(storage, name, *newest[name])
    return sorted(found.values(), key=lambda run: run.made, reverse=True)


def _checkpoints(storage: Storage) -> Iterator[tuple[str, str, float]]:
    """(run, path below the root, seconds since 1970) of the metrics in every checkpoint that is
    kept, as `Storage.checkpoints` and Ray Train lay them out."""
    if not storage.is_remote:
        root = storage.local_root
        for path in root.glob(f"*/.*.partial/{TRAIN}/*/checkpoint_*/{METRICS}"):
            step, partial = path.relative_to(root).parts[:2]
            name = f"{step}/{partial[1:].removesuffix('.partial')}"
            with contextlib.suppress(FileNotFoundError):  # a run that goes on has just dropped it
                yield name, path.relative_to(root).as_posix(), path.stat().st_mtime
        return
    filesystem, root = pafs.FileSystem.from_uri(storage.config.root)
    everything = pafs.FileSelector(f"{root}/{TRAIN}", recursive=True, allow_not_found=True)
    for info in filesystem.get_file_info(everything):
        if info.base_name == METRICS:
            made_by, step = info.path.split("/")[-4:-2]
            name = f"{step}/{made_by.removeprefix(f'{step}-')}"
            path = info.path.removeprefix(root).lstrip("/")
            yield name, path, (info.mtime_ns or 0) / 1e9


def _unfinished(storage: Storage, name: str, path: str, seconds: float) -> Run:
    rows = parse_metrics(storage.read_text(path) or "")
    figures = {
        f"{figure}_before": row[f"before/{figure}"]
        for row in rows
        for figure in ("loss", "reward")
        if f"before/{figure}" in row
    }
    figures["steps"] = max((row["step"] for row in rows), default=0)
    minutes = sum(row.get("time/step_s", 0.0) for row in rows) / 60
    made = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return Run(name, "unfinished", made, minutes, figures, path)


def find_run(runs: Sequence[Run], name: str) -> Run:
    """The run that `name` begins.

    Raises:
        DataError: if none or several do; the message lists them.
    """
    found = [run for run in runs if run.name.startswith(name)]
    if len(found) != 1:
        those = ", ".join(run.name for run in (found or runs)) or "none"
        what = "several runs begin with" if found else "no run begins with"
        raise DataError(f"{what} {name!r}; runs: {those}")
    return found[0]


def table(runs: Sequence[Run]) -> str:
    """The runs as lines of text."""
    lines = [f"{'run':30} {'state':10} {'made':20} {'minutes':>8}  figures"]
    for run in runs:
        figures = ", ".join(
            f"{figure} {run.figures[figure]:.4g}" for figure in FIGURES if figure in run.figures
        )
        lines.append(f"{run.name:30} {run.state:10} {run.made:20} {run.minutes:8.1f}  {figures}")
    return "\n".join(lines) + "\n"


def compare(storage: Storage, runs: Sequence[Run], out: Path) -> None:
    """Draws the curves of some runs, one picture for each figure that two of them share or one
    alone has, to an HTML page or, by its ending, a PNG.

    Raises:
        DataError: if `out` ends otherwise, or its directory is not there.
    """
    if out.suffix not in (".html", ".png"):
        raise DataError(f"--out {out}: the name must end in .html or .png")
    if not out.parent.is_dir():
        raise DataError(f"--out {out}: there is no directory {out.parent}; make it first")
    rows = {run.name: read_steps(storage, run) for run in runs}
    names = sorted({key for steps in rows.values() for row in steps for key in row} - {"step"})
    if not names:
        raise DataError("these runs have no metrics of steps to draw")
    figure = _draw(names, rows)
    if out.suffix == ".png":
        figure.savefig(out, dpi=120)
        return
    picture = io.StringIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    page = _page(runs, picture.getvalue().partition("?>")[2])
    out.write_text(page, encoding="utf-8")


def read_steps(storage: Storage, run: Run) -> list[dict[str, Any]]:
    """The rows of a run's steps and of what was measured between them."""
    return [
        row
        for row in parse_metrics(storage.read_text(run.metrics) or "")
        if "time/step_s" in row or any(name.startswith(HELD_OUT) for name in row)
    ]


def smooth(values: Sequence[float], most: int = SMOOTH) -> list[float]:
    """Means of at most `most` stretches of equal length.

    >>> smooth([1.0, 3.0, 5.0, 7.0], 2)
    [2.0, 6.0]
    """
    size = -(-len(values) // most)
    parts = [values[start : start + size] for start in range(0, len(values), size or 1)]
    return [sum(part) / len(part) for part in parts]


def _draw(names: Sequence[str], rows: dict[str, list[dict[str, Any]]]) -> Any:
    from matplotlib.figure import Figure  # of its own: no window, no state shared with others

    figure = Figure(figsize=(9, 2.6 * len(names)), layout="constrained")
    for axes, name in zip(figure.subplots(len(names), squeeze=False)[:, 0], names, strict=True):
        for run, steps in rows.items():
            mine = [(row["step"], row[name]) for row in steps if name in row]
            if mine:
                at, values = zip(*mine, strict=True)
                axes.plot(smooth(at), smooth(values), label=run)
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    return figure


def _page(runs: Sequence[Run], picture: str) -> str:
    names = sorted({name for run in runs for name in run.figures})
    head = "".join(f"<th>{html.escape(run.name)}</th>" for run in runs)
    lines = [
        "<tr><td>" + html.escape(name) + "</td>"
        + "".join(f"<td>{_cell(run.figures.get(name))}</td>" for run in runs) + "</tr>"
        for name in names
    ]  # fmt: skip
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>medray runs</title>'
        "<style>body{font:15px system-ui;margin:2rem auto;max-width:60rem}"
        "td,th{padding:.2rem .8rem;text-align:left}svg{max-width:100%;height:auto}</style>"
        f"<h1>Runs</h1><table><tr><th></th>{head}</tr>{''.join(lines)}</table>{picture}</html>\n"
    )


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, int | float) else html.escape(str(value or "–"))
