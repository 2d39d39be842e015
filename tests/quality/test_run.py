"""A whole quality-control run: reports, accuracy, resume."""

import json

import pytest

from medray.common.errors import DataError
from medray.common.manifest import Artefact
from medray.common.storage import Storage, StorageConfig
from medray.quality.run import QualityConfig, check_quality

GOOD, BAD = "植入支架一枚。残余狭窄10%。TIMI血流3级。", "植入支架一枚。残余狭窄10%。TIMI血流2级。"
CONFIG = QualityConfig(indicators=["pci-angio-success"], records_per_shard=2, top_k=0)


def reply(prompt: str) -> str:
    text, question = prompt.split("质控")
    if "介入" in question:
        return "“植入支架一枚。”是"
    if "<20%" in question:
        return "“残余狭窄10%。”是"
    if "TIMI分级" in question:
        return "“TIMI血流3级。”是" if "血流3级" in text else "“TIMI血流2级。”否"
    return "未提及"


def label(doc_id: str, **tasks: bool | None) -> list[dict]:
    evidence = {"PCI": 0, "T1": 1, "T3": 2}
    return [
        {
            "record_id": doc_id, "indicator": "pci-angio-success", "level": "task", "name": name,
            "value": value, "split": "dev",
            "section": "手术记录" if name in evidence else "", "sentence": evidence.get(name),
        }
        for name, value in tasks.items()
    ]  # fmt: skip


@pytest.fixture
def artefact(tmp_path) -> Artefact:
    storage = Storage(StorageConfig(root=str(tmp_path)))
    return Artefact(storage, "quality", CONFIG, key="k")


@pytest.fixture
def documents(record):
    texts = [GOOD, BAD, GOOD, GOOD]
    return [record(doc_id=f"d{k}", 手术记录=text) for k, text in enumerate(texts)]


def test_run_writes_reports_and_accuracy(artefact, documents, engine) -> None:
    labels = [
        *label("r0", PCI=True, T1=True, T2=None, T3=True),
        *label("r1", PCI=True, T1=True, T2=None, T3=False),
        *label("r2", PCI=True, T1=True, T2=None, T3=False),  # the model is wrong here
        *label("r3", PCI=False, T1=None, T2=None, T3=None),  # not in the denominator
    ]
    names = {f"r{k}": f"d{k}" for k in range(4)}
    check_quality(CONFIG, documents, engine(reply), None, labels, artefact, doc_ids=names)
    metrics = artefact.metrics
    assert metrics["quality/pci-angio-success/rate"] == 0.75
    # Truth met, unmet, unmet; model met, unmet, met: recalls 1 and 1/2.
    assert metrics["quality/indicator_balanced_accuracy"] == pytest.approx(0.75)
    assert metrics["quality/indicator_balanced_accuracy_majority"] == pytest.approx(0.5)
    # PCI: yes 3/3, no 0/1 → 1/2. T1: yes 1, not mentioned 0 → 1/2. T2: 1.
    # T3: yes 1/1, no 1/2, not mentioned 0/1 → 1/2.
    assert metrics["quality/subtask_balanced_accuracy"] == pytest.approx((0.5 + 0.5 + 1 + 0.5) / 4)
    assert metrics["quality/evidence_accuracy"] == 1.0
    assert metrics["quality/num_subtask_labels"] == 16
    assert artefact.counts["judge"].rows_in == artefact.counts["judge"].rows_out == 4
    report = json.loads((artefact.dir / "measure_report.json").read_text(encoding="utf-8"))
    assert report["entry"][0]["resource"]["group"][0]["measureScore"]["value"] == 0.75
    assert "TIMI血流2级" in (artefact.dir / "report.html").read_text(encoding="utf-8")
    artefact.publish()


def test_a_killed_run_reads_finished_shards(artefact, documents, engine) -> None:
    check_quality(CONFIG, documents[:2], engine(reply), None, None, artefact)
    again = engine(reply)
    check_quality(CONFIG, documents, again, None, None, artefact)
    assert len(again.prompts) == 8, "two records of four sub-tasks were still to be judged"
    assert artefact.metrics["quality/pci-angio-success/rate"] == 0.75
    with pytest.raises(DataError, match="other records"):
        check_quality(CONFIG, documents[1:], engine(reply), None, None, artefact)


def test_knowledge_is_looked_up_once_per_task(artefact, documents, engine) -> None:
    class Search:
        queries: list = []  # noqa: RUF012

        def search_text(self, query: str, top_k: int) -> list:
            self.queries.append((query, top_k))
            return [type("Passage", (), {"text": "TIMI 3级即完全灌注。"})]

    fake = engine(reply)
    config = CONFIG.model_copy(update={"top_k": None})
    check_quality(config, documents, fake, Search(), None, artefact)
    assert len(Search.queries) == 4
    assert all("说明：TIMI 3级即完全灌注。" in prompt for prompt in fake.prompts)


def test_no_records_and_wrong_labels_are_errors(artefact, documents, engine) -> None:
    with pytest.raises(DataError, match="no records"):
        check_quality(CONFIG, [], engine(reply), None, None, artefact)
    with pytest.raises(DataError, match=r"r9.*name, value"):
        rows = [{"record_id": "r9", "indicator": "x", "level": "task"}]
        check_quality(CONFIG, documents, engine(reply), None, rows, artefact)
