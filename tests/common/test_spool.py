"""Sorting through files: complete, ordered, and independent of the order of arrival."""

import random
from pathlib import Path

from medray.common.spool import Spool, hash_key


def groups(directory: Path, pairs: list[tuple[str, object]]) -> list[tuple[str, list[object]]]:
    with Spool(directory) as spool:
        for key, value in pairs:
            spool.add(key, value)
        return list(spool.groups())


def test_groups_do_not_depend_on_the_order_of_arrival(tmp_path: Path) -> None:
    pairs = [(hash_key(str(k % 50)), {"n": k, "text": "行\n尾\t\u2028"}) for k in range(200)]
    shuffled = random.Random(0).sample(pairs, len(pairs))
    first = groups(tmp_path / "a", pairs)
    assert first == groups(tmp_path / "a", shuffled)
    assert [key for key, _ in first] == sorted({key for key, _ in pairs})
    assert sum(len(values) for _, values in first) == 200
    assert all(len(values) == 4 for _, values in first)
    assert list((tmp_path / "a").iterdir()) == []


def test_an_empty_spool_has_no_groups(tmp_path: Path) -> None:
    assert groups(tmp_path / "a", []) == []
