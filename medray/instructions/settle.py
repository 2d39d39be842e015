"""The last step of every output: order, duplicates, leakage between splits, shares, Parquet.

In: rows in any order. Out: shards ordered by a seeded hash of the prompt, so that neither the order
of a source nor the number of workers shows. A prompt that is held out is never trained on, even
when another source gives it as training text.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from medray.common.manifest import Counts
from medray.common.records import Row
from medray.common.rows import write_rows
from medray.common.split import unit_hash
from medray.common.spool import Spool, hash_key

RowType = TypeVar("RowType", bound=Row)
NOT_CONTENT = ("id", "split", "doc_id")


class Share(NamedTuple):
    """How much of its group a row may come to."""

    group: str
    """Rows of one group count towards one limit, and stand together in the metrics."""
    max_rows: int | None = None
    weight: float = 1.0
    """Copies of each row: 2 repeats it, 0.5 keeps half of the rows, chosen by hash."""


def settle(
    directory: Path,
    row_type: type[RowType],
    rows: Iterable[RowType],
    *,
    prompt_of: Callable[[RowType], str],
    share_of: Callable[[RowType], Share],
    seed: int,
) -> tuple[Counts, dict[str, int]]:
    """Writes `rows` to `directory`; returns the counts and the rows written of each group.

    Rejects exact duplicates (the ids aside), training rows whose prompt is in dev, rows over the
    limit of their group and rows that their weight leaves out. Each copy counts as a row in.
    """
    counts, written = Counts(), Counter[str]()
    with Spool(directory.parent) as spool:
        for row in rows:
            spool.add(hash_key(str(seed), prompt_of(row)), row.model_dump())
        kept = _kept(spool, row_type, share_of, seed, counts, written)
        counts.rows_out = write_rows(directory, row_type, kept)
    return counts, dict(sorted(written.items()))


def _kept(
    spool: Spool,
    row_type: type[RowType],
    share_of: Callable[[RowType], Share],
    seed: int,
    counts: Counts,
    written: Counter[str],
) -> Iterator[RowType]:
    for _, values in spool.groups():
        held_out = any(value["split"] == "dev" for value in values)
        seen: set[str] = set()
        for value in values:
            row = row_type.model_validate(value)
            share = share_of(row)
            num_copies = int(share.weight + unit_hash(f"{seed}:{value['id']}"))
            counts.rows_in += max(1, num_copies)
            if held_out and value["split"] == "train":
                counts.reject("prompt_in_dev", max(1, num_copies))
            elif (content := _content(value)) in seen:
                counts.reject("duplicate", max(1, num_copies))
            elif num_copies == 0:
                counts.reject("weight")
            else:
                seen.add(content)
                for copy in range(num_copies):
                    if share.max_rows is not None and written[share.group] >= share.max_rows:
                        counts.reject("over_limit")
                        continue
                    written[share.group] += 1
                    yield (
                        row if copy == 0 else row.model_copy(update={"id": f"{value['id']}+{copy}"})
                    )


def _content(value: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in value.items() if k not in NOT_CONTENT}, sort_keys=True)
