"""Files as vendors and hospitals export them, whole and broken."""

import gzip
import json
from pathlib import Path

import pytest

from medray.common.errors import DataError
from medray.corpus.terms.dictionaries import Dictionary, Entry, read_dictionary


def read(data: Path, name: str, content: bytes, **settings) -> list[Entry]:
    (data / name).write_bytes(content)
    return list(read_dictionary(Dictionary(name="d", path=name, **settings), data))


def test_umls_ranks_names_and_leaves_out_other_languages_and_suppressed_ones(tmp_path, mrconso):
    entries = read(tmp_path, "MRCONSO.RRF", mrconso.encode(), format="umls")
    # 8 a language, then 4 for TS other than P, 2 for STT other than PF, 1 for ISPREF other than Y.
    assert entries == [
        ("C9000001", "Lung Inflammation", 8 + 4),
        ("C9000001", "pneumonia, NOS", 8 + 2),
        ("C9000001", "Pneumonia NOS", 8 + 1),
        ("C9000001", "Pneumonia", 8),
        ("C9000001", "肺炎", 0),
        ("C9000002", "Cold", 8),
        ("C9000003", "cold", 8),
    ]
    chosen = read(
        tmp_path, "MRCONSO.RRF.gz", gzip.compress(mrconso.encode()), format="umls",
        languages=["FRE", "ENG"], vocabularies=["MSHFRE", "SNOMEDCT_US"],
    )  # fmt: skip
    assert [(entry.term, entry.rank) for entry in chosen] == [
        ("Pneumonie", 0), ("Cold", 8), ("cold", 8)
    ]  # fmt: skip


def test_icd10_in_gb18030_with_synonyms(tmp_path):
    table = "编码,疾病名称,别名\nZ98.101,甲型乏力症,乏力症甲型|甲乏\nZ98.102,乙型乏力症,\n"
    entries = read(
        tmp_path, "icd.csv", table.encode("gb18030"), format="icd10", encoding="auto",
        fields={"concept": "编码", "term": "疾病名称", "synonyms": "别名"},
    )  # fmt: skip
    assert entries == [
        ("Z98.101", "甲型乏力症", 0), ("Z98.101", "乏力症甲型", 1), ("Z98.101", "甲乏", 1),
        ("Z98.102", "乙型乏力症", 0),
    ]  # fmt: skip


def test_a_hospitals_own_list(tmp_path):
    rows = [
        {"term": "慢乏", "preferred": "慢性乏力症", "concept": 7},
        {"term": "急性乏力症", "synonyms": ["急乏"]},
    ]
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    assert read(tmp_path, "own.jsonl.gz", gzip.compress(lines), format="terms") == [
        ("7", "慢性乏力症", 0), ("7", "慢乏", 1),
        ("急性乏力症", "急性乏力症", 0), ("急性乏力症", "急乏", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("a.RRF", b"C1|ENG|P|\n", {"format": "umls"}, r"line 1 of .*a\.RRF has 3 columns of 18"),
        ("b.RRF", b"", {"format": "umls"}, "holds no term; mend its languages and vocabularies"),
        ("c.RRF", "C1|ENG|发".encode("gb18030"), {"format": "umls"}, "line 1 .* is not utf-8"),
        ("d.csv", b"code,name\nZ1,a\nZ2\n", {"format": "icd10"}, "line 3 .*wrong number of col"),
        ("e.csv", b"code,name\n", {"format": "icd10"}, "e.csv holds no term"),
        ("f.csv", b"", {"format": "icd10"}, "f.csv holds no term"),
        ("g.csv", b"Code,Name\nZ1,a\n", {"format": "icd10"}, r"nothing in name .*: Code, Name\)"),
        ("h.csv", b"code,name\n,a\n", {"format": "icd10"}, "line 2 .*nothing in code"),
        ("i.jsonl", b'{"term": "a"}\n{"term"\n', {"format": "terms"}, "line 2 .*malformed json"),
        ("j.xlsx", b"PK", {"format": "icd10"}, "is none of .*set its format to umls"),
        ("k.csv.gz", gzip.compress(b"code,name\n" + b"x" * 99, mtime=0)[:20], {"format": "icd10"},
         "damaged or cut off"),
    ],
)  # fmt: skip
def test_a_fault_stops_the_job_and_says_where(tmp_path, name, content, settings, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, name, content, **settings)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"no file at .*nowhere\.csv; mend its path"):
        next(read_dictionary(Dictionary(name="d", path="nowhere.csv", format="icd10"), tmp_path))
