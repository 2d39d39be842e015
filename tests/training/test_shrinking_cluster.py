"""A cluster that grows and shrinks under a run: a second node comes, is announced to leave, and is
killed.

pytest starts and ends the nodes; the driver is this file, as a process of its own, since that of
the tests may be connected to their common cluster.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train
import torch
from ray import cloudpickle
from ray.cluster_utils import Cluster

from medray.common.manifest import Artefact
from medray.common.metrics import MetricsLog
from medray.common.storage import Storage, StorageConfig
from medray.training.language_model import (
    DecoderConfig,
    LanguageModelLoss,
    build_decoder,
    load_tokenizer,
)
from medray.training.packed import PackedBlocks
from medray.training.pretrain import PretrainConfig, _train
from medray.training.sampler import IndexSampler
from medray.training.stage import Stage
from medray.training.trainer import Inputs, fit
from medray.training.workers import WorkersConfig

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
SECOND = "127.0.0.2"
DEADLINE_S, PATIENCE_S = 60, 90
CONFIG = PretrainConfig(
    learning_rate=1e-2, warmup_steps=1, batch_size=8, micro_batch_size=2, total_steps=12
)
DECODER = DecoderConfig(
    hidden_size=32, num_layers=2, num_heads=2, head_dim=16, intermediate_size=64, max_tokens=128
)
WORKERS = WorkersConfig(
    num_workers=(1, 2), use_gpu=False, checkpoint_steps=2, resize_check_s=1, max_failures=1
)
STOPS = {(1, 3), (2, 5)}
"""(Workers, step): a group of so many stops before this step, from 0, until it is ended."""
NOTICED = (2, 4)
"""And before this one until it knows that a machine is to leave."""


class Halting(Inputs[PretrainConfig]):
    """A run that notes what it does, and stops before some steps for a node to go or to come."""

    def run(self, stage: Stage) -> None:
        context, train_step = ray.train.get_context(), stage.train_step
        size = context.get_world_size()

        def note(what: str, step: int) -> None:
            if context.get_world_rank() == 0:
                with notes(Path(self.storage.root)).open("a", encoding="utf-8") as file:
                    file.write(f"{what} {size} {step}\n")

        def step_or_stop(step: int) -> dict[str, float]:
            if (size, step) == NOTICED:
                note("stops", step)
                while ray.train.get_preemption_info() is None:
                    time.sleep(0.05)
            if (size, step) in STOPS:
                note("stops", step)
                time.sleep(PATIENCE_S)
            note("does", step)
            return train_step(step)

        stage.train_step = step_or_stop
        super().run(stage)


def notes(root: Path) -> Path:
    return root / "notes.txt"


def train_halting(inputs: Inputs[PretrainConfig]) -> None:
    values = {field.name: getattr(inputs, field.name) for field in dataclasses.fields(inputs)}
    _train(DECODER, Halting(**values))


def drive(address: str, root: str) -> None:
    """The driver: trains on a cluster, from what lies in `root`."""
    artefact = Artefact(Storage(StorageConfig(root=root)), "pretrain", CONFIG, key="elastic")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(address=address, log_to_driver=False)
    parents = {"corpus": ("corpus", "tiny"), "instructions": ("instructions", "tiny")}
    fit(train_halting, CONFIG, WORKERS, artefact, **parents)


def curve_in_one_process(corpus: Path) -> list[float]:
    """The losses of the same steps without Ray and DeepSpeed."""
    tokenizer = load_tokenizer(DECODER, corpus / "tokenizer")
    blocks = PackedBlocks.open(corpus / "blocks", "train")
    loss = LanguageModelLoss(build_decoder(DECODER, tokenizer, blocks, CONFIG.seed))
    adamw = torch.optim.AdamW(loss.parameters(), betas=CONFIG.betas, weight_decay=0.0)
    sampler, losses = IndexSampler(len(blocks), CONFIG.batch_size, CONFIG.seed), []
    for step in range(CONFIG.total_steps):
        adamw.param_groups[0]["lr"] = CONFIG.learning_rate * CONFIG.schedule_at(step)
        batch = sampler.batch(step)
        mean = loss(**blocks.collate(batch)) / blocks.weight(batch)
        adamw.zero_grad()
        mean.backward()
        torch.nn.utils.clip_grad_norm_(loss.parameters(), CONFIG.gradient_clip)
        adamw.step()
        losses.append(mean.item())
    return losses


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head of one CPU, which takes another node for dead after two seconds without a sign."""
    signs = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": signs}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


def add_node(cluster: Cluster) -> Any:
    node = cluster.add_node(num_cpus=1, node_ip_address=SECOND)
    cluster.wait_for_nodes()
    return node


def announce_leaving(cluster: Cluster, node: Any) -> None:
    """What a cloud's agent or an autoscaler tells Ray when a machine is taken away."""
    subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", cluster.address,
         "--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION",
         "--reason-message", "spot", "--deadline-remaining-seconds", str(DEADLINE_S)],
        check=True, capture_output=True,
    )  # fmt: skip


def test_a_run_goes_on_with_the_machines_there_are(
    cluster: Cluster, storage: Storage, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for parent in ("corpus", "instructions"):
        shutil.copytree(Path(storage.config.root) / parent, root / parent)
    environment = os.environ | {
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1",
        "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.2",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",
    }
    log = (tmp_path / "driver.log").open("wb")
    driver = subprocess.Popen(
        [sys.executable, __file__, cluster.address, str(root)], env=environment, stderr=log
    )

    def wait_until(line: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not (notes(root).exists() and line in notes(root).read_text().splitlines()):
            assert driver.poll() is None, (tmp_path / "driver.log").read_text()[-3000:]
            assert time.monotonic() < deadline, f"{line!r} was not reached"
            time.sleep(0.05)

    try:
        wait_until("stops 1 3")
        second = add_node(cluster)
        wait_until("stops 2 4")
        announce_leaving(cluster, second)
        wait_until("stops 2 5")
        cluster.remove_node(second, allow_graceful=False)
        assert driver.wait(PATIENCE_S) == 0, (tmp_path / "driver.log").read_text()[-3000:]
    finally:
        driver.kill()
        log.close()

    done = [line.split()[1:] for line in notes(root).read_text().splitlines() if "does" in line]
    # Two workers take the checkpoint of step 2; one that of step 5, which was made because of the
    # notice: checkpoint_steps is 2.
    assert [(int(size), int(step)) for size, step in done] == [
        *((1, step) for step in (0, 1, 2)),
        *((2, step) for step in (2, 3, 4)),
        *((1, step) for step in range(5, 12)),
    ]
    (made,) = (root / "pretrain").glob(".*")
    rows = [row for row in MetricsLog(made / "metrics.jsonl").read() if "train/loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["train/loss"] for row in rows] == pytest.approx(
        curve_in_one_process(root / "corpus" / "tiny"), abs=2e-4
    )


if __name__ == "__main__":
    drive(*sys.argv[1:])
