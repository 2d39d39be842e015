"""A 2 GB file of each kind that hospitals send, read by one process that may hold 1 GB."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SIZE_BYTES = 2 * 2**30
READ = """
import json, resource, sys
from pathlib import Path
from medray.common.sources import SourceRow
from medray.corpus.readers.reading import read_corpus
from medray.corpus.sources import CorpusSource, raw_row
from medray.common.records import RawRecord

data, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
good = rejected = 0
source = CorpusSource.parse(settings, "test")
for row in read_corpus(source, data):
    made = raw_row(row, source.kind) if isinstance(row, SourceRow) else row
    if isinstance(made, RawRecord):
        good += 1
    else:
        rejected += 1
peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"good": good, "rejected": rejected, "peak_mb": peak_kb / 1024}))
"""


def write_rows(path: Path, head: bytes, row: bytes, join: bytes, tail: bytes) -> int:
    """Fills a file with one row, its number aside, until it has SIZE_BYTES; returns how many."""
    count, block = 0, 1000
    with path.open("wb") as file:
        file.write(head)
        while file.tell() < SIZE_BYTES:
            file.write(b"".join(
                (join if count + k else b"") + row.replace(b"NUMBER", b"%09d" % (count + k))
                for k in range(block)))  # fmt: skip
            count += block
        file.write(tail)
    return count


def read(data: Path, **settings) -> dict[str, float]:
    values = {"name": "big", "kind": "record", **settings}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(data), json.dumps(values)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    return json.loads(done.stdout)


TEXT = "主诉：咳嗽3天。\\n现病史：" + "患者3天前受凉后出现咳嗽、咳痰，无发热。" * 300
ROW = f'{{"record_id": "NUMBER", "patient_id": "NUMBER", "text": "{TEXT}"}}'.encode()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "json", "mimic"])
def test_2_gb_are_read_in_less_than_1_gb(tmp_path, kind):
    csv_row = b'NUMBER,NUMBER,2050-01-02,"%s"\n' % TEXT.replace("\\n", "\n").encode()
    header = b"subject_id,hadm_id,charttime,text\n"
    if kind == "jsonl":
        count = write_rows(tmp_path / "a.jsonl", b"", ROW, b"\n", b"\n")
        settings = {"path": "a.jsonl"}
    elif kind == "json":  # one array on one line
        count = write_rows(tmp_path / "a.json", b"[", ROW, b", ", b"]")
        settings = {"path": "a.json"}
    else:  # CSV, notes of several lines
        count = write_rows(tmp_path / "a.csv", header, csv_row, b"", b"")
        settings = {"path": "a.csv", "format": "mimic"}
    made = read(tmp_path, **settings)
    assert (made["good"], made["rejected"]) == (count, 0)
    assert made["peak_mb"] < 1024
