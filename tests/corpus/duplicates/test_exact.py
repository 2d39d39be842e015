"""Exact duplicates: who stays is decided by what the rows are, not by their order."""

import random
from collections import Counter

import pyarrow as pa
import pytest

from medray.corpus.duplicates.find import exact_duplicates
from medray.corpus.prepared import PREPARED_SCHEMA

NAMES = ("source", "doc_id", "digest", "reason")
SCHEMA = pa.schema([PREPARED_SCHEMA.field(name) for name in NAMES])
ROWS = [
    ("b", "1", b"x", None),
    ("a", "2", b"x", None),  # the same text as the first: source a stays
    ("a", "3", b"y", None),
    ("b", "3", b"z", None),  # the same id as the third: the lesser digest stays
    ("a", "4", b"w", None),
    ("a", "4", b"w", None),  # the same line twice: one stays
    ("a", None, None, "too_short"),  # rejected before
]


def table(rows: list[tuple]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(NAMES, row, strict=True)) for row in rows], schema=SCHEMA)


@pytest.mark.parametrize("cut", [0, 3])
def test_survivors_do_not_depend_on_order(cut: int) -> None:
    for seed in range(50):
        rows = random.Random(seed).sample(ROWS, len(ROWS))
        shards = pa.concat_tables([table(rows[:cut]), table(rows[cut:])])
        dropped = exact_duplicates(shards)
        kept = [row for number, row in enumerate(rows) if number not in dropped and not row[3]]
        assert sorted(kept) == [ROWS[1], ROWS[2], ROWS[4]]
        assert Counter(dropped.values()) == {"duplicate_text": 2, "duplicate_id": 1}


def test_nothing_to_drop() -> None:
    assert exact_duplicates(table([])) == {}
    assert exact_duplicates(table([ROWS[6], ROWS[0], ROWS[2]])) == {}
