"""Shared fixtures. One local Ray cluster serves every `cluster` test of a session."""

import os
from collections.abc import Iterator

import pytest
from forked_workers import forking

from medray.serving.proxy import ENVIRONMENT

# Before torch, ray or tokenizers are imported anywhere: two workers share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# As the jobs have them on one machine.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
os.environ |= ENVIRONMENT


# What workers of training and replicas of serving import first.
WORKER_MODULES = (
    "deepspeed", "pandas", "pyarrow.parquet", "requests", "torch._dynamo",
    "transformers.generation.utils", "transformers.models.auto.modeling_auto",
)  # fmt: skip


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of this session's own, without dashboard, whose workers are forked."""
    import ray
    from ray.cluster_utils import Cluster

    with forking(WORKER_MODULES) as setup_worker_path:
        head = {
            "num_cpus": 4, "include_dashboard": False, "setup_worker_path": setup_worker_path,
        }  # fmt: skip
        cluster = Cluster(initialize_head=True, head_node_args=head)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="warning")
        yield
        ray.shutdown()
        cluster.shutdown()
