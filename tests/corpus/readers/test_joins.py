"""MIMIC, FHIR and OMOP exports in their real formats, with invented patients."""

import base64
import csv
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from medray.common.config import ConfigError
from medray.common.errors import DataError
from medray.common.records import RawRecord
from medray.common.sources import Rejected, SourceRow
from medray.corpus.readers.joins import Part
from medray.corpus.readers.reading import open_files, read_corpus, read_part
from medray.corpus.sources import CorpusSource, raw_row


def write_table(path: Path, header: str, *rows: Iterable[Any], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header.split())
        writer.writerows(rows)


def records(source: CorpusSource, data: Path) -> tuple[dict[str, RawRecord], set[Rejected]]:
    made = [raw_row(row, "record") if isinstance(row, SourceRow) else row
            for row in read_corpus(source, data)]  # fmt: skip
    good = [row for row in made if isinstance(row, RawRecord)]
    assert len({row.record_id for row in good}) == len(good)
    return {row.record_id: row for row in good}, {r for r in made if isinstance(r, Rejected)}


def headed(record: RawRecord) -> list[tuple[str, str, str]]:
    return [(s.heading, s.text, s.date) for s in record.sections]


def settings(kind: str, **values: Any) -> CorpusSource:
    return CorpusSource.parse({"name": kind, "kind": "record", "format": kind, **values}, "profile")


SUMMARY = "Chief Complaint:\nCough\n\nDischarge Medications:\nNone"


@pytest.fixture
def mimic_iv(tmp_path: Path) -> CorpusSource:
    write_table(tmp_path / "note/discharge.csv.gz",
                "note_id subject_id hadm_id note_type note_seq charttime storetime text",
                ["10-DS-1", 10, 200, "DS", 1, "2150-01-05 00:00:00", "", SUMMARY],
                ["11-DS-1", 11, 201, "DS", 1, "2150-02-05 00:00:00", "", " "],
                ["12-DS-1", "", 202, "DS", 1, "2150-02-05 00:00:00", "", "lost"])  # fmt: skip
    write_table(tmp_path / "hosp/admissions.csv.gz", "subject_id hadm_id admittime dischtime",
                [10, 200, "2150-01-01 10:00:00", "2150-01-05 12:00:00"],
                [10, 205, "2151-01-01 10:00:00", "2151-01-05 12:00:00"])  # fmt: skip
    write_table(tmp_path / "hosp/diagnoses_icd.csv.gz",
                "subject_id hadm_id seq_num icd_code icd_version",
                [10, 200, 10, "I10", 10], [10, 200, 2, "4019", 9], [10, 200, 1, "J189", 10],
                [10, "", 1, "J189", 10])  # fmt: skip
    write_table(tmp_path / "hosp/d_icd_diagnoses.csv.gz", "icd_code icd_version long_title",
                ["J189", 10, "Pneumonia"], ["4019", 9, "Hypertension"],
                ["4019", 10, "no such"])  # fmt: skip
    return settings("mimic", path="note/discharge.csv.gz", tables={
        "admissions": "hosp/admissions.csv.gz", "diagnoses_icd": "hosp/diagnoses_icd.csv.gz",
        "d_icd_diagnoses": "hosp/d_icd_diagnoses.csv.gz"})  # fmt: skip


def test_mimic_iv(tmp_path, mimic_iv):
    made, rejected = records(mimic_iv, tmp_path)
    assert list(made) == ["200"]
    assert (made["200"].patient_id, made["200"].visit_date) == ("10", "2150-01-01")
    assert headed(made["200"]) == [
        ("主诉", "Cough", "2150-01-05"), ("出院带药", "None", "2150-01-05"),
        ("诊断", "1. Pneumonia（J189）；2. Hypertension（4019）；3. I10", "2150-01-05"),
    ]  # fmt: skip
    assert rejected == {
        Rejected("note/discharge.csv.gz", 7, "no_text"),
        Rejected("note/discharge.csv.gz", 8, "missing_field:subject_id"),
        Rejected("hosp/admissions.csv.gz", 3, "no_note"),
        Rejected("hosp/diagnoses_icd.csv.gz", 5, "missing_field:hadm_id"),
    }


def test_mimic_iii_gathers_the_notes_of_an_admission(tmp_path):
    write_table(tmp_path / "NOTEEVENTS.csv", "ROW_ID SUBJECT_ID HADM_ID CHARTDATE CHARTTIME "
                "STORETIME CATEGORY DESCRIPTION CGID ISERROR TEXT",
                [7, 10, 200, "2150-01-05", "", "", "Discharge summary", "Report", "", "", SUMMARY],
                [8, 10, 200, "2150-01-02", "2150-01-02 08:00:00", "", "Nursing", "", "", "", "Ok."],
                [9, 10, 200, "2150-01-03", "", "", "Nursing", "", "", "1", "Wrong patient."],
                [5, 10, "", "2149-05-01", "", "", "Radiology", "CHEST", "", "", "Clear lungs."],
                )  # fmt: skip
    write_table(tmp_path / "DIAGNOSES_ICD.csv", "ROW_ID SUBJECT_ID HADM_ID SEQ_NUM ICD9_CODE",
                [1, 10, 200, 1, "486"])  # fmt: skip
    source = settings("mimic", path="NOTEEVENTS.csv", tables={"diagnoses_icd": "DIAGNOSES_ICD.csv"},
                      fields={"department": "category"})  # fmt: skip
    made, rejected = records(source, tmp_path)
    assert headed(made["200"]) == [
        ("Nursing", "Ok.", "2150-01-02"), ("主诉", "Cough", "2150-01-05"),
        ("出院带药", "None", "2150-01-05"), ("诊断", "1. 486", ""),
    ]  # fmt: skip
    assert headed(made["note-5"]) == [("Radiology", "Clear lungs.", "2149-05-01")]
    assert (made["note-5"].visit_date, made["note-5"].department) == ("2149-05-01", "Radiology")
    assert rejected == {Rejected("NOTEEVENTS.csv", 8, "entered_in_error")}


def test_omop(tmp_path):
    write_table(tmp_path / "NOTE.csv", "note_id person_id note_date note_datetime note_title "
                "note_text visit_occurrence_id",
                [1, 5, "2020-03-07", "", "Admission", "主诉：咳嗽", 50],
                [2, 5, "2020-03-08", "", "Nursing", "Ok.", 50],
                [3, 6, "2020-04-01", "", "", "Hi.", ""])  # fmt: skip
    write_table(tmp_path / "VISIT.csv", "visit_occurrence_id person_id visit_start_date",
                [50, 5, "2020-03-06"], [51, 5, "2021-03-06"])  # fmt: skip
    write_table(tmp_path / "CONDITION.csv", "condition_occurrence_id person_id "
                "condition_concept_id condition_start_date visit_occurrence_id "
                "condition_source_value",
                [1, 5, 255848, "2020-03-07", 50, "J18.9"], [2, 5, 0, "2020-03-06", 50, "高血压"],
                [3, 5, 255848, "2020-03-07", "", "J18.9"])  # fmt: skip
    write_table(tmp_path / "MEASUREMENT.csv", "measurement_id person_id measurement_concept_id "
                "measurement_date value_as_number value_as_concept_id unit_concept_id "
                "visit_occurrence_id measurement_source_value unit_source_value value_source_value",
                [1, 5, 3020891, "2020-03-07", 38.5, "", 8653, 50, "T", "C", ""],
                [2, 5, 0, "2020-03-07", "", 9191, "", 50, "flu test", "", "pos"])  # fmt: skip
    write_table(tmp_path / "CONCEPT.csv", "concept_id concept_name domain_id",
                [255848, "Pneumonia", "Condition"], [3020891, "Body temperature", "Measurement"],
                [8653, "degree Celsius", "Unit"], [9191, "Positive", "Meas Value"],
                [1, "unused", "Drug"], delimiter="\t")  # fmt: skip
    source = settings("omop", path="NOTE.csv", tables={
        "visit_occurrence": "VISIT.csv", "condition_occurrence": "CONDITION.csv",
        "measurement": "MEASUREMENT.csv", "concept": "CONCEPT.csv"})  # fmt: skip
    made, rejected = records(source, tmp_path)
    assert headed(made["50"]) == [
        ("主诉", "咳嗽", "2020-03-07"), ("Nursing", "Ok.", "2020-03-08"),
        ("辅助检查", "Body temperature 38.5 degree Celsius\nflu test Positive", "2020-03-07"),
        ("诊断", "1. 高血压；2. Pneumonia", "2020-03-06"),
    ]  # fmt: skip
    assert (made["50"].visit_date, made["50"].patient_id) == ("2020-03-06", "5")
    assert headed(made["note-3"]) == [("", "Hi.", "2020-04-01")]
    assert rejected == {
        Rejected("VISIT.csv", 3, "no_note"),
        Rejected("CONDITION.csv", 4, "missing_field:visit_occurrence_id"),
    }


def resource(kind: str, number: str, **values: Any) -> dict[str, Any]:
    return {"resourceType": kind, "id": number, "subject": {"reference": "Patient/p1"},
            "encounter": {"reference": "Encounter/e1"}, **values}  # fmt: skip


def coded(text: str, code: str = "") -> dict[str, Any]:
    return {"text": text, "coding": [{"code": code or text}]}


def attached(text: str, content_type: str = "text/plain") -> dict[str, Any]:
    data = base64.b64encode(text.encode()).decode()
    return {"content": [{"attachment": {"contentType": content_type, "data": data}}]}


DIV = '<div xmlns="http://www.w3.org/1999/xhtml"><p>饮水。</p><ul><li>休息</li></ul></div>'
FHIR = [
    {"resourceType": "Patient", "id": "p1", "name": [{"text": "王建国"}],
     "telecom": [{"value": "13800138000"}], "identifier": [{"value": "ZY00123456"}]},
    resource("Encounter", "e1", encounter=None, serviceType=coded("呼吸内科"),
             period={"start": "2023-05-17T08:00:00+08:00"},
             serviceProvider={"display": "江城第九医院"}),
    resource("Condition", "c1", code=coded("肺炎", "J18.9"), recordedDate="2023-05-18"),
    resource("Condition", "c2", code=coded("癌", "C80"),
             verificationStatus={"coding": [{"code": "entered-in-error"}]}),
    resource("Observation", "o1", code=coded("白细胞"), effectiveDateTime="2023-05-18T09:00:00Z",
             valueQuantity={"value": 12.5, "unit": "10^9/L"}),
    resource("Observation", "o2", code=coded("血压"), effectiveDateTime="2023-05-17",
             category=[{"coding": [{"code": "vital-signs"}]}],
             component=[{"code": coded("收缩压"), "valueQuantity": {"value": 120, "unit": "mmHg"}},
                        {"code": coded("舒张压"), "valueQuantity": {"value": 80, "unit": "mmHg"}}]),
    resource("Observation", "o3", code=coded("流感"), effectiveDateTime="2023-05-18",
             valueCodeableConcept=coded("阴性")),
    resource("Procedure", "r1", code=coded("胸腔穿刺"), performedPeriod={"start": "2023-05-19"}),
    resource("DocumentReference", "d1", encounter=None, date="2023-05-20T10:00:00Z",
             context={"encounter": [{"reference": "https://x/fhir/Encounter/e1/_history/2"}]},
             type=coded("出院小结"), **attached("主诉：咳嗽\n出院医嘱：复查")),
    resource("DocumentReference", "d2", date="2023-05-20", **attached("x", "image/png")),
    resource("DocumentReference", "d3", date="2023-05-20",
             content=[{"attachment": {"url": "Binary/1"}}]),
    resource("Composition", "m1", date="2023-05-21", section=[
        {"title": "Hospital Course", "text": {"div": DIV},
         "section": [{"code": coded("", "10183-2"), "text": {"div": DIV}}]}]),
    resource("Observation", "o9", encounter=None, code=coded("血糖"),
             effectiveDateTime="2022-01-02", valueInteger=5),
    resource("Encounter", "e2", encounter=None, period={"start": "2024-01-01"}),
    resource("Medication", "x1"),
    resource("Procedure", "r2", subject=None, code=coded("无主")),
    {"id": "no type"},
]  # fmt: skip


@pytest.fixture
def fhir(tmp_path: Path) -> CorpusSource:
    """One file a type, as a bulk export delivers them, with the first condition exported twice."""
    newer = {**FHIR[2], "meta": {"lastUpdated": "2023-06-01"}, "code": coded("重症肺炎", "J18.9")}
    for row in [newer, *FHIR]:
        path = tmp_path / f"fhir/{row.get('resourceType', 'Other')}.ndjson"
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return settings("fhir", path="fhir/*.ndjson")


def test_fhir_resources_become_one_dated_record_per_encounter(tmp_path, fhir):
    made, rejected = records(fhir, tmp_path)
    assert set(made) == {"e1", "p1-2022-01-02"}
    record = made["e1"]
    assert (record.patient_id, record.visit_id, record.visit_date) == ("p1", "e1", "2023-05-17")
    assert (record.department, record.hospital) == ("呼吸内科", "江城第九医院")
    assert headed(record) == [
        ("患者信息", "姓名：王建国，电话：13800138000，病历号：ZY00123456", ""),
        ("体格检查", "收缩压 120 mmHg\n舒张压 80 mmHg", "2023-05-17"),
        ("辅助检查", "白细胞 12.5 10^9/L\n流感 阴性", "2023-05-18"),
        ("手术操作", "胸腔穿刺", "2023-05-19"),
        ("主诉", "咳嗽", "2023-05-20"), ("出院医嘱", "复查", "2023-05-20"),
        ("诊疗经过", "饮水。\n休息", "2023-05-21"), ("出院带药", "饮水。\n休息", "2023-05-21"),
        ("诊断", "1. 重症肺炎（J18.9）", ""),
    ]  # fmt: skip
    assert headed(made["p1-2022-01-02"])[1:] == [("辅助检查", "血糖 5", "2022-01-02")]
    assert {(row.file[5:-7], row.line, row.reason) for row in rejected} == {
        ("Condition", 2, "older_version"), ("Condition", 3, "entered_in_error"),
        ("DocumentReference", 2, "unsupported_attachment"),
        ("DocumentReference", 3, "attachment_not_inline"), ("Encounter", 2, "empty_encounter"),
        ("Procedure", 2, "missing_field:subject"), ("Other", 1, "missing_field:resourceType"),
    }  # fmt: skip


def test_the_parts_of_a_join_are_all_of_it(tmp_path):
    write_table(tmp_path / "NOTEEVENTS.csv", "SUBJECT_ID HADM_ID CHARTDATE TEXT",
                *([k % 50, k, "2150-01-05", f"Note {k}."] for k in range(300)),
                ["", 1, "", "lost"])  # fmt: skip
    source = settings("mimic", path="NOTEEVENTS.csv")
    whole = list(read_corpus(source, tmp_path))
    parts = [list(read_part(source, tmp_path, (), Part(k, 3))) for k in range(3)]
    assert len(whole) == 301
    assert all(len(part) > 50 for part in parts)
    assert sorted(map(str, whole)) == sorted(str(row) for part in parts for row in part)
    patients = [{row.values["patient_id"] for row in part if isinstance(row, SourceRow)}
                for part in parts]  # fmt: skip
    assert sum(map(len, patients)) == 50


def test_a_renamed_column_and_an_empty_export_are_named(tmp_path, mimic_iv):
    open_files(mimic_iv, tmp_path)
    write_table(tmp_path / "hosp/admissions.csv.gz", "subject_id visit_number admittime", [1, 2, 3])
    absent = (r"admissions\.csv\.gz is not the table admissions: it has no column hadm_id; "
              "columns found: admittime, subject_id, visit_number")  # fmt: skip
    with pytest.raises(DataError, match=absent):
        open_files(mimic_iv, tmp_path)
    write_table(tmp_path / "hosp/admissions.csv.gz", "subject_id hadm_id admittime")
    with pytest.raises(DataError, match=r"admissions\.csv\.gz holds no line"):
        open_files(mimic_iv, tmp_path)
    whole = (tmp_path / "note/discharge.csv.gz").read_bytes()
    (tmp_path / "note/discharge.csv.gz").write_bytes(whole[:-10])
    write_table(tmp_path / "hosp/admissions.csv.gz", "subject_id hadm_id admittime", [1, 2, 3])
    with pytest.raises(DataError, match=r"discharge\.csv\.gz is damaged or cut off after"):
        list(read_corpus(mimic_iv, tmp_path))


def test_the_profile_names_tables_of_the_format_only():
    with pytest.raises(ConfigError, match="tables of format mimic are: admissions, diagnoses_icd"):
        settings("mimic", path="x.csv", tables={"measurement": "m.csv"})
    with pytest.raises(ConfigError, match="below the data directory"):
        settings("mimic", path="x.csv", tables={"admissions": "/etc/passwd"})
    with pytest.raises(ConfigError, match="format fhir holds records; set kind: record"):
        CorpusSource.parse({"name": "x", "kind": "document", "format": "fhir", "path": "*"}, "p")
