"""The reward model: from experts' scores, or from pairs of which the better response is known.

    regression   L = (f([scenario; response]) − y)²           BERT's [CLS]      [EMR-LLM 1.4, 2.2]
    ranking      L = −log σ(r(I, R_w) − r(I, R_l))            a decoder's last  [ClinicalGPT 2.3]

In: encoder or sft (model/), instructions (scores or preferences). Out: model/.
"""

import logging
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray.train
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from medray.common.errors import DataError
from medray.common.manifest import Artefact
from medray.common.records import PreferencePair, ScoredResponse
from medray.common.rows import read_rows
from medray.training.export import export_model
from medray.training.optimiser import initialise, set_learning_rate
from medray.training.reward.config import RewardConfig
from medray.training.reward.figures import ranking_figures, regression_figures
from medray.training.reward.model import encode
from medray.training.reward.scorer import load_scorer
from medray.training.sampler import IndexSampler, seed_of
from medray.training.stage import Stage
from medray.training.supervised import all_reduce_sum, chunks, shares
from medray.training.trainer import Inputs, fit
from medray.training.workers import WorkersConfig

logger = logging.getLogger(__name__)
Example = ScoredResponse | PreferencePair


class _SquaredError(nn.Module):
    """The classifier with its loss, so that DeepSpeed's engine wraps both."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, targets: Tensor, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(sum of squared errors, predictions [B])."""
        predictions_B = self.model(**inputs).logits[:, 0].float()
        return ((predictions_B - targets) ** 2).sum(), predictions_B


class _Ranking(nn.Module):
    """The same for pairs: the chosen responses stand first, then the rejected in their order."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(sum of −log σ(r_w − r_l), margins r_w − r_l [B])."""
        chosen_B, rejected_B = self.model(**inputs).logits[:, 0].float().chunk(2)
        margins_B = chosen_B - rejected_B
        return -F.logsigmoid(margins_B).sum(), margins_B


def train_reward(
    config: RewardConfig,
    workers: WorkersConfig,
    base: tuple[str, str],
    instructions: tuple[str, str],
    artefact: Artefact,
) -> None:
    """Trains; the model comes to `artefact`. The pairs are the (step, key) of artefacts; `base` is
    of the step that `config.parent` names."""
    rows = fit(_train, config, workers, artefact, base=base, instructions=instructions)
    before = next(row for row in rows if "before/loss" in row)
    after = next(row for row in reversed(rows) if "after/loss" in row)
    for name in (key.removeprefix("after/") for key in after if key.startswith("after/")):
        artefact.metrics |= {
            f"{name}_before": before[f"before/{name}"],
            f"{name}_after": after[f"after/{name}"],
        }
    if artefact.metrics["spread_after"] < MIN_SPREAD[config.objective]:
        logger.warning(
            "reward: scores of held-out answers hardly differ (spread %.3f), so PPO has nothing to "
            "learn from; lower reward.learning_rate or give more scores",
            artefact.metrics["spread_after"],
        )
    steps = [row for row in rows if "train/loss" in row]
    artefact.metrics["steps"] = len(steps)
    artefact.metrics["seconds"] = round(sum(row["time/step_s"] for row in steps), 1)


MIN_SPREAD = {"regression": 0.05, "ranking": 0.01}
"""Below it a model has learned the mean score and no more. Source: not given; regressions that
learned had 0.1 to 0.4 of the experts' spread on the sample hospital, one that collapsed 0.001."""


def _train(inputs: Inputs[RewardConfig]) -> None:
    config = inputs.config
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    base = Path(config.base) if config.base else inputs.fetch("base") / "model"
    train, heldout = _read(inputs.fetch("instructions"), config)
    mean = statistics.fmean(row.score for row in train) if config.objective == "regression" else 0.0
    model, tokenizer = load_scorer(base, config, mean)
    module = _SquaredError(model) if config.objective == "regression" else _Ranking(model)
    engine = initialise(module, config, world_size)
    sampler = IndexSampler(len(train), config.batch_size, config.seed)

    def batch(items: Sequence[Any]) -> dict[str, Tensor]:
        if config.objective == "regression":
            inputs = encode(
                tokenizer,
                [row.scenario for row in items],
                [row.response for row in items],
                config.max_tokens,
                answers=config.head == "likelihood",
            )
            inputs["targets"] = torch.tensor([row.score for row in items])
        else:
            inputs = encode(
                tokenizer,
                [row.prompt for row in items] * 2,
                [row.chosen for row in items] + [row.rejected for row in items],
                config.max_tokens,
                answers=config.head == "likelihood",
            )
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
        outputs: list[float] = []
        for micro in shares(len(heldout), rank, world_size, 4 * config.micro_batch_size):
            found = engine.module(**batch([heldout[i] for i in micro or [0]]))[1].tolist()
            outputs += found if micro else []
        gathered: list[Any] = [None] * world_size
        scores = [row.score for row in mine if isinstance(row, ScoredResponse)]
        dist.all_gather_object(gathered, (outputs, scores))
        guesses = [value for part, _ in gathered for value in part]
        if config.objective == "ranking":
            return ranking_figures(guesses)
        return regression_figures(guesses, [value for _, part in gathered for value in part])

    card = {"title": "Reward model", "base": config.base or inputs.name("base")}

    def export(directory: Path) -> None:
        export_model(engine, model, tokenizer, directory, card)

    inputs.run(
        Stage(
            "reward",
            engine,
            config.total_steps,
            train_step,
            evaluate,
            export,
            partial_state=config.lora is not None,
            takes_memory=("reward.micro_batch_size", "reward.max_tokens"),
        )
    )


def _read(instructions: Path, config: RewardConfig) -> tuple[list[Any], list[Any]]:
    """Training and held-out examples.

    Raises:
        DataError: if a split has none, or there is nothing to tell apart in the training split.
    """
    rows: list[Any]
    if config.objective == "regression":
        what, rows = "scored responses", list(read_rows(instructions / "scores", ScoredResponse))
    else:
        what, rows = "pairs", list(read_rows(instructions / "preferences", PreferencePair))
    train = [row for row in rows if row.split == "train"]
    heldout = [row for row in rows if row.split == "dev"]
    if not train or not heldout:
        raise DataError(
            f"the reward model needs {what} in both splits, found {len(train)} train and "
            f"{len(heldout)} dev; look at the counts of the instructions artefact"
        )
    if config.objective == "regression":
        if len({row.score for row in train}) == 1:
            raise DataError(
                f"all {len(train)} scores in the train split are {train[0].score}, from which a "
                "reward model learns nothing; look at the scale and the ratings of the export"
            )
    elif all(row.chosen == row.rejected for row in train):
        raise DataError(
            f"in all {len(train)} pairs of the train split the chosen response is the rejected "
            "one; look at the ranks of the export"
        )
    return train, heldout
