"""One training stage on a Ray Train worker: data parallel, checkpointed, resumed exactly.

In: a module whose forward returns the loss, and batches as a function of the step. Out: the
trained module, metrics.jsonl and Ray Train checkpoints. All state is weights, optimiser and step:
batches and dropout are functions of (seed, step, rank), so a killed run ends bit-identically.
"""

import hashlib
import logging
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import ray.train
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medray.common.metrics import MetricsLog
from medray.common.scratch import scratch_directory

logger = logging.getLogger(__name__)
STATE = "state.pt"


class Batches(Protocol):
    """Makes a worker's share of the global batch of a step."""

    def batch(self, step: int, rank: int, num_workers: int) -> dict[str, Any]: ...


class Stage(NamedTuple):
    """What one stage trains, and how."""

    name: str
    module: nn.Module
    batches: Batches
    steps: int
    learning_rate: float
    warmup_steps: int
    first_step: int
    """Step of the whole run at which the stage starts; steps are numbered through."""
    section: str
    """Of the profile, that has its learning rate."""


class LoopSettings(NamedTuple):
    """What all stages share."""

    seed: int
    device: torch.device
    bf16: bool
    checkpoint_every: int
    log_every: int
    weight_decay: float = 0.01
    """Source: [BERT A.2]."""
    max_grad_norm: float = 1.0


class State(NamedTuple):
    """A checkpoint: `step` steps of the whole run are done."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]


def load_state() -> State | None:
    """Returns the newest checkpoint that Ray Train holds for this run, or None at the start."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as directory:
        values = torch.load(Path(directory) / STATE, map_location="cpu", weights_only=True)
    return State(**values)


def run_stage(stage: Stage, state: State | None, settings: LoopSettings, log: MetricsLog) -> None:
    """Trains `stage.module` in place up to the stage's last step.

    Args:
        state: a checkpoint taken within this stage, or None to start it.
        log: rank 0 appends `<stage>/loss` and the learning rate every `log_every` steps, and at
            the stage's first and last.
    Raises:
        FloatingPointError: if the gradient is not finite; naming the stage and step.
    """
    rank, num_workers = dist.get_rank(), dist.get_world_size()
    module = stage.module.to(settings.device).train()
    if state is not None:
        module.load_state_dict(state.model)
    parallel = DistributedDataParallel(module) if num_workers > 1 else module
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=stage.learning_rate, weight_decay=settings.weight_decay
    )
    if state is not None:
        optimizer.load_state_dict(state.optimizer)
    start = 0 if state is None else state.step - stage.first_step
    started = time.monotonic()
    for step in range(start, stage.steps):
        # 1. a batch and dropout masks that depend on nothing but seed, step and rank
        batch = to_device(stage.batches.batch(step, rank, num_workers), settings.device)
        torch.manual_seed(seed_of(settings.seed, stage.name, step, rank))
        # 2. loss and gradient, averaged over workers by DistributedDataParallel
        with torch.autocast(settings.device.type, torch.bfloat16, enabled=settings.bf16):
            loss = parallel(**batch)
        loss.backward()
        # 3. update
        norm = nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        if not torch.isfinite(norm):  # the same on every worker: all stop together
            raise FloatingPointError(
                f"{stage.name} gradient is not finite at step {step}; "
                f"lower {stage.section}.learning_rate"
            )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, stage)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        # 4. log and checkpoint
        done = step + 1
        if done % settings.log_every == 0 or done in (1, stage.steps):
            mean = loss.detach().float()
            dist.all_reduce(mean)
            if rank == 0:
                seconds = (time.monotonic() - started) / (done - start)
                _log(log, stage, done, mean.item() / num_workers, seconds)
        if done % settings.checkpoint_every == 0 and done < stage.steps:
            save_state(State(stage.first_step + done, module.state_dict(), optimizer.state_dict()))


def save_state(state: State) -> None:
    """Reports a checkpoint to Ray Train; every worker calls it, rank 0 uploads."""
    metrics = {"step": state.step}
    if dist.get_rank() != 0:
        ray.train.report(metrics)
        return
    with scratch_directory() as directory:
        torch.save(state._asdict(), directory / STATE)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(directory))


def learning_rate(step: int, stage: Stage) -> float:
    """Linear warm-up to the peak, then linear decay to 0 [BERT A.2]."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    return stage.learning_rate * (stage.steps - step) / max(1, stage.steps - stage.warmup_steps)


def seed_of(*parts: int | str) -> int:
    """Returns a 63-bit seed that depends on all parts."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def to_device(values: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Moves the tensors of a batch, nested ones too."""
    return {
        name: to_device(value, device) if isinstance(value, dict) else value.to(device)
        for name, value in values.items()
    }


def _log(log: MetricsLog, stage: Stage, done: int, loss: float, seconds: float) -> None:
    logger.info(
        "%s step %d/%d loss %.4f, %.3f s a step", stage.name, done, stage.steps, loss, seconds
    )
    metrics = {
        f"{stage.name}/loss": loss,
        f"{stage.name}/learning_rate": learning_rate(done - 1, stage),
        "time/step_s": round(seconds, 4),
    }
    log.write(stage.first_step + done, metrics)
