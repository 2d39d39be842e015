"""A small hospital: de-identified corpus documents and task files, all invented."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medray.common.manifest import Artefact
from medray.common.records import Document, Passage, Section
from medray.common.rows import write_rows
from medray.common.storage import Storage, StorageConfig
from medray.instructions.build import InstructionsConfig


def sections(**texts: str) -> list[Section]:
    return [Section(heading=heading, text=text) for heading, text in texts.items()]


def emr(number: int, patient: int, source: str = "records", split: Any = "train") -> Document:
    return Document(
        doc_id=f"{source}-{number}",
        patient_id=f"p{patient}",
        kind="emr",
        department="呼吸科",
        source=source,
        split=split,
        sections=sections(
            主诉=f"咳嗽{number}天。",
            现病史="受凉后咳嗽，无咯血。",
            诊断="1. 肺炎（J18.9）；2. 高血压",
            治疗="抗感染。多饮水。",
            拟诊讨论="需与肺结核鉴别。",
        ),
    )


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


TASK_FILES: dict[str, list[dict[str, Any]]] = {
    "triple": [
        {"head": "肺炎", "relation": "has_symptom", "tail": "咳嗽"},
        {"head": "肺炎", "relation": "has_symptom", "tail": "发热"},
        {"head": "肺炎", "relation": "no such relation", "tail": "?"},
    ],
    "exam": [
        {"id": f"e{k}", "question": f"第{k}题", "options": {"A": "甲", "B": "乙"}, "answer": "B"}
        for k in range(10)
    ],
    "dialogue": [
        {
            "id": f"d{k}",
            "turns": [
                {"role": "patient", "text": f"咳嗽{k}天"},
                {"role": "doctor", "text": "有痰吗？"},
            ],
        }
        for k in range(10)
    ],
    "consultation": [
        {"id": f"c{k}", "scenario": f"失眠{k}天怎么办", "response": "规律作息。"} for k in range(40)
    ],
    "score": [
        {"id": f"s{k}", "scenario": f"失眠{k}天怎么办", "response": "作息规律。", "score": k % 11}
        for k in range(40)
    ],
    "preference": [
        {"id": f"p{k}", "scenario": f"头痛{k}天", "chosen": "测血压。", "rejected": "不知道。"}
        for k in range(10)
    ],
    "scenario": [{"id": f"x{k}", "scenario": f"胃痛{k}天"} for k in range(10)],
    "question": [
        {"id": "q0", "question": "肺炎怎么治", "doc_id": "肺炎", "section": "治疗"},
        {"id": "q1", "question": "肺炎是什么", "doc_id": "肺炎", "section": "概述"},
        {"id": "q2", "question": "无此文", "doc_id": "无", "section": "概述"},
    ],
    "grounded": [
        {
            "id": f"g{k}",
            "question": f"肺炎怎么治？（{k}）",
            "passages": [{"title": "哮喘 治疗", "text": "吸入激素。"},
                         {"title": "肺炎 治疗", "text": "首选抗生素，多饮水。"}],
            "quote": "首选抗生素" if k else None,
            "gold": 1 if k else None,
        }
        for k in range(3)
    ],
    "quality_label": [
        {
            "record_id": f"audit-{k}",
            "indicator": "af-risk-assessed",
            "tasks": {"AF": True, "VALVULAR": None, "T1": False},
            "populations": {"numerator": False},
            "evidence": {"AF": {"section": "诊断", "sentence": 0}},
        }
        for k in range(20)
    ],
    "instruction": [
        {"id": f"i{k}", "instruction": f"高血压{k}级怎么办", "input": "", "output": "限盐。"}
        for k in range(10)
    ],
    "labelled": [
        {"id": f"c{k}", "text": f"{k}型糖尿病", "label": [f"E1{k}.900"]} for k in range(8)
    ] + [{"id": "c8", "text": "高血压病", "label": []}],
}  # fmt: skip


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """Task files, one a kind."""
    for kind, rows in TASK_FILES.items():
        write_jsonl(tmp_path / "hospital" / f"{kind}.jsonl.gz", rows)
    return tmp_path / "hospital"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """60 records, 20 audit records of partly the same patients, and two passages."""
    documents = [
        *(emr(k, patient=k % 30, split="dev" if k % 30 < 3 else "train") for k in range(60)),
        *(emr(k, patient=20 + k, source="audit") for k in range(20)),
    ]
    passages = [
        Passage(passage_id=f"肺炎#{heading}", doc_id="肺炎", start=0, end=1, section=heading,
                title=f"肺炎 {heading}", text="文", kind="encyclopaedic")
        for heading in ("概述", "治疗")
    ]  # fmt: skip
    write_rows(tmp_path / "corpus" / "documents", Document, documents)
    write_rows(tmp_path / "corpus" / "passages", Passage, passages)
    return tmp_path / "corpus"


@pytest.fixture
def config_of() -> Callable[..., InstructionsConfig]:
    """Makes a configuration over all task files."""

    def make(**settings: Any) -> InstructionsConfig:
        sources = [{"name": kind, "kind": kind, "path": f"{kind}.jsonl.gz"} for kind in TASK_FILES]
        sources = [s | ({"task": "icd_coding"} if s["kind"] == "labelled" else {}) for s in sources]
        values = {"sources": sources, "quality": {"dev_fraction": 0.4}, **settings}
        return InstructionsConfig.model_validate(values)

    return make


@pytest.fixture
def make_record() -> Callable[..., Document]:
    """Makes a record: (number, patient, source, split)."""
    return emr


@pytest.fixture
def open_artefact(tmp_path: Path) -> Callable[..., Artefact]:
    """Opens an instructions artefact under a key."""

    def opened(config: InstructionsConfig, key: str = "k") -> Artefact:
        storage = Storage(StorageConfig(root=str(tmp_path / "artefacts")))
        return Artefact(storage, "instructions", config, key=key)

    return opened
