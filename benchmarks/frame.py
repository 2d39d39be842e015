"""What every benchmark shares: how it is called, and its last line, one JSON object."""

import argparse
import json
import os
import platform
from typing import Any

from medray.common.manifest import package_versions


def argument_parser(doc: str | None) -> argparse.ArgumentParser:
    """Described by the first line of a benchmark's own text."""
    return argparse.ArgumentParser(description=(doc or "").splitlines()[0])


def machine() -> dict[str, Any]:
    """The machine that a figure was measured on."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
    }


def print_result(
    name: str, value: float | None, *, unit: str, goal: str, ours: Any, other: Any, n: int
) -> None:
    """Prints the result line.

    Args:
        value: the ratio or figure that the goal is about; None if it could not be measured.
        ours: what was measured on our side. other: the same of the other side, None if none.
        n: items or repetitions behind the value.
    """
    result = {
        "name": name,
        "value": value,
        "unit": unit,
        "goal": goal,
        "ours": ours,
        "other": other,
        "n": n,
        "machine": machine(),
        "versions": package_versions(),
    }
    print(json.dumps(result, ensure_ascii=False), flush=True)
