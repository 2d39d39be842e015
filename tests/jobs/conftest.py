"""The laptop profile at the smallest size that still goes through every step."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent.parent
TINY = [
    "sample.num_records=100", "min_free_disk_gb=0.1", "workers.log_steps=1",
    "corpus.block_tokens=128",
    "decoder.hidden_size=32", "decoder.num_layers=2", "decoder.head_dim=16",
    "decoder.intermediate_size=32",
    "pretrain.total_steps=4", "pretrain.warmup_steps=1", "pretrain.batch_size=4",
    "pretrain.micro_batch_size=2",
    "sft.total_steps=3", "sft.warmup_steps=1", "sft.max_rows=100", "sft.num_heldout=20",
    "encoder.num_layers=1", "encoder.hidden_size=32", "encoder.num_heads=2",
    "encoder.mlm.steps=3", "encoder.mlm.warmup_steps=1", "encoder.mlm.batch_size=8",
    "encoder.contrastive.steps=3", "encoder.contrastive.warmup_steps=1",
    "encoder.contrastive.batch_size=8",
    "reward.total_steps=3", "reward.warmup_steps=1", "reward.batch_size=8",
    "reward.micro_batch_size=4",
    "ppo.total_steps=2", "ppo.rollouts=8", "ppo.batch_size=8", "ppo.micro_batch_size=4",
    "ppo.epochs=1", "ppo.max_new_tokens=8", "ppo.num_heldout=4", "ppo.lora.rank=4",
    "quality.max_records=4",
    "evaluation.max_diagnoses=8", "evaluation.max_texts=2", "evaluation.max_scenarios=4",
    "evaluation.max_questions=4", "evaluation.max_grounded=4", "evaluation.max_loss_records=4",
    "evaluation.baseline_iterations=5", "evaluation.diagnosis_tokens=4",
    "evaluation.answer_tokens=8",
]  # fmt: skip
Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a job's script in a session of its own; what is left of it is ended at the end."""
    started: list[subprocess.Popen] = []

    def run(job: str, *arguments: str) -> subprocess.Popen:
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / f"{job}.py"), "--profile", "laptop", *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        _kill(process)


@pytest.fixture
def tiny() -> list[str]:
    """Overrides for the smallest size."""
    return TINY


@pytest.fixture
def kill() -> Callable[[subprocess.Popen], None]:
    """Ends a job with all processes of its Ray cluster."""
    return _kill


@pytest.fixture
def finish() -> Callable[..., str]:
    """Waits for a job that must succeed; returns what it said."""
    return _finish


def _kill(process: subprocess.Popen) -> None:
    # As a machine that loses power: Ray's processes too, some of which have sessions of their own.
    family = [process.pid]
    if process.poll() is None:
        family += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    for pid in family:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def _finish(process: subprocess.Popen, timeout: float = 1200) -> str:
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, output[-4000:]
    return output
