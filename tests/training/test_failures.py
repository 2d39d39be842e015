"""What a stage ends at, and with which words: numbers that are none, want of memory, mistakes."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from medray.common.errors import (
    ConfigError,
    DataError,
    MedrayError,
    ServiceError,
    StorageError,
)
from medray.training.failures import (
    EndAtMistakes,
    OutOfMemoryError,
    explaining_memory,
    is_want_of_memory,
)
from medray.training.guarded import guarded_step, measured
from medray.training.optimiser import OptimiserConfig, initialise
from medray.training.stage import Stage
from medray.training.workers import WorkersConfig

NAN = float("nan")


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory) -> Iterator[None]:
    """A process group of this process alone, for DeepSpeed."""
    meeting = tmp_path_factory.mktemp("group") / "init"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_RANK", "0")
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
        yield
        dist.destroy_process_group()


class Squares(nn.Module):
    """Σ w² + Σ v², of a matrix and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(4, 4))
        self.vector = nn.Parameter(torch.ones(4))

    def forward(self) -> torch.Tensor:
        return (self.matrix**2).sum() + (self.vector**2).sum()


def stage_of(
    engine: Any, train_step: Callable[[int], dict[str, float]], figures: float = 0.0, **more: Any
) -> Stage:
    return Stage(
        "sft", engine, 9, train_step, lambda: {"loss": figures}, lambda directory: None, **more
    )


NO_ENGINE = SimpleNamespace(skipped_steps=0)
OPTIMISERS: list[dict[str, Any]] = [
    *({"zero_stage": stage} for stage in range(4)),
    *({"zero_stage": stage, "precision": "bf16"} for stage in range(4)),
    {"zero_stage": 0, "gradient_clip": 0},
    {"zero_stage": 1, "gradient_clip": 0},
    *({"zero_stage": s, "gradient_clip": 0, "muon_learning_rate": 0.1} for s in range(3)),
]


@pytest.mark.parametrize(
    "settings", OPTIMISERS, ids=lambda s: "-".join(f"{k}={v}" for k, v in s.items())
)
def test_broken_gradients_of_a_sound_loss_end_the_stage_and_leave_the_weights(
    one_worker: None, settings: dict[str, Any]
) -> None:
    import deepspeed

    config = OptimiserConfig(
        learning_rate=0.5, warmup_steps=0, batch_size=1, micro_batch_size=1, total_steps=9,
        **settings,
    )  # fmt: skip
    module = Squares()
    engine = initialise(module, config, 1)

    def weights() -> torch.Tensor:
        with deepspeed.zero.GatheredParameters(list(module.parameters())):
            return torch.cat([p.detach().float().flatten() for p in module.parameters()])

    def train_step(step: int) -> dict[str, float]:
        loss = engine()
        if step == 1:  # √0 is 0 and its slope is not finite
            loss = loss + (0 * loss).sqrt()
        engine.backward(loss)
        engine.step()
        return {"train/loss": loss.item()}

    stage = stage_of(engine, train_step)
    start = weights()
    assert guarded_step(stage, 0)["train/loss"] == 20
    first = weights()
    assert (start - first).abs().min() > 1e-3
    with pytest.raises(MedrayError, match="sft stopped at step 2: a gradient is not finite"):
        guarded_step(stage, 1)
    assert torch.equal(weights(), first)


def test_figures_that_are_no_numbers_end_the_stage() -> None:
    end = (
        "is not finite; nothing of it was saved; lower sft.learning_rate, raise sft.warmup_steps, "
        "or look at the data and at the model it starts from"
    )
    step = stage_of(NO_ENGINE, lambda step: {"train/loss": NAN, "train/tokens": 3.0})
    with pytest.raises(MedrayError) as raised:
        guarded_step(step, 4)
    assert str(raised.value) == f"sft stopped at step 5: train/loss {end}"
    with pytest.raises(MedrayError) as raised:
        measured(stage_of(NO_ENGINE, lambda step: {}, figures=float("inf")), 7)
    assert str(raised.value) == f"sft stopped when it was measured after step 7: loss {end}"


def want_memory(step: int = 0) -> Any:
    return torch.empty(2**60)


def test_want_of_memory_says_what_to_change() -> None:
    ppo = stage_of(
        NO_ENGINE, want_memory, takes_memory=("ppo.micro_batch_size", "ppo.rollouts", "ppo.x")
    )
    ppo.name, ppo.evaluate = "ppo", want_memory
    doctor = "; `medray doctor --profile` tells what a stage needs"
    with pytest.raises(OutOfMemoryError) as raised:
        guarded_step(ppo, 1)
    assert str(raised.value) == (
        "ppo ran out of memory in step 2: lower ppo.micro_batch_size, ppo.rollouts or ppo.x, set "
        f"ppo.activation_checkpointing to true, or raise ppo.zero_stage{doctor}"
    )
    with pytest.raises(OutOfMemoryError) as raised:
        measured(ppo, 3)
    assert str(raised.value) == (
        "ppo ran out of memory as it was measured after step 3: lower ppo.micro_batch_size, "
        f"ppo.rollouts or ppo.x{doctor}"
    )


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (KeyError("out of memory"), False),
    ],
)
def test_other_errors_are_not_taken_for_want_of_memory(error: Exception, is_memory: bool) -> None:
    assert is_want_of_memory(error) == is_memory
    expected = OutOfMemoryError if is_memory else type(error)
    with pytest.raises(expected), explaining_memory("sft", "in step 1", "lower it"):
        raise error


def test_mistakes_end_a_stage_and_what_may_pass_is_tried_again() -> None:
    callback = EndAtMistakes()
    wrapped = RuntimeError("worker 1")
    wrapped._base_exc = DataError("no rows")  # type: ignore[attr-defined]  # as Ray Train has it
    for error in (ConfigError("a"), MedrayError("nan"), wrapped):
        with pytest.raises(MedrayError):
            callback.after_exception(None, {0: KeyError("b"), 1: error})
    for error in (KeyError("c"), StorageError("d"), ServiceError("e"), OutOfMemoryError("step 3")):
        callback.after_exception(None, {1: error})
    callback.after_exception(None, {0: OutOfMemoryError("step 9")})
    with pytest.raises(OutOfMemoryError, match="step 3"):
        callback.after_exception(None, {0: OutOfMemoryError("step 3")})


@pytest.mark.parametrize(("pair", "expected"), [(4, [4]), ((2, 4), [2, 3, 4])])
def test_every_number_of_workers_of_a_pair_is_possible(pair: Any, expected: list[int]) -> None:
    workers = WorkersConfig(num_workers=pair)
    assert list(workers.possible_workers) == expected
    assert workers.most_workers == 4


@pytest.mark.parametrize("number", [0, (0, 2), (4, 2)])
def test_no_workers_are_refused(number: Any) -> None:
    with pytest.raises(ConfigError, match=r"num_workers is a number from 1, or a pair .* got"):
        WorkersConfig.parse({"num_workers": number}, "test")
