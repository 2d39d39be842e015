"""What the training stages of a profile will need on GPUs: lines for `medray doctor`.

In: a profile. Out: for each stage memory of a GPU by what it holds and what to change where that is
too much; tokens, steps, days, GPU-hours and, if a price is given, cost. Upper bounds: every
sequence is taken to be as long as it may be, which examples and answers are not.
Source: `medray.training.estimate`.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pydantic import Field

from medray.common.config import Config
from medray.training.estimate import (
    GIB,
    GPUS,
    MFU,
    Estimate,
    bytes_of,
    days,
    estimate,
)
from medray.training.language_model import LoraConfig
from medray.training.ppo.estimate import estimate_round
from medray.training.shapes import shape_of

SPARE = 0.9
"""Share of a GPU's memory that a stage may take: the allocator and NCCL need some. Source: not
given; DeepSpeed and the CUDA context took 3 to 6 GiB on other systems."""


class PlanConfig(Config):
    """What `medray doctor` reckons with; no job reads it."""

    mfu: float = Field(default=MFU, gt=0, le=1)
    """Share of the GPUs' bf16 peak. `benchmarks/gpu_train.py` measures it."""
    days: float | None = Field(default=None, gt=0)
    """Days in which all stages shall be over; None asks for none."""
    gpu_hour_price: float | None = Field(default=None, gt=0)
    """What an hour of one GPU costs, in any currency. None prints no cost: prices are a matter of
    contract, and no source has one."""


class Line(NamedTuple):
    """A finding; `fits` is False if it cannot be so, and `mend` says what to change."""

    name: str
    fits: bool
    text: str
    mend: str = ""


class StagePlan(NamedTuple):
    """A stage and how its needs follow from its settings."""

    name: str
    config: Any
    reckon: Callable[[Any], Estimate]


def training_plan(profile: Any, gpu_name: str) -> Iterator[Line]:
    """Two lines a stage, memory and time, and one for all together.

    Args:
        profile: a `medray.profile.Profile`, which holds a `PlanConfig` itself.
    Raises:
        CheckpointError: a model's shape cannot be told.
    """
    if not profile.decoder.path:
        text = "not reckoned: decoder.path is empty, so a small decoder is made by pretraining"
        yield Line("training", True, text)
        return
    gpu, workers, asked = GPUS[gpu_name], profile.workers.most_workers, profile.plan
    stages = list(stages_of(profile))
    needs = [stage.reckon(stage.config) for stage in stages]
    seconds = [found.step_s(gpu, workers, asked.mfu) for found in needs]
    total = sum(s * stage.config.total_steps for s, stage in zip(seconds, stages, strict=True))
    faster = total / (86400 * asked.days) if asked.days and total else None
    for stage, found, step_s in zip(stages, needs, seconds, strict=True):
        limit = SPARE * gpu.memory_gib * GIB
        fits = found.memory <= limit
        text = memory_text(found, gpu.memory_gib)
        yield Line(stage.name, fits, text, "" if fits else mend(stage, limit, workers))
        text = time_text(stage, found.tokens_per_step, step_s, workers, asked, faster)
        yield Line(f"{stage.name} time", True, text)
    text = f"{work_text(total, workers, asked)} at MFU {asked.mfu:g} of {workers} × {gpu_name}"
    if not profile.sft.total_steps:
        text += ", without sft, whose steps follow from its curriculum's epochs"
    if faster is None:
        yield Line("in all", True, text)
        return
    text += f"; {asked.days:g} days ask for {faster:.2f} of that speed"
    num = math.ceil(workers * faster)
    yield Line("in all", faster <= 1, text, "" if faster <= 1 else (
        f"take {num} GPUs as fast as these at that MFU, fewer total_steps, or more days"
    ))  # fmt: skip


def stages_of(profile: Any) -> Iterator[StagePlan]:
    """Pretraining, fine-tuning, reward model and PPO."""
    workers = profile.workers.most_workers
    shape = shape_of(profile.decoder.path)
    block = profile.corpus.block_tokens
    yield StagePlan(
        "pretrain", profile.pretrain, lambda config: estimate(shape, config, None, block, workers)
    )
    yield StagePlan("sft", profile.sft, lambda config: fine_tuning(shape, config, workers))
    reward = profile.reward
    of_encoder = reward.parent == "encoder"
    base = reward.base or (profile.encoder.base if of_encoder else "")
    scorer = shape_of(base) if base else None if of_encoder else shape
    if scorer is not None:  # else a new encoder, of no account
        pairs = 2 if reward.objective == "ranking" else 1
        # A likelihood head projects to the vocabulary as a language model does, for answers only.
        task = "CAUSAL_LM" if reward.head == "likelihood" else "SEQ_CLS"
        yield StagePlan(
            "reward",
            reward,
            lambda config: estimate(
                scorer, config, config.lora, config.max_tokens, workers, task, pairs
            ),
        )
    yield StagePlan(
        "ppo",
        profile.ppo,
        lambda config: estimate_round(
            config, shape, scorer, bytes_of(reward), reward.max_tokens, workers
        ),
    )


def fine_tuning(shape: Any, config: Any, workers: int) -> Estimate:
    """Needs of fine-tuning, of a teacher too."""
    # A soft prompt's few vectors cost what the smallest adapters do: all else is frozen.
    adapted = LoraConfig(rank=1) if config.soft_prompt else config.lora
    found = estimate(shape, config, adapted, config.block_tokens, workers)
    if config.distil is None:
        return found
    teacher = shape_of(config.distil.path)
    whole = config.model_copy(update={"zero_stage": 0, "activation_checkpointing": False})
    taught = estimate(teacher, whole, None, config.block_tokens, workers)  # on every GPU
    return found._replace(
        beside=taught.weights, flops_per_step=found.flops_per_step + taught.flops_per_step / 3
    )


def memory_text(found: Estimate, memory_gib: float) -> str:
    """Parameters, and what a GPU holds."""
    parts = [
        f"{name} {getattr(found, name) / GIB:.1f}"
        for name in ("weights", "gradients", "optimiser", "activations")
    ]
    if found.buckets > GIB / 20:
        parts.append(f"buckets {found.buckets / GIB:.1f}")
    if found.update > found.activations:
        parts.append(f"its step {found.update / GIB:.1f} in their place")
    if found.beside:
        parts.append(f"frozen models beside {found.beside / GIB:.1f}")
    text = (
        f"{found.parameters / 1e9:.2f} B parameters, {_count(found.trained)} trained; "
        f"{found.memory / GIB:.0f} of {memory_gib:g} GiB a GPU ({', '.join(parts)}"
    )
    if found.roll_out:
        text += (
            f"; to roll out, keys and values {found.roll_out.cache / GIB:.1f} and merged weights "
            f"{found.roll_out.merged / GIB:.1f} in place of gradients and activations"
        )
    return text + ")"


def time_text(
    stage: StagePlan,
    tokens: int,
    step_s: float,
    workers: int,
    asked: PlanConfig,
    faster: float | None,
) -> str:
    """Tokens and time of a step, and of all steps.

    Args:
        faster: how many times as fast all stages must run for the days asked for.
    """
    unit = "round" if stage.name == "ppo" else "step"
    text = f"{tokens:,} tokens a {unit} in {step_s:.3g} s, {tokens / step_s:,.0f} tokens/s"
    if faster is not None:
        text += f" ({faster * tokens / step_s:,.0f} needed)"
    if steps := stage.config.total_steps:
        text += f"; {steps:,} {unit}s in {work_text(steps * step_s, workers, asked)}"
    return text


def work_text(seconds: float, workers: int, asked: PlanConfig) -> str:
    """Time, GPU-hours and cost."""
    hours = seconds * workers / 3600
    text = f"{days(seconds)}, {hours:,.1f} GPU-hours"
    if asked.gpu_hour_price is not None:
        text += f", cost {hours * asked.gpu_hour_price:,.0f}"
    return text


def mend(stage: StagePlan, limit: float, workers: int) -> str:
    """The first settings with which a stage fits into `limit` bytes, or that none does."""
    config, made = stage.config, dict[str, Any]()
    for name, value in changes(stage):
        made[name] = value
        config = config.model_copy(update={name: value})
        found = stage.reckon(config)
        if found.memory <= limit:
            settings = " ".join(f"{stage.name}.{key}={_yaml(made[key])}" for key in made)
            return f"set {settings}, which takes {found.memory / GIB:.0f} GiB"
    return (
        f"no setting makes it fit ({found.memory / GIB:.0f} GiB with all that save memory): take "
        "larger GPUs (--gpu), shorter sequences or a smaller decoder"
    )


def changes(stage: StagePlan) -> Iterator[tuple[str, Any]]:
    """Settings that save memory, those that cost least time first."""
    size = stage.config.micro_batch_size
    while size > 1:
        size //= 2
        if stage.config.batch_size % size == 0:
            yield "micro_batch_size", size
    if not stage.config.activation_checkpointing:
        yield "activation_checkpointing", True
    whole = stage.name == "ppo" or getattr(stage.config, "soft_prompt", None) is not None
    if stage.config.zero_stage < 2:
        yield "zero_stage", 2
    if stage.config.zero_stage < 3 and not whole and not stage.config.muon_learning_rate:
        yield "zero_stage", 3
    if stage.config.offload == "none" and not stage.config.muon_learning_rate:
        yield "offload", "cpu"
    answers = getattr(stage.config, "rollouts", 0)
    while answers and answers % (2 * stage.config.batch_size) == 0:
        answers //= 2
        yield "rollouts", answers


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"
