"""Optimiser, learning-rate schedule and DeepSpeed engine, as settings of every stage."""

import math
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn
from transformers import PreTrainedModel

from medray.common.config import Config
from medray.common.errors import ConfigError


class OptimiserConfig(Config):
    """AdamW or Muon under DeepSpeed. Source of the defaults: [EMR-LLM 2.2] unless said."""

    learning_rate: float = 1e-5
    muon_learning_rate: float = Field(default=0.0, ge=0)
    """Above 0, the matrices inside the layers learn by Muon at this rate, and all else by AdamW at
    `learning_rate`. Source: Jordan et al. 2024; not in the papers, for decoders made here."""
    warmup_steps: int = 1000
    """Linear."""
    schedule: Literal["constant", "cosine", "wsd"] = "constant"
    """After the warm-up. Source: not given; cosine decays to a tenth; wsd (MiniCPM, Hu et al. 2024,
    4) stays and falls to nothing over the last `decay_fraction` of the steps, so that a run can be
    prolonged from any checkpoint before."""
    decay_fraction: float = Field(default=0.1, gt=0, le=1)
    """Of `total_steps`, for wsd."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    """Source: not given."""
    gradient_clip: float = 1.0
    batch_size: int = 128
    """Samples in the global batch, whatever the number of workers."""
    micro_batch_size: int = 4
    """Samples of one forward pass on one worker."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """[ClinicalGPT 3.1]."""
    offload: Literal["none", "cpu"] = "none"
    """Where optimiser states live. DeepSpeed's NVMe offload is left out: it does not bring back all
    of the state from a checkpoint, so that a run would not go on as it was."""
    precision: Literal["fp32", "bf16"] = "fp32"
    activation_checkpointing: bool = False
    """Keep only each layer's input for the backward pass and compute the rest again: less memory
    for a third more time, the same gradients."""
    bucket_elements: int = 2_000_000
    """Elements that one all-reduce carries; large buckets stall deterministic CPU runs."""
    total_steps: int = 100_000
    seed: int = 0
    """Of new weights, the order of the data, dropout and what is drawn."""
    evaluate_steps: int = Field(default=0, ge=0)
    """Held-out figures are also measured after every so many steps; 0: before and after only."""
    keep: Literal["last", "best"] = "last"
    """The model that a stage brings home: the last one, or the one that did best when measured, at
    `evaluate_steps` or at the end: by loss, in PPO by reward. Source: not in the papers."""

    @model_validator(mode="after")
    def _check(self) -> "OptimiserConfig":
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of "
                f"micro_batch_size {self.micro_batch_size}"
            )
        if self.keep == "best" and not self.evaluate_steps:
            raise ValueError("keep: best needs evaluate_steps, how often models are compared")
        if self.muon_learning_rate and self.gradient_clip:
            raise ValueError(
                "with muon_learning_rate, gradient_clip must be 0: DeepSpeed would clip by the "
                "norm of Muon's orthogonal update, which follows from the matrices' sizes"
            )
        if self.muon_learning_rate and (self.zero_stage == 3 or self.offload != "none"):
            raise ValueError("muon_learning_rate takes zero_stage 0, 1 or 2 and offload none")
        return self

    def schedule_at(self, step: int) -> float:
        """The share of its learning rate that each parameter gets at `step` (from 0): a function
        of the step, so nothing to save."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "wsd":
            return min(1.0, (self.total_steps - step) / (self.decay_fraction * self.total_steps))
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))

    def accumulation(self, world_size: int) -> int:
        """Forward passes that each worker does for one optimiser step.

        Raises:
            ConfigError: if the workers cannot share a batch evenly.
        """
        per_pass = self.micro_batch_size * world_size
        if self.batch_size % per_pass:
            raise ConfigError(
                f"batch_size {self.batch_size} must be a multiple of micro_batch_size × workers = "
                f"{self.micro_batch_size} × {world_size}; change one of the three"
            )
        return self.batch_size // per_pass

    def deepspeed(self, world_size: int) -> dict[str, Any]:
        """The DeepSpeed configuration."""
        zero: dict[str, Any] = {
            "stage": self.zero_stage,
            "reduce_bucket_size": self.bucket_elements,
            "allgather_bucket_size": self.bucket_elements,
        }
        if self.offload == "cpu":
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
        settings: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": self.micro_batch_size,
            "gradient_accumulation_steps": self.accumulation(world_size),
            "gradient_clipping": self.gradient_clip,
            "bf16": {"enabled": self.precision == "bf16"},
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 10**9,
        }
        if self.muon_learning_rate:
            settings["optimizer"] = {
                "type": "Muon",
                "params": {
                    "muon_lr": self.muon_learning_rate,
                    "adam_lr": self.learning_rate,
                    "betas": self.betas,
                    "weight_decay": self.weight_decay,
                    "torch_adam": True,  # DeepSpeed's own is compiled at the first start: 100 s
                },
            }
        return settings


def initialise(module: nn.Module, config: OptimiserConfig, world_size: int) -> Any:
    """Returns the DeepSpeed engine around `module`, with an optimiser of its trainable weights.

    Gradients that are not finite never reach the weights: DeepSpeed leaves out the update, which
    its `skipped_steps` counts, or `step` raises FloatingPointError on every worker.
    """
    import deepspeed
    import deepspeed.ops

    if not torch.cuda.is_available():
        # DeepSpeed would compile an operator for tensor-parallel inference as it starts: half a
        # minute and a C++ compiler, for what training never calls.
        compatible: dict[str, bool] = deepspeed.ops.__compatible_ops__  # pyright: ignore
        compatible["deepspeed_shm_comm"] = False
    trainable = [p for p in module.parameters() if p.requires_grad]
    if config.activation_checkpointing:
        checkpoint_activations(module)
    adamw = None
    if config.muon_learning_rate:
        if not torch.cuda.is_available():
            torch.compiler.set_stance("force_eager")  # Muon's few products need no C++ compiler
    else:
        adamw = torch.optim.AdamW(
            trainable,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=adamw,  # type: ignore[arg-type]
        model_parameters=trainable,  # type: ignore[arg-type]
        config=config.deepspeed(world_size),
        dist_init_required=False,
    )
    if config.zero_stage == 0 and config.precision == "fp32":
        # The one case in which DeepSpeed's own optimisers, which look, are not around this one.
        optimiser: Any = engine.optimizer
        optimiser.register_step_pre_hook(_refuse_broken_gradients)
    return engine


def _refuse_broken_gradients(optimiser: torch.optim.Optimizer, *_: Any) -> None:
    gradients = [p.grad for group in optimiser.param_groups for p in group["params"]]
    norm = torch.nn.utils.get_total_norm(g for g in gradients if g is not None)
    if not torch.isfinite(norm):
        raise FloatingPointError("a gradient is not finite")


def checkpoint_activations(module: nn.Module) -> None:
    """Makes every transformers model inside `module`, a critic of its own too, compute its layers
    again in the backward pass.

    Raises:
        ConfigError: if the architecture cannot.
    """
    inner: set[nn.Module] = set()
    for model in module.modules():
        if not isinstance(model, PreTrainedModel) or model in inner:
            continue
        inner |= set(model.modules())
        if not model.supports_gradient_checkpointing:
            raise ConfigError(
                f"{type(model).__name__} cannot checkpoint activations; set "
                "activation_checkpointing to false and lower micro_batch_size instead"
            )
        # Not re-entrant: frozen word vectors give the first layer an input without gradient.
        model.activation_checkpointing_enable(
            activation_checkpointing_kwargs={"use_reentrant": False}
        )


def set_learning_rate(engine: Any, config: OptimiserConfig, step: int) -> None:
    """Sets the learning rate of every parameter group to that of `step` (from 0)."""
    share = config.schedule_at(step)
    for group in engine.optimizer.param_groups:
        rate = config.muon_learning_rate if group.get("use_muon") else config.learning_rate
        group["lr"] = rate * share
