"""The reward model: BERT, [CLS] → a score, mean squared error to the expert's score.

    L = (f(BERT([scenario; response])_[CLS]) − y)²

In: encoder (model/), instructions (scores). Out: model/. Source: [EMR-LLM 1.4, 2.2].
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from medray.common.errors import DataError
from medray.common.manifest import Artefact
from medray.common.records import ScoredResponse
from medray.common.rows import read_rows
from medray.common.storage import Storage
from medray.generation.directory import check_model_directory
from medray.training.export import export_model
from medray.training.loop import Stage, run_stage
from medray.training.optimiser import OptimiserConfig, initialise, set_learning_rate
from medray.training.sampler import IndexSampler, seed_of
from medray.training.supervised import all_reduce_sum, chunks
from medray.training.trainer import WorkersConfig, fit

logger = logging.getLogger(__name__)


class RewardConfig(OptimiserConfig):
    """Settings of the reward model; learning rate 1e-5 [EMR-LLM 2.2]."""

    base: str = ""
    """A BERT directory. Empty: the encoder of run_encoder."""
    max_tokens: int = 512
    seed: int = 0


class RewardModel:
    """Scores responses to scenarios, 0–1 as the experts' scores were scaled."""

    def __init__(self, directory: Path | str, max_tokens: int = 512, batch_size: int = 64) -> None:
        check_model_directory(Path(directory))
        self.model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.max_tokens, self.batch_size = max_tokens, batch_size

    @torch.no_grad()
    def score(self, scenarios: Sequence[str], responses: Sequence[str]) -> list[float]:
        """One score per pair, in order."""
        scores: list[float] = []
        for batch in chunks(range(len(scenarios)), self.batch_size):
            inputs = encode_pairs(
                self.tokenizer,
                [scenarios[i] for i in batch],
                [responses[i] for i in batch],
                self.max_tokens,
            )
            inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
            scores += self.model(**inputs).logits[:, 0].float().tolist()
        return scores


def encode_pairs(
    tokenizer: Any, scenarios: Sequence[str], responses: Sequence[str], max_tokens: int
) -> dict[str, Tensor]:
    """`[CLS] scenario [SEP] response [SEP]`, the scenario cut first where it is too long."""
    return dict(
        tokenizer(
            list(scenarios),
            list(responses),
            truncation="longest_first",
            max_length=max_tokens,
            padding=True,
            return_tensors="pt",
        )
    )


class _SquaredError(nn.Module):
    """The classifier with its loss, so that DeepSpeed's engine wraps both."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, targets: Tensor, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(sum of squared errors, predictions [B])."""
        predictions_B = self.model(**inputs).logits[:, 0].float()
        return ((predictions_B - targets) ** 2).sum(), predictions_B


def train_reward(
    config: RewardConfig,
    workers: WorkersConfig,
    encoder: tuple[str, str],
    instructions: tuple[str, str],
    artefact: Artefact,
) -> None:
    """Trains; the model comes to `artefact`. The pairs are the (step, key) of artefacts."""
    arguments = {
        "config": config,
        "workers": workers,
        "storage": artefact.storage.config,
        "encoder": encoder,
        "instructions": instructions,
    }
    rows = fit(_train, arguments, workers, artefact)
    before = next(row for row in rows if "before/loss" in row)
    after = next(row for row in reversed(rows) if "after/loss" in row)
    artefact.metrics |= {f"{name}_before": before[f"before/{name}"] for name in HELDOUT}
    artefact.metrics |= {f"{name}_after": after[f"after/{name}"] for name in HELDOUT}
    if not artefact.metrics["spread_after"] >= MIN_SPREAD:
        logger.warning(
            "reward: scores of held-out answers hardly differ (%.3f of the experts' spread), so "
            "PPO has nothing to learn from; lower reward.learning_rate or give more scores",
            artefact.metrics["spread_after"],
        )
    steps = [row for row in rows if "train/loss" in row]
    artefact.metrics["steps"] = len(steps)
    artefact.metrics["seconds"] = round(sum(row["time/step_s"] for row in steps), 1)


HELDOUT = ("loss", "correlation", "spread")
MIN_SPREAD = 0.05
"""Below it a model has learned the mean score and no more. Source: not given; models that learned
had 0.1 to 0.4 on the sample hospital, one that collapsed 0.001."""


def _train(arguments: dict[str, Any]) -> None:
    config: RewardConfig = arguments["config"]
    workers: WorkersConfig = arguments["workers"]
    storage = Storage(arguments["storage"])
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    base = Path(config.base) if config.base else storage.fetch(*arguments["encoder"]) / "model"
    check_model_directory(base)
    rows = list(read_rows(storage.fetch(*arguments["instructions"]) / "scores", ScoredResponse))
    train = [row for row in rows if row.split == "train"]
    heldout = [row for row in rows if row.split == "dev"]
    if not train or not heldout:
        raise DataError(
            f"the reward model needs scored responses in both splits, found {len(train)} train and "
            f"{len(heldout)} dev; look at the scores of the instructions artefact"
        )
    torch.manual_seed(config.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, problem_type="regression", dtype=torch.float32
    )
    engine = initialise(_SquaredError(model), config, world_size)
    sampler = IndexSampler(len(train), config.batch_size, config.seed)

    def batch(items: Sequence[ScoredResponse]) -> dict[str, Tensor]:
        inputs = encode_pairs(
            tokenizer,
            [row.scenario for row in items],
            [row.response for row in items],
            config.max_tokens,
        )
        inputs["targets"] = torch.tensor([row.score for row in items])
        return {name: tensor.to(engine.device) for name, tensor in inputs.items()}

    def train_step(step: int) -> dict[str, float]:
        set_learning_rate(engine, config, step)
        torch.manual_seed(seed_of(config.seed, step, rank))  # BERT's dropout
        engine.train()
        total = torch.zeros(())
        for micro in chunks(sampler.share(step, rank, world_size), config.micro_batch_size):
            loss, _ = engine(**batch([train[i] for i in micro]))
            engine.backward(loss / len(micro))
            engine.step()
            total += loss.detach().cpu()
        return {"train/loss": float(all_reduce_sum(total, engine)) / config.batch_size}

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        engine.eval()
        mine = heldout[rank::world_size]
        predictions: list[float] = []
        for micro in chunks(range(len(mine)), 4 * config.micro_batch_size):
            predictions += engine.module(**batch([mine[i] for i in micro]))[1].tolist()
        gathered: list[Any] = [None] * world_size
        dist.all_gather_object(gathered, (predictions, [row.score for row in mine]))
        guess = np.concatenate([part[0] for part in gathered])
        truth = np.concatenate([part[1] for part in gathered])
        spread = guess.std() * truth.std()
        return {
            "loss": float(((guess - truth) ** 2).mean()),
            # Pearson's r; a constant prediction explains nothing.
            "correlation": float(np.cov(guess, truth, bias=True)[0, 1] / spread) if spread else 0.0,
            "spread": float(guess.std() / truth.std()) if truth.std() else 0.0,
        }

    card = {"title": "Reward model", "base": config.base or "/".join(arguments["encoder"])}

    def export(directory: Path) -> None:
        export_model(engine, model, tokenizer, directory, card)

    run_stage(
        Stage("reward", engine, config.total_steps, train_step, evaluate, export),
        checkpoint_steps=workers.checkpoint_steps,
        log_steps=workers.log_steps,
        progress=arguments["progress"],
    )
