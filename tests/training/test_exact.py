"""The same steps however a batch is spread, a state is sharded and a run is broken off.

Stages are driven a step at a time, many of them on the workers of one run of Ray Train: on two,
then on one and on four, which go on from what two have saved.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import ray.train
import torch
import torch.distributed as dist
from ray import cloudpickle
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from transformers import AutoTokenizer, BertConfig, BertModel

from medray.common.manifest import Artefact
from medray.common.metrics import MetricsLog
from medray.common.storage import Storage
from medray.retrieval.training.tokenizer import train_tokenizer
from medray.training import checkpoints, pretrain, sft
from medray.training.language_model import DecoderConfig, LoraConfig
from medray.training.optimiser import OptimiserConfig
from medray.training.ppo import stage as ppo
from medray.training.ppo.config import PpoConfig
from medray.training.pretrain import PretrainConfig
from medray.training.reward import stage as reward
from medray.training.reward.config import RewardConfig
from medray.training.sft import SftConfig
from medray.training.stage import Stage
from medray.training.trainer import Inputs
from medray.training.workers import WorkersConfig, worker_environment

pytestmark = pytest.mark.cluster
STEPS, HALF = 4, 2
STEP = {
    "learning_rate": 1e-2, "warmup_steps": 0, "batch_size": 8, "micro_batch_size": 2,
    "total_steps": STEPS, "gradient_clip": 0,  # it would hide a gradient of the wrong size
}  # fmt: skip
LORA = LoraConfig(rank=4, alpha=16)
PRETRAIN = PretrainConfig(**STEP)
SFT = SftConfig(**STEP, block_tokens=64, lora=LORA)
REWARD = RewardConfig(**STEP, max_tokens=48)
SPREAD: dict[str, OptimiserConfig] = {
    "pretrain": PRETRAIN,
    "sft": SFT,
    "sft_by_example": SFT.model_copy(update={"reduction": "example"}),
    "reward": REWARD,
    "ranking": REWARD.model_copy(update={"objective": "ranking", "lora": LORA}),
    # By pairs: at the mean of all scores it learns from, the gradient of a constant is rounding
    # alone, of which Adam makes a whole step.
    "likelihood": REWARD.model_copy(
        update={"objective": "ranking", "head": "likelihood", "lora": LORA}
    ),
}
"""Whose steps do not depend on the number of workers; PPO's do, for each draws its own answers."""
PPO = PpoConfig(**STEP, rollouts=8, epochs=2, max_new_tokens=6, lora=LORA)
SHARDED = {
    "zero1": PRETRAIN.model_copy(update={"zero_stage": 1}),
    "zero3": PRETRAIN.model_copy(update={"zero_stage": 3}),
    "bf16": PRETRAIN.model_copy(update={"precision": "bf16"}),
    "offload": PRETRAIN.model_copy(update={"offload": "cpu"}),
    "critic": PPO.model_copy(update={"critic": "separate", "kl": "both"}),
}
BROKEN_OFF: dict[str, OptimiserConfig] = {**SPREAD, "ppo": PPO, **SHARDED}


@dataclass(frozen=True)
class Driven(Inputs[Any]):
    """Keeps the stage: a test drives it in place of the loop."""

    stages: list[Stage] = field(default_factory=list)

    def run(self, stage: Stage) -> None:
        self.stages.append(stage)


class Found(NamedTuple):
    """Figures of the steps taken, the weights that learn after them, and their first moments."""

    figures: list[dict[str, float]]
    weights: dict[str, np.ndarray]
    moments: dict[str, np.ndarray]


class Given(NamedTuple):
    """What every worker is given."""

    storage: Any
    decoder: DecoderConfig
    parents: dict[str, tuple[str, str]]

    def build(self, config: OptimiserConfig) -> Stage:
        """The stage of these settings at its start."""
        train: dict[type, Callable[[Any], None]] = {
            PretrainConfig: partial(pretrain._train, self.decoder),
            SftConfig: sft._train,
            RewardConfig: reward._train,
            PpoConfig: ppo._train,
        }
        parents = dict(self.parents)
        if getattr(config, "parent", "") == "encoder":
            parents["base"] = parents["encoder"]
        driven = Driven(config, WorkersConfig(use_gpu=False), self.storage, parents)
        train[type(config)](driven)
        (stage,) = driven.stages
        if isinstance(config, PpoConfig):
            stage.evaluate()  # sets what scores are normalised by
        return stage


def take_steps(stage: Stage, first: int = 0, last: int = STEPS) -> Found:
    figures = [stage.train_step(step) for step in range(first, last)]
    return Found(figures, *learnt(stage))


def learnt(stage: Stage) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights in fp32 and their first moments, gathered from all workers."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    weights, moments = {}, {}
    for name, parameter in stage.engine.module.named_parameters():
        if parameter.requires_grad:
            weights[name] = safe_get_full_fp32_param(parameter).numpy().copy()
            moments[name] = safe_get_full_optimizer_state(parameter, "exp_avg").numpy().copy()
    return weights, moments


def load(stage: Stage, config: OptimiserConfig) -> None:
    """Takes the newest checkpoint of this run."""
    with tempfile.TemporaryDirectory() as scratch:
        log = MetricsLog(Path(scratch) / checkpoints.METRICS)
        settings = config.model_dump(mode="json")
        state = checkpoints.load(stage.engine, log, settings, partial_state=stage.partial_state)
    assert state is not None and state["step"] == HALF
    stage.set_state(state["stage"])


def break_off(given: Given, config: OptimiserConfig) -> dict[str, Any]:
    """A stage that saves a checkpoint half way and goes on, and one that goes on from it."""
    first, second = given.build(config), given.build(config)
    half = take_steps(first, 0, HALF)
    with tempfile.TemporaryDirectory() as scratch:
        checkpoints.save(
            first.engine,
            {"step": HALF, "stage": first.get_state()},
            MetricsLog(Path(scratch) / checkpoints.METRICS),
            {},
            config.model_dump(mode="json"),
            partial_state=first.partial_state,
            in_background=False,
            patience_s=10,
        )
    straight = take_steps(first, HALF)
    load(second, config)
    resumed = take_steps(second, HALF)
    checkpoint = ray.train.get_checkpoint()
    assert checkpoint is not None
    return {"half": half, "straight": straight, "resumed": resumed, "path": checkpoint.path}


def go_on(given: Given, config: OptimiserConfig, path: str) -> tuple[Found, Found]:
    """What a stage has when it has read a checkpoint of other workers, and at the end."""
    with tempfile.TemporaryDirectory() as empty:
        is_first = ray.train.get_context().get_world_rank() == 0
        ray.train.report({}, checkpoint=Checkpoint(path if is_first else empty))
    dist.barrier()  # the first worker's copy is whole
    stage = given.build(config)
    load(stage, config)
    return take_steps(stage, HALF, HALF), take_steps(stage, HALF)


def on_two(given: Given) -> dict[str, Any]:
    torch.set_num_threads(1)
    return {name: break_off(given, config) for name, config in BROKEN_OFF.items()}


def on_others(given: Given, paths: dict[str, str]) -> dict[str, Any]:
    torch.set_num_threads(1)
    return {name: go_on(given, BROKEN_OFF[name], path) for name, path in paths.items()}


def in_one_pass(given: Given, paths: dict[str, str]) -> tuple[dict[str, Any], dict[str, Found]]:
    """What `on_others` returns, and the steps of stages whose batch is one pass."""
    went_on = on_others(given, paths)
    whole = {name: c.model_copy(update={"micro_batch_size": 8}) for name, c in SPREAD.items()}
    return went_on, {name: take_steps(given.build(c)) for name, c in whole.items()}


def run(num_workers: int, body: Callable[[], Any], directory: Path) -> Any:
    """What `body` returns on the first of so many workers."""
    config = WorkersConfig(num_workers=num_workers, use_gpu=False)
    trainer = TorchTrainer(
        body,
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=num_workers, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            storage_path=str(directory / f"{num_workers}"),
            worker_runtime_env={"env_vars": worker_environment(config)},
        ),
    )
    return trainer.fit().return_value


@pytest.fixture(scope="module", autouse=True)
def by_value() -> Iterator[None]:
    """Ray's workers cannot import this file."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def given(
    storage: Storage, decoder: DecoderConfig, model_dir: Path, untaught_reward: tuple[str, str]
) -> Given:
    policy = Artefact(storage, "sft", SFT, key="exact")
    (policy.dir / "model").mkdir()
    for path in model_dir.iterdir():
        (policy.dir / "model" / path.name).write_bytes(path.read_bytes())
    policy.publish()
    encoder = Artefact(storage, "encoder", SFT, key="exact")
    train_tokenizer(["呼吸气道消化泌尿血液循环不适肺炎哮喘胃炎"], 200, 64, encoder.dir / "model")
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(encoder.dir / "model")), hidden_size=32,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
        hidden_dropout_prob=0, attention_probs_dropout_prob=0,  # each worker draws its own
    )  # fmt: skip
    BertModel(shape).save_pretrained(encoder.dir / "model")
    encoder.publish()
    parents = {
        "corpus": ("corpus", "tiny"), "instructions": ("instructions", "tiny"),
        "base": ("sft", "exact"), "sft": ("sft", "exact"), "encoder": ("encoder", "exact"),
        "reward": untaught_reward,
    }  # fmt: skip
    return Given(storage.config, decoder, parents)


@pytest.fixture(scope="module")
def two(ray_cluster: None, given: Given, tmp_path_factory: Any) -> dict[str, Any]:
    return run(2, partial(on_two, given), tmp_path_factory.mktemp("ray"))


@pytest.fixture(scope="module")
def one(two: dict[str, Any], given: Given, tmp_path_factory: Any) -> Any:
    paths = {name: two[name]["path"] for name in (*SPREAD, "ppo")}
    return run(1, partial(in_one_pass, given, paths), tmp_path_factory.mktemp("ray"))


@pytest.fixture(scope="module")
def four(two: dict[str, Any], given: Given, tmp_path_factory: Any) -> Any:
    paths = {name: two[name]["path"] for name in ("sft", "ppo")}
    return run(4, partial(on_others, given, paths), tmp_path_factory.mktemp("ray"))


def is_same(one: Found, two: Found) -> bool:
    """The same figures, weights and moments, to the bit."""
    return one.figures == two.figures and all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in ((one.weights, two.weights), (one.moments, two.moments))
    )


def check_close(one: Found, two: Found) -> None:
    """The same to the rounding of sums in another order."""
    losses = [[figures["train/loss"] for figures in found.figures] for found in (one, two)]
    assert losses[0] == pytest.approx(losses[1], abs=5e-6)
    for name, value in two.moments.items():
        np.testing.assert_allclose(one.moments[name], value, rtol=0, atol=5e-6)
        # Adam divides by the gradients themselves, of which some are hardly more than rounding.
        np.testing.assert_allclose(one.weights[name], two.weights[name], rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", BROKEN_OFF)
def test_a_run_that_was_broken_off_is_the_straight_one(two: dict[str, Any], name: str) -> None:
    found = two[name]
    assert is_same(found["resumed"], found["straight"])
    assert found["straight"].weights and not is_same(found["straight"], found["half"])


def test_offloaded_states_take_the_same_steps(two: dict[str, Any]) -> None:
    check_close(two["offload"]["straight"], two["pretrain"]["straight"])


@pytest.mark.parametrize("name", SPREAD)
def test_a_batch_is_the_same_however_it_is_spread(two: dict[str, Any], one: Any, name: str) -> None:
    """On 1 worker a pass of 8, on 2 workers 2 passes of 2 each."""
    whole, (half, rest) = one[1][name], (two[name][part] for part in ("half", "straight"))
    check_close(whole, rest._replace(figures=half.figures + rest.figures))


@pytest.mark.parametrize("name", (*SPREAD, "ppo"))
def test_one_worker_goes_on_where_two_stopped(two: dict[str, Any], one: Any, name: str) -> None:
    check_went_on(*one[0][name], two[name], draws=name == "ppo")


@pytest.mark.parametrize("name", ("sft", "ppo"))
def test_four_workers_go_on_where_two_stopped(two: dict[str, Any], four: Any, name: str) -> None:
    check_went_on(*four[name], two[name], draws=name == "ppo")


def check_went_on(start: Found, end: Found, expected: dict[str, Any], *, draws: bool) -> None:
    """Args:
    draws: every worker draws samples of its own, which are others on other workers.
    """
    assert is_same(start, expected["half"]._replace(figures=[]))
    if draws:
        assert all(np.isfinite(list(figures.values())).all() for figures in end.figures)
        before = expected["half"].figures[-1]["ppo/beta"]
        beta = end.figures[0]["ppo/beta"]
        assert beta == expected["straight"].figures[0]["ppo/beta"] != before
    else:
        check_close(end, expected["straight"])
