"""Rounds of PPO on two workers of Ray Train, with what went into each pass and came out of it."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ray import cloudpickle
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from medray.common.records import Scenario
from medray.common.rows import read_rows
from medray.common.storage import Storage
from medray.training.language_model import load_decoder
from medray.training.ppo.config import PpoConfig
from medray.training.ppo.learner import PpoLearner
from medray.training.reward.model import RewardModel
from medray.training.workers import WorkersConfig, worker_environment

Play = Callable[[list[PpoConfig], int], list[list[Any]]]


def rows_of(experience: Any) -> list[tuple[Any, ...]]:
    """(tokens, score, log-probabilities, those of the reference, values) of each answer."""
    rows = []
    for b in range(len(experience)):
        A = int(experience.mask_BA[b].sum())
        T = int(experience.attention_BT[b].sum())
        arrays = (
            getattr(experience, name)[b, :A].double().numpy().copy()
            for name in ("logprobs_BA", "reference_BA", "values_BA")
        )
        tokens = tuple(experience.tokens_BT[b, :T].tolist())
        rows.append((tokens, float(experience.scores_B[b]), *arrays))
    return rows


def watch(learner: PpoLearner) -> tuple[list[Any], list[Any]]:
    """Two lists that fill up: the answers of each roll-out; of each pass of training the
    (tokens, log-probabilities, values) of its answers, and the loss that went backward."""
    rolled: list[Any] = []
    passes: list[Any] = []
    seen: list[Any] = []
    roll_out, backward = learner.actor.roll_out, learner.engine.backward

    def noted_roll_out(*given: Any, **named: Any) -> Any:
        experience = roll_out(*given, **named)
        rolled.append(rows_of(experience))
        return experience

    def note_pass(_: Any, inputs: Any, outputs: Any) -> None:
        if torch.is_grad_enabled():
            (tokens_BT, attention_BT, _), (logprobs_BA, values_BA) = inputs, outputs
            for b, length in enumerate(attention_BT.sum(-1).tolist()):
                arrays = (x[b].detach().double().numpy() for x in (logprobs_BA, values_BA))
                seen.append((tuple(tokens_BT[b, :length].tolist()), *arrays))

    def noted_backward(loss: torch.Tensor, *given: Any, **named: Any) -> Any:
        passes.append((list(seen), float(loss)))
        seen.clear()
        return backward(loss, *given, **named)

    learner.actor.roll_out = noted_roll_out
    learner.engine.backward = noted_backward
    learner.engine.module.register_forward_hook(note_pass)
    return rolled, passes


def play(given: dict[str, Any], config: PpoConfig) -> tuple[Any, list[Any], dict[str, Any]]:
    """On a worker: its held-out answers, (answers, passes, figures) of each round, the weights."""
    model, tokenizer = load_decoder(given["model"])
    # Every sixth token ends an answer, so that their lengths differ.
    model.generation_config.eos_token_id = list(range(0, len(tokenizer), 6))
    scorer = RewardModel(given["reward"])
    learner = PpoLearner(config, model, tokenizer, scorer, given["prompts"], Path())
    rolled, passes = watch(learner)
    learner.evaluate()
    rounds = []
    for step in range(given["rounds"]):
        passes.clear()
        figures = learner.round(step)
        rounds.append((rolled[-1], list(passes), figures))
    named = learner.engine.module.named_parameters()
    weights = {name: p.detach().numpy().copy() for name, p in named if p.requires_grad}
    return rolled[0], rounds, weights


def play_all(given: dict[str, Any]) -> list[list[Any]]:
    """What `play` returns on each worker, for each of the settings."""
    torch.set_num_threads(1)
    found = []
    for config in given["settings"]:
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, play(given, config))
        found.append(parts)
    return found


@pytest.fixture(scope="session")
def play_rounds(
    ray_cluster: None,
    storage: Storage,
    model_dir: Path,
    untaught_reward: tuple[str, str],
    tmp_path_factory: Any,
) -> Play:
    """A function of settings and a number of rounds, which returns what `play_all` does."""
    given = {
        "model": model_dir, "reward": storage.fetch(*untaught_reward) / "model",
        "prompts": list(read_rows(storage.fetch("instructions", "tiny") / "prompts", Scenario)),
    }  # fmt: skip
    workers = WorkersConfig(num_workers=2, use_gpu=False)

    def run(settings: list[PpoConfig], rounds: int) -> list[list[Any]]:
        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
        try:
            trainer = TorchTrainer(
                partial(play_all, given | {"settings": settings, "rounds": rounds}),
                torch_config=TorchConfig(backend="gloo"),
                scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
                run_config=RunConfig(
                    storage_path=str(tmp_path_factory.mktemp("ray")),
                    worker_runtime_env={"env_vars": worker_environment(workers)},
                ),
            )
            return trainer.fit().return_value
        finally:
            cloudpickle.unregister_pickle_by_value(sys.modules[__name__])

    return run
