"""What the training stages of a profile will need on GPUs: a line a stage for `medray doctor`.

In: a profile. Out: memory of a GPU by what it holds, tokens and time of a step, days and GPU-hours.
Source: `medray.training.estimate`.
"""

from collections.abc import Iterator
from typing import NamedTuple

from medray.profile import Profile
from medray.training.estimate import (
    GIB,
    GPUS,
    MFU,
    Estimate,
    Gpu,
    cache_bytes,
    days,
    estimate,
    shape_of,
)
from medray.training.language_model import LoraConfig

SPARE = 0.9
"""Share of a GPU's memory that a stage may take: the allocator and NCCL need some. Source: not
given; DeepSpeed and the CUDA context took 3 to 6 GiB on other systems."""
MEND = (
    "set activation_checkpointing: true, a smaller micro_batch_size, zero_stage: 3 (not for ppo) "
    "or offload: cpu"
)


class Line(NamedTuple):
    """What one stage needs; `fits` is False if it will not run on such a GPU."""

    stage: str
    fits: bool
    text: str


def training_plan(profile: Profile, gpu_name: str) -> Iterator[Line]:
    """Lines of pretraining, fine-tuning and PPO; one that says why if the shape is not known."""
    shape = shape_of(profile.decoder.path)
    if shape is None:
        text = f"not known: there is no config.json in {profile.decoder.path or 'decoder.path'}"
        yield Line("pretrain", True, text)
        return
    gpu, workers = GPUS[gpu_name], profile.workers.most_workers
    pretrain, sft, ppo = profile.pretrain, profile.sft, profile.ppo
    found = estimate(shape, pretrain, None, profile.corpus.block_tokens, workers)
    yield _line("pretrain", found, gpu, gpu_name, workers, pretrain.total_steps)
    # A soft prompt's few vectors cost what the smallest adapters do: all else is frozen.
    adapted = LoraConfig(rank=1) if sft.soft_prompt else sft.lora
    found = estimate(shape, sft, adapted, sft.block_tokens, workers)
    if sft.distil and (teacher := shape_of(sft.distil.path)):
        whole = estimate(teacher, sft, None, sft.block_tokens, 1).weights  # on every GPU
        found = found._replace(weights=found.weights + whole)
    yield _line("sft", found, gpu, gpu_name, workers, sft.total_steps)
    # Prompts are taken to be as long as answers; a roll-out keeps a cache, an update activations.
    length = 2 * ppo.max_new_tokens
    found = estimate(shape, ppo, ppo.lora, length, workers)
    cache = cache_bytes(shape) * length * (ppo.rollouts // workers)
    copies = 2 if ppo.critic == "separate" else 1
    found = found._replace(
        weights=found.weights * copies, activations=max(found.activations * copies, cache)
    )
    yield _line("ppo", found, gpu, gpu_name, workers, None)


def _line(
    stage: str, found: Estimate, gpu: Gpu, gpu_name: str, workers: int, steps: int | None
) -> Line:
    parts = ", ".join(
        f"{name} {getattr(found, name) / GIB:.1f}"
        for name in ("weights", "gradients", "optimiser", "activations")
    )
    text = (
        f"{found.parameters / 1e9:.2f} B parameters, {_count(found.trained)} trained; "
        f"{found.memory / GIB:.0f} of {gpu.memory_gib:g} GiB a GPU ({parts})"
    )
    if steps is not None:
        seconds = found.step_s(gpu, workers)
        text += f"; {found.tokens_per_step:,} tokens a step in {seconds:.1f} s"
        if steps:
            hours = steps * seconds * workers / 3600
            text += f", {steps:,} steps in {days(steps * seconds)}, {hours:,.0f} GPU-hours"
        text += f" (MFU {MFU} of {workers} × {gpu_name})"
    return Line(stage, found.memory <= SPARE * gpu.memory_gib * GIB, text)


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"
