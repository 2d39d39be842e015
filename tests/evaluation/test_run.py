"""A whole evaluation with two fake models: report, comparisons, resume, absent inputs."""

import gzip
import json

import pytest

from medray.common.errors import DataError
from medray.common.manifest import Artefact
from medray.common.records import Instruction, Message, Scenario
from medray.common.rows import write_rows
from medray.common.storage import Storage, StorageConfig
from medray.evaluation.run import EvaluationConfig, evaluate

CONFIG = EvaluationConfig(baseline_iterations=20)
NAMES = {"咳嗽咳痰": "肺炎", "反酸嗳气": "胃炎"}


def render(document) -> str:
    return "\n".join(f"【{s.heading}】{s.text}" for s in document.sections)


def diagnose(prompt: str) -> str:
    return next((name for sign, name in NAMES.items() if sign in prompt), "不详")


@pytest.fixture
def data(tmp_path, record):
    instructions, corpus, hospital = (tmp_path / n for n in ("instructions", "corpus", "hospital"))
    rows, documents, truth = [], [], []
    for k in range(40):
        sign, name = list(NAMES.items())[k % 2]
        split = "dev" if k >= 20 else "train"
        code = "J18.9" if name == "肺炎" else "K29.7"
        documents.append(
            record(doc_id=f"d{k}", split=split, 主诉=f"{sign}{k}天。", 诊断=f"{name}（{code}）。")
        )
        messages = [
            Message(role="user", content=f"根据以下症状进行诊断：{sign}"),
            Message(role="assistant", content=name),
        ]
        rows.append(
            Instruction(
                id=f"diagnosis-d{k}", task="diagnosis", messages=messages, split=split,
                answer=name, group="内科",
            )
        )  # fmt: skip
        truth.append({"record_id": f"d{k}", "posterior_max": 0.9, "nll_nats": 5.0})
    write_rows(instructions / "sft", Instruction, rows)
    scenarios = [Scenario(id=f"s{k}", prompt=f"咳嗽咳痰{k}", split="dev") for k in range(4)]
    write_rows(instructions / "prompts", Scenario, scenarios)
    write_rows(corpus / "documents", type(documents[0]), documents)
    (hospital / "truth").mkdir(parents=True)
    about = {"ceiling": 0.9, "ceiling_se": 0.01}
    (hospital / "hospital.json").write_text(json.dumps(about), encoding="utf-8")
    with gzip.open(hospital / "truth" / "records-00000.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in truth)
    return {"instructions": instructions, "corpus": corpus, "hospital": hospital, "render": render}


@pytest.fixture
def artefact(tmp_path) -> Artefact:
    storage = Storage(StorageConfig(root=str(tmp_path / "root")))
    return Artefact(storage, "evaluation", CONFIG, key="k")


class Lengths:
    """A reward model that likes long answers."""

    def score(self, scenarios, responses) -> list[float]:
        return [float(len(response)) for response in responses]


def test_evaluate(data, artefact, engine) -> None:
    loads: list[str] = []

    def load(name: str, reply):
        def factory():
            loads.append(name)
            return engine(reply)

        return factory

    engines = {
        "pretrain": load("pretrain", lambda p: "肺炎（J18.9）。"),
        "sft": load("sft", lambda p: "肺炎"),
        "ppo": load("ppo", diagnose),
    }
    scores = {
        "scorer": Lengths(),
        "true_score": lambda ids, responses: [1.0] * len(ids),
        "unigram_nats": 4.0,
    }
    evaluate(CONFIG, engines=engines, artefact=artefact, **data, **scores)
    metrics = artefact.metrics
    assert metrics["pretrain/diagnosis_accuracy"] == 0.5
    assert metrics["sft/diagnosis_accuracy"] == 0.5
    assert metrics["ppo/diagnosis_accuracy"] == 1.0
    assert metrics["tfidf/diagnosis_accuracy"] == 1.0
    assert metrics["ceiling/diagnosis_accuracy"] == 0.9
    assert metrics["ceiling_of_items/diagnosis_accuracy"] == pytest.approx(0.9)
    assert metrics["ppo - sft/diagnosis_accuracy"] == 0.5
    assert metrics["ppo - sft/reward"] == 0.0
    assert metrics["ppo/true_score"] == 1.0
    assert metrics["ppo/exam_accuracy"] is None
    # 2 nats a character against 4; `咳嗽咳痰20天。\n【诊断】肺炎（J18.9）。` is 8 + 1 + 4 + 10 = 23
    # characters, so the bound is 5 / 23.
    bound = 5.0 / 23
    assert metrics["bound/record_nats_per_token"] == pytest.approx(bound)
    assert metrics["pretrain/distance_closed"] == pytest.approx(2 / (4 - bound))
    report = json.loads((artefact.dir / "report.json").read_text(encoding="utf-8"))["figures"]
    absent = [row for row in report if row["value"] is None]
    assert absent
    assert all(row["reason"] for row in absent)
    assert "n/a: no held-out exam questions" in (artefact.dir / "report.html").read_text("utf-8")
    evaluate(CONFIG, engines=engines, artefact=artefact, **data, **scores)
    assert loads == ["pretrain", "sft", "ppo"], "finished models are not measured again"
    artefact.publish()


def test_without_truth_reward_or_scores_figures_say_why(data, artefact, engine) -> None:
    data["hospital"] = None
    figures = evaluate(CONFIG, engines={"sft": lambda: engine(diagnose)}, artefact=artefact, **data)
    reasons = {f.key: f.reason for f in figures if f.value is None}
    assert reasons["ceiling/diagnosis_accuracy"] == "the data come without their truth"
    assert reasons["sft/reward"] == "no reward model"


def test_nothing_held_out_is_an_error(data, artefact, tmp_path, record) -> None:
    kinds = [record(doc_id="d", split="train", 主诉="痛。")]
    data["corpus"], data["instructions"] = tmp_path / "c2", tmp_path / "none"
    write_rows(data["corpus"] / "documents", type(kinds[0]), kinds)
    with pytest.raises(DataError, match="nothing of split dev"):
        evaluate(CONFIG, engines={}, artefact=artefact, **data)
