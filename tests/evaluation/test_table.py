"""The demo's table from manifests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medray.common.config import Config
from medray.common.errors import DataError
from medray.common.manifest import Artefact
from medray.common.storage import Storage, StorageConfig
from medray.evaluation.table import Line, build_table, format_table, read_steps, read_table, width

METRICS = {
    "pretrain": {"loss_before": 8.1, "loss_after": 1.9},
    "encoder": {"mlm/loss_before": 7.5, "mlm/loss_after": 2.5},
    "ppo": {
        "reward_before": 0.5, "reward_after": 0.62, "reward_sd": 0.2, "kl": 0.04, "kl_target": 0.1,
        "length_before": 50.0, "length_after": 62.0,
    },
    "index": {"recall@5": 0.95},
    "quality": {"quality/subtask_balanced_accuracy": 0.93},
    "evaluation": {
        "pretrain/distance_closed": 0.7, "ceiling/diagnosis_accuracy": 0.9,
        "sft/diagnosis_accuracy": 0.8, "ppo/diagnosis_accuracy": 0.79, "sft/true_score": 0.6,
        "ppo/true_score": 0.7, "ppo/fact_swap_followed": 0.9,
    },
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    steps = {}
    for name, metrics in METRICS.items():
        artefact = Artefact(Storage(StorageConfig(root=str(tmp_path))), name, Config(), key="k")
        artefact.metrics |= metrics
        path = artefact.publish()
        steps[name] = {"path": str(path), "key": "k", "seconds": 61.2, "reused": name == "index"}
    (tmp_path / "pipeline.json").write_text(json.dumps({"steps": steps}), encoding="utf-8")
    return tmp_path


def test_lines_hold_values_and_goals(root: Path) -> None:
    lines = {(line.group, line.name): line for line in read_table(root)}
    assert lines["step", "pretrain"].shown == "61 s; loss 8.100 → 1.900"
    assert lines["step", "encoder"].shown == "61 s; MLM 7.500 → 2.500"
    assert lines["step", "index"].shown == "reused"
    sft = lines["diagnosis", "accuracy after sft"]
    assert (sft.value, sft.goal, sft.met) == (0.8, "≥ 0.720", True)  # 0.8 × 0.9
    gain = lines["PPO", "reward gain in standard deviations"]
    assert gain.value == pytest.approx(0.6)  # 0.12 / 0.2
    assert gain.met
    assert lines["PPO", "KL"].met
    assert lines["PPO", "true score"].shown == "0.600 → 0.700"
    assert lines["PPO", "true score"].met
    assert lines["PPO", "answer length"].met is False  # + 24 %
    assert lines["retrieval", "recall@5"].met
    assert lines["quality", "indicator balanced accuracy"].shown == "n/a"
    assert lines["quality", "indicator balanced accuracy"].met is None


def test_a_moved_root_is_read_and_a_missing_one_is_an_error(root: Path, tmp_path: Path) -> None:
    moved = root.rename(tmp_path.parent / f"{tmp_path.name}-moved")
    assert read_steps(moved)["index"].reused
    with pytest.raises(DataError, match="run the pipeline first"):
        read_steps(tmp_path)


def test_nothing_measured_is_a_table_of_gaps() -> None:
    assert all(line.value is None for line in build_table({}))


def test_columns_align_with_wide_characters() -> None:
    assert width("肺炎 a") == 6
    text = format_table([Line("组", "肺炎", 1.0, "1.000"), Line("组", "abcdef", 2.0, "2.000")])
    rows = text.splitlines()[2:]
    # 组 2, gap 2, abcdef 6, gap 2, the digit before the point 1.
    assert [width(row[: row.index(".")]) for row in rows] == [13, 13]


def test_the_benchmark_ends_with_one_json_line(root: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "demo_table.py"
    run = subprocess.run(
        [sys.executable, script, "--root", root], capture_output=True, text=True, check=True
    )
    result = json.loads(run.stdout.splitlines()[-1])
    assert list(result) == [
        "name", "value", "unit", "goal", "ours", "other", "n", "machine", "versions",
    ]  # fmt: skip
    # Goals: distance, sft accuracy, reward gain, KL, true score, length, recall, two of quality.
    assert (result["n"], result["value"]) == (9, pytest.approx(7 / 9))
