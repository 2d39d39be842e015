"""The demo's table as JSON, for a storage root in which the pipeline has run.

The value is the share of the goals reached; `ours` holds every line, `other` the baselines and
the ceiling. Nothing is run: the figures are those that the steps measured.
"""

import argparse
import sys
from pathlib import Path

from frame import print_result

from medray.common.errors import DataError
from medray.evaluation.table import format_table, read_table

BASELINES = ("TF-IDF", "majority", "regular expressions", "ceiling")


def main() -> int:
    """Prints the table, then the result line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("runs/laptop"), help="storage root")
    parser.add_argument("--quick", action="store_true", help="the result line only")
    arguments = parser.parse_args()
    try:
        lines = read_table(arguments.root)
    except DataError as error:
        # `make bench` runs this on a fresh clone too: no figure, and why.
        print(error, file=sys.stderr)
        print_result(
            "demo_table", None, unit="share of goals", goal="1", ours=None, other=None, n=0
        )
        return 0
    if not arguments.quick:
        print(format_table(lines))
    goals = [line.met for line in lines if line.goal]
    sides: dict[bool, list] = {True: [], False: []}
    for line in lines:
        is_baseline = any(word in line.name for word in BASELINES)
        sides[is_baseline].append(line._asdict())
    print_result(
        "demo_table",
        sum(met is True for met in goals) / len(goals) if goals else None,
        unit="share of goals",
        goal="1",
        ours=sides[False],
        other=sides[True],
        n=len(goals),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
