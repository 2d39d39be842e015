"""Ray Train for the models of retrieval: what encoder and reranker share beside their loop."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from pydantic import Field

from medray.common.config import Config
from medray.retrieval.training.loop import LoopSettings


class RetrievalTraining(Config):
    """Workers, checkpoints and logs of a training run."""

    num_workers: int = Field(default=2, ge=1)
    use_gpu: bool = False
    bf16: bool = False
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between checkpoints."""
    log_every: int = Field(default=20, ge=1)
    max_failures: int = Field(default=2, ge=0)
    """Times that a lost worker group is started again from the newest checkpoint."""
    seed: int = 0

    def loop(self) -> LoopSettings:
        """The loop's settings, on a worker."""
        import ray.train.torch

        return LoopSettings(
            seed=self.seed,
            device=ray.train.torch.get_device(),  # pyright: ignore[reportArgumentType]
            bf16=self.bf16,
            checkpoint_every=self.checkpoint_every,
            log_every=self.log_every,
        )


def fit(
    worker: Callable[[dict[str, Any]], None],
    loop_config: dict[str, Any],
    config: RetrievalTraining,
    directory: Path,
    name: str,
) -> None:
    """Runs `worker` on all workers to the end; checkpoints lie in `directory`/`name`."""
    import ray.train
    from ray.train.torch import TorchTrainer

    TorchTrainer(
        worker,
        train_loop_config=loop_config,
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.num_workers, use_gpu=config.use_gpu
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(directory),
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    ).fit()


def publish_model(model: Any, tokenizer: Any, target: Path, add: Callable[[Path], None]) -> None:
    """Rank 0 writes a Hugging Face directory, whole or not at all; all workers wait for it.

    Args:
        add: writes what else belongs into it.
    """
    if dist.get_rank() == 0:
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        model.eval().to("cpu").save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        add(temporary)
        os.replace(temporary, target)
    dist.barrier()
