"""Public sets whose lines are not yet rows. In: a task source. Out: its rows, where a line of a
knowledge graph is several triples, or where answers stand in a file of their own.
"""

import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from medray.common.sources import (
    Rejected,
    Source,
    SourceRow,
    dotted,
    map_fields,
    read_source,
)
from medray.common.spool import Spool, hash_key
from medray.instructions.raw import TaskSource

SEPARATOR = re.compile(r"\s*[、，,；;|]\s*")


def read_task(source: TaskSource, data: Path, seed: int = 0) -> Iterator[SourceRow | Rejected]:
    """Yields the rows of a task source, good or rejected.

    Raises:
        DataError: as `read_source`, of the answers' file too.
    """
    if source.answers is not None:
        yield from islice(_answered(source, data, seed), source.limit)
        return
    for row in read_source(source, data):
        if source.relations and isinstance(row, SourceRow):
            yield from _edges(source, row)
        else:
            yield row


def _edges(source: TaskSource, row: SourceRow) -> Iterator[SourceRow | Rejected]:
    """The triples of one entity, in the order of the profile."""
    head, found = row.values.get("head"), False
    for key, relation in source.relations.items():
        tails: Any = dotted(row.values, key)
        if isinstance(tails, str):
            tails = SEPARATOR.split(tails.strip())
        for tail in tails if isinstance(tails, list) else ():
            if isinstance(tail, str) and tail.strip():
                found = True
                edge = {"head": head, "relation": relation, "tail": tail.strip()}
                yield row._replace(values=edge)
    if not found:
        yield Rejected(row.file, row.line, "no_triple")


def _answered(source: TaskSource, data: Path, seed: int) -> Iterator[SourceRow | Rejected]:
    """Each question with one of its answers, in an order that depends on the ids alone."""
    answers = source.answers
    assert answers is not None
    tables = {
        path: Source(name=source.name, kind="table", path=path, encoding=source.encoding)
        for path in (source.path, answers.path)
    }
    with Spool() as spool:
        for path, table in tables.items():
            for row in read_source(table, data):
                key = None if isinstance(row, Rejected) else row.values.get(answers.question)
                if isinstance(row, Rejected):
                    yield row
                elif key is None or not str(key).strip():
                    yield Rejected(row.file, row.line, f"missing_field:{answers.question}")
                else:
                    place = [row.file, row.line, row.values]
                    spool.add(hash_key(str(key)), [path == answers.path, *place])
        for _, found in spool.groups():
            questions = [SourceRow(*place) for is_answer, *place in found if not is_answer]
            texts = [SourceRow(*place) for is_answer, *place in found if is_answer]
            given = [str(text) for row in texts if (text := row.values.get(answers.text))]
            for row in questions:
                if not given:
                    yield Rejected(row.file, row.line, "no_answer")
                    continue
                salt = f"{seed}/{row.values[answers.question]}"
                chosen = min(given, key=partial(hash_key, salt))
                full = row._replace(values={"response": chosen, **row.values})
                yield map_fields(full, source)
            if not questions:
                yield from (Rejected(row.file, row.line, "no_question") for row in texts)
