"""The encoder job on real Ray Train workers: resumed and killed runs end like straight ones."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import ray.train.v2.api.exceptions
import torch
from safetensors.torch import load_file

from medray.common.errors import CheckpointError, DataError
from medray.common.manifest import Artefact
from medray.common.metrics import MetricsLog
from medray.common.records import Document, Passage, RetrievalQuestion
from medray.common.rows import write_rows
from medray.common.storage import Storage, StorageConfig
from medray.retrieval.embed import Embedder
from medray.retrieval.training.contrastive import ContrastiveConfig
from medray.retrieval.training.encoder import MINED, SCRATCH, train_encoder
from medray.retrieval.training.encoder_data import prepare_data
from medray.retrieval.training.encoder_model import EncoderConfig, build_masked_model
from medray.retrieval.training.mlm import MlmConfig


def tiny(**values) -> EncoderConfig:
    settings = {
        "num_layers": 1, "hidden_size": 32, "num_heads": 2, "vocab_size": 200, "max_positions": 64,
        "mlm": MlmConfig(steps=4, batch_size=4, block_tokens=16, warmup_steps=1),
        "contrastive": ContrastiveConfig(
            steps=4, batch_size=8, warmup_steps=1, max_query_tokens=16, max_passage_tokens=48
        ),
        "checkpoint_every": 2, "log_every": 1,
    }  # fmt: skip
    return EncoderConfig.model_validate({**settings, **values})


def open_artefact(root: Path, config: EncoderConfig) -> Artefact:
    return Artefact(Storage(StorageConfig(root=str(root))), "encoder", config, key="k")


def weights(artefact: Artefact) -> dict[str, torch.Tensor]:
    return load_file(artefact.dir / "model" / "model.safetensors")


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        difference = (values - other[name]).abs().max().item()
        assert difference == 0, f"{name} differs by {difference}"


@pytest.fixture(scope="session")
def straight(ray_cluster, corpus, instructions, tmp_path_factory) -> Artefact:
    """An undisturbed run of 4 + 4 steps on two workers."""
    config = tiny(log_every=3)
    artefact = open_artefact(tmp_path_factory.mktemp("straight"), config)
    train_encoder(config, corpus, instructions, artefact)
    return artefact


def test_batch_that_workers_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"contrastive.batch_size must be a multiple"):
        tiny(num_workers=4, contrastive=ContrastiveConfig(batch_size=6))


def test_base_without_model_is_refused(
    corpus, instructions, encoder_dir: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    config = tiny(base=str(base))

    def refused(message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            train_encoder(config, corpus, instructions, open_artefact(tmp_path / "out", config))

    refused("no model directory")
    shutil.copytree(encoder_dir, base)
    weights = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    torch.save(weights, base / "pytorch_model.bin")  # a pickle may run code as it is read
    refused(r"pickled weights \(\*\.bin\) only")
    with pytest.raises(CheckpointError, match="pickled weights"):  # on a worker's machine too
        build_masked_model(config, None)
    (base / "config.json").unlink()
    refused(r"no config\.json")


@pytest.mark.cluster
def test_writes_models_losses_and_counts(straight: Artefact) -> None:
    rows = MetricsLog(straight.dir / "metrics.jsonl").read()
    # The first and the last step of each stage are logged, whatever lies between.
    losses = [[row.get(f"{stage}/loss") for row in rows] for stage in ("mlm", "contrastive")]
    assert [row["step"] for row in rows] == [1, 3, 4, 5, 7, 8]
    assert [loss is None for loss in losses[0]] == [False] * 3 + [True] * 3
    assert straight.metrics == {
        "mlm/loss_before": losses[0][0], "mlm/loss_after": losses[0][2],
        "contrastive/loss_before": losses[1][3], "contrastive/loss_after": losses[1][5],
    }  # fmt: skip
    assert straight.counts["mlm_documents"].model_dump() == {
        "rows_in": 5, "rows_out": 4, "rejected": {"held_out": 1}
    }  # fmt: skip
    assert straight.counts["contrastive_questions"].rows_out == 5
    assert Embedder(straight.dir / "model").embed(["肺炎"]).shape == (1, 32)
    assert {"mlm", "model", *SCRATCH} <= {path.name for path in straight.dir.iterdir()}


@pytest.mark.cluster
def test_hard_negatives_are_mined_and_met(
    straight: Artefact, corpus, instructions, tmp_path: Path
) -> None:
    contrastive = straight.config.contrastive.model_copy(
        update={"hard_negatives": 2, "mined_after": 1}
    )
    config = tiny(log_every=3, contrastive=contrastive)
    artefact = open_artefact(tmp_path, config)
    train_encoder(config, corpus, instructions, artefact)
    rows = pq.read_table(artefact.dir / "encoder_data" / MINED).to_pylist()
    assert len(rows) == 5
    for row in rows:
        assert len(row["negatives"]) >= 2 and not set(row["gold"]) & set(row["negatives"])
    # The same pairs and weights with more to tell apart: the first loss can only be higher.
    assert artefact.metrics["mlm/loss_after"] == straight.metrics["mlm/loss_after"]
    before = artefact.metrics["contrastive/loss_before"]
    assert before > straight.metrics["contrastive/loss_before"] + 0.1
    assert artefact.metrics["contrastive/loss_after"] < before


@pytest.mark.cluster
def test_a_bge_m3_is_taken_as_it_is(
    ray_cluster, m3_dir: Path, corpus, instructions, tmp_path: Path
) -> None:
    """Without a step of training, its weights of tokens included."""
    config = tiny(
        base=str(m3_dir), mlm={"steps": 0, "batch_size": 4, "block_tokens": 16},
        contrastive={"steps": 0, "batch_size": 8},
    )  # fmt: skip
    artefact = open_artefact(tmp_path, config)
    train_encoder(config, corpus, instructions, artefact)
    made = Embedder(artefact.dir / "model").encode(["肺炎怎么治疗"])
    expected = Embedder(m3_dir).encode(["肺炎怎么治疗"])
    np.testing.assert_allclose(made.vectors_ND, expected.vectors_ND, atol=1e-6)
    assert made.weights_N[0] == pytest.approx(dict(expected.weights_N[0]))


def test_passages_alone_are_text_enough(corpus, tmp_path: Path) -> None:
    """Where all documents are held out, or there are 256 to the last batch and none behind."""
    write_rows(tmp_path / "documents", Document, [])
    (tmp_path / "passages").symlink_to(corpus / "passages")
    prepare_data(tiny(), tmp_path, tmp_path / "data")
    counts = json.loads((tmp_path / "data" / "counts.json").read_text())
    assert (counts["rows_in"], counts["rows_out"]) == (0, 0)
    assert (tmp_path / "data" / "blocks.bin").stat().st_size > 0


@pytest.mark.cluster
def test_killed_run_ends_like_a_straight_one(
    straight, corpus, instructions, tmp_path: Path
) -> None:
    """Killed in its second stage, and run again."""
    config, kill_at = tiny(max_failures=0), 7
    artefact = open_artefact(tmp_path, config)
    log = MetricsLog(artefact.dir / "metrics.jsonl")
    before = {process.pid for process in psutil.process_iter() if is_worker(process)}
    killed: list[int] = []

    def kill_once_it_trains() -> None:
        while not any(row["step"] >= kill_at for row in log.read()):
            time.sleep(0.005)
        for process in psutil.process_iter():
            if process.pid not in before and is_worker(process):
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
                return

    thread = threading.Thread(target=kill_once_it_trains, daemon=True)
    thread.start()
    with pytest.raises(ray.train.v2.api.exceptions.TrainingFailedError):
        train_encoder(config, corpus, instructions, artefact)
    train_encoder(config, corpus, instructions, artefact)
    thread.join(timeout=10)
    assert len(killed) == 1
    assert_equal(weights(straight), weights(artefact))
    rows = MetricsLog(artefact.dir / "metrics.jsonl").read()
    assert [row["step"] for row in rows] == list(range(1, 9))


def is_worker(process: psutil.Process) -> bool:
    try:
        return "RayTrainWorker" in process.name() or any(
            "RayTrainWorker" in part for part in process.cmdline()
        )
    except psutil.Error:
        return False


@pytest.mark.cluster
def test_corpus_without_passages_is_refused(
    ray_cluster, corpus, instructions, tmp_path: Path
) -> None:
    write_rows(tmp_path / "corpus" / "passages", Passage, [])
    (tmp_path / "corpus" / "documents").symlink_to(corpus / "documents")
    with pytest.raises(DataError, match="holds no passage"):
        train_encoder(
            tiny(), tmp_path / "corpus", instructions, open_artefact(tmp_path / "out", tiny())
        )


@pytest.mark.cluster
def test_questions_may_be_missing(ray_cluster, corpus, tmp_path: Path) -> None:
    """Spans of passages alone train the encoder where a hospital has no questions yet."""
    write_rows(tmp_path / "questions", RetrievalQuestion, [])
    config = tiny(num_workers=1, mlm=MlmConfig(steps=0, batch_size=4, block_tokens=16))
    artefact = open_artefact(tmp_path / "out", config)
    train_encoder(config, corpus, tmp_path, artefact)
    assert (artefact.dir / "model" / "model.safetensors").is_file()
