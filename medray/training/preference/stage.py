"""Learning from preferences by TRL: no value head, and for two of the methods no reward model.

    DPO          −log σ(β log(π/π_SFT)(chosen) − β log(π/π_SFT)(rejected))      pairs
    KTO          each answer by itself, wanted or not, against a KL baseline     pairs, taken apart
    GRPO, RLOO   answers drawn in groups; each is worth its reward less the      prompts, reward
                 others' mean, GRPO's by their spread

The reference is the same model with its adapter off, or, without LoRA, a frozen copy. Every worker
holds whole weights (PyTorch's DistributedDataParallel); sharded training of all weights is what the
other stages do. In: sft (model/), instructions, and reward for the last two. Out: model/.
Source: Rafailov et al. 2023; Ethayarajh et al. 2024; Shao et al. 2024; Ahmadian et al. 2024. Not in
the papers, which use PPO.
"""

import logging
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import ray.train
import torch

from medray.common.errors import DataError
from medray.common.manifest import Artefact
from medray.common.metrics import MetricsLog
from medray.common.records import PreferencePair, Scenario
from medray.common.rows import read_rows
from medray.training.checkpoints import METRICS, MODEL, check_settings
from medray.training.export import write_model
from medray.training.language_model import add_lora, check_length, load_decoder
from medray.training.preference.config import PreferenceConfig
from medray.training.preference.report import Report
from medray.training.reward.model import RewardModel
from medray.training.trainer import Inputs, fit
from medray.training.workers import WorkersConfig

logger = logging.getLogger(__name__)


def train_preference(
    config: PreferenceConfig,
    workers: WorkersConfig,
    sft: tuple[str, str],
    reward: tuple[str, str] | None,
    instructions: tuple[str, str],
    artefact: Artefact,
) -> None:
    """Trains; the model comes to `artefact`. The pairs are the (step, key) of artefacts; `reward`
    is for GRPO and RLOO."""
    parents = {"sft": sft, "instructions": instructions}
    if reward is not None:
        parents["reward"] = reward
    rows = fit(_train, config, workers, artefact, **parents)
    before = next(row for row in rows if "before/loss" in row)
    after = next(row for row in reversed(rows) if "after/loss" in row)
    for name in ("loss", "rewards/accuracies", "rewards/margins", "reward", "kl"):
        for moment, row in (("before", before), ("after", after)):
            if f"{moment}/{name}" in row:
                key = name.replace("/", "_")
                artefact.metrics[f"{key}_{moment}"] = row[f"{moment}/{name}"]
    artefact.metrics["steps"] = config.total_steps


def _train(inputs: Inputs[PreferenceConfig]) -> None:
    config = inputs.config
    torch.manual_seed(config.seed)
    model, tokenizer = load_decoder(inputs.fetch("sft") / "model")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.lora is not None:
        model = add_lora(model, config.lora, config.seed)
    check_length(model, config.max_tokens, "preference.max_tokens")
    train, heldout = _data(inputs)
    with tempfile.TemporaryDirectory(prefix="medray-preference-") as scratch:
        _learn(inputs, model, tokenizer, train, heldout, Path(scratch))


def _learn(
    inputs: Inputs[PreferenceConfig],
    model: Any,
    tokenizer: Any,
    train: Any,
    heldout: Any,
    scratch: Path,
) -> None:
    config = inputs.config
    log = MetricsLog(scratch / METRICS)
    settings = config.model_dump(mode="json")
    report = Report(log, settings, scratch, inputs)
    trainer = _build_trainer(inputs, model, tokenizer, train, heldout, scratch, report)
    final = scratch / "final"
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        # Not by evaluate() beforehand: the trainer would then train each worker by itself.
        trainer.args.eval_on_start = True
        trainer.train()
    else:
        with checkpoint.as_directory() as directory:
            check_settings(Path(directory), settings)
            if report.is_first:
                log.path.write_bytes((Path(directory) / METRICS).read_bytes())
            if (Path(directory) / MODEL).exists():  # it died after the end, before it was published
                shutil.copytree(Path(directory) / MODEL, final / MODEL)
                report.hand_over(final, {"step": config.total_steps})
                return
            trainer.train(resume_from_checkpoint=directory)
    report.note(config.total_steps, trainer.evaluate(), "after/")
    final.mkdir()
    if report.is_first:
        card = {"title": f"Policy after {config.method.upper()}", "base": inputs.name("sft")}
        write_model(trainer.accelerator.unwrap_model(trainer.model), tokenizer, final / MODEL, card)
    report.hand_over(final, {"step": config.total_steps})


def _data(inputs: Inputs[PreferenceConfig]) -> tuple[Any, Any]:
    """Training and held-out examples, as TRL wants them."""
    from datasets import Dataset

    config, instructions = inputs.config, inputs.fetch("instructions")
    rows: list[tuple[str, dict[str, Any]]]
    if config.needs_reward:
        what = "prompts"
        prompts = read_rows(instructions / "prompts", Scenario)
        rows = [(row.split, {"prompt": _turn("user", row.prompt)}) for row in prompts]
    else:
        what = "pairs"
        rows = []
        for row in read_rows(instructions / "preferences", PreferencePair):
            prompt = {"prompt": _turn("user", row.prompt)}
            chosen, rejected = _turn("assistant", row.chosen), _turn("assistant", row.rejected)
            if config.method == "dpo":
                rows.append((row.split, prompt | {"chosen": chosen, "rejected": rejected}))
            else:
                rows.append((row.split, prompt | {"completion": chosen, "label": True}))
                rows.append((row.split, prompt | {"completion": rejected, "label": False}))
    # TRL takes KTO's rows in their order, and its KL baseline sets each answer beside the next
    # prompt, which must not be its own.
    random.Random(config.seed).shuffle(rows)
    train = [row for split, row in rows if split == "train"]
    heldout = [row for split, row in rows if split == "dev"][: config.num_heldout]
    if not train or not heldout:
        raise DataError(
            f"{config.method} needs {what} in both splits, found {len(train)} train and "
            f"{len(heldout)} dev; look at the counts of the instructions artefact"
        )
    return Dataset.from_list(train), Dataset.from_list(heldout)


def _turn(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def _build_trainer(
    inputs: Inputs[PreferenceConfig],
    model: Any,
    tokenizer: Any,
    train: Any,
    heldout: Any,
    scratch: Path,
    report: Report,
) -> Any:
    """TRL's trainer of the method, with our optimiser and schedule."""
    import trl as package

    trl: Any = package  # its names are loaded when they are asked for
    config, workers = inputs.config, inputs.workers
    world_size = ray.train.get_context().get_world_size()
    adamw = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
    )
    same: dict[str, Any] = {
        "output_dir": str(scratch / "checkpoints"),
        "per_device_train_batch_size": config.micro_batch_size,
        "per_device_eval_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": config.accumulation(world_size),
        "max_steps": config.total_steps,
        "max_grad_norm": config.gradient_clip,
        "bf16": config.precision == "bf16",
        "gradient_checkpointing": config.activation_checkpointing,
        "beta": config.beta,
        "seed": config.seed,
        "use_cpu": not workers.use_gpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_steps": workers.checkpoint_steps,
        "save_total_limit": 1,
        "save_on_each_node": True,
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
    }
    given: dict[str, Any] = {
        "model": model,
        "train_dataset": train,
        "eval_dataset": heldout,
        "processing_class": tokenizer,
        "callbacks": [report],
        "optimizers": (adamw, torch.optim.lr_scheduler.LambdaLR(adamw, config.schedule_at)),
    }
    if config.method == "dpo":
        return trl.DPOTrainer(args=trl.DPOConfig(**same, max_length=config.max_tokens), **given)
    if config.method == "kto":
        return trl.KTOTrainer(args=trl.KTOConfig(**same, max_length=config.max_tokens), **given)
    same |= {
        "per_device_eval_batch_size": config.num_generations,  # whole groups
        "num_generations": config.num_generations,
        "max_completion_length": config.max_new_tokens,
        "temperature": config.temperature,
    }
    reward_model = RewardModel(inputs.fetch("reward") / "model")

    def reward(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        return reward_model.score(
            [prompt[-1]["content"] for prompt in prompts],
            [completion[-1]["content"] for completion in completions],
        )

    if config.method == "grpo":
        trainer = trl.GRPOTrainer(args=trl.GRPOConfig(**same), reward_funcs=reward, **given)
    else:
        trainer = trl.RLOOTrainer(args=trl.RLOOConfig(**same), reward_funcs=reward, **given)
    reward_model.model.to(trainer.accelerator.device)
    return trainer
