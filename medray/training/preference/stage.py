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
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray.train
import torch

from medray.common.manifest import Artefact
from medray.common.metrics import MetricsLog
from medray.common.scratch import scratch_directory
from medray.training.checkpoints import METRICS, MODEL, check_settings
from medray.training.export import write_model
from medray.training.failures import explaining_memory
from medray.training.language_model import add_lora, load_decoder
from medray.training.preference.config import PreferenceConfig
from medray.training.preference.data import Examples, read_examples
from medray.training.preference.report import NAME, Report, named
from medray.training.reward.model import RewardModel
from medray.training.trainer import Inputs, fit
from medray.training.watching import check_packages, open_sinks
from medray.training.workers import WorkersConfig


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
    steps = [row for row in rows if "train/loss" in row]
    artefact.metrics |= {
        "steps": len(steps),
        "seconds": round(sum(row["time/step_s"] for row in steps), 1),
    }


def _train(inputs: Inputs[PreferenceConfig]) -> None:
    config = inputs.config
    check_packages(inputs.workers.watch)
    logging.getLogger("trl").setLevel(logging.ERROR)  # a warning of it quotes the end of a prompt
    torch.manual_seed(config.seed)
    model, tokenizer = load_decoder(inputs.fetch("sft") / "model")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.lora is not None:
        model = add_lora(model, config.lora, config.seed)
    train, heldout = read_examples(config, inputs.fetch("instructions"), model, tokenizer)
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_directory())
        checkpoint = ray.train.get_checkpoint()
        start = None
        if checkpoint is not None:
            start = Path(stack.enter_context(checkpoint.as_directory()))
            check_settings(start, config.model_dump(mode="json"))
        report = _open_report(inputs, scratch, start, stack)
        final = scratch / "final"
        if start is not None and (start / MODEL).exists():
            # It died after the end, before it was published.
            shutil.copytree(start / MODEL, final / MODEL)
        else:
            trainer = _build_trainer(inputs, model, tokenizer, train, heldout, report)
            _learn(config, trainer, report, start)
            final.mkdir()
            if report.is_first:
                card = {
                    "title": f"Policy after {config.method.upper()}",
                    "base": inputs.name("sft"),
                }
                policy = trainer.accelerator.unwrap_model(trainer.model)
                write_model(policy, tokenizer, final / MODEL, card)
        report.hand_over(final, {"step": config.total_steps})


def _open_report(
    inputs: Inputs[PreferenceConfig], scratch: Path, start: Path | None, stack: ExitStack
) -> Report:
    """The report of a run that goes on from the checkpoint in `start`, if there is one; `stack`
    closes its sinks."""
    log, sinks, context = MetricsLog(scratch / METRICS), [], ray.train.get_context()
    if context.get_world_rank() == 0:
        if start is not None:
            log.path.write_bytes((start / METRICS).read_bytes())
        rows = log.read()
        first_step = rows[-1]["step"] if rows else 0
        size = context.get_world_size()
        watched = open_sinks(inputs.workers.watch, NAME, inputs.run_key, first_step, size)
        sinks = stack.enter_context(watched)
    return Report(log, sinks, scratch, inputs)


def _learn(config: PreferenceConfig, trainer: Any, report: Report, start: Path | None) -> None:
    """Measures, trains, measures again.

    Raises:
        OutOfMemoryError: with what to change, for want of memory.
    """
    # Not by evaluate() beforehand: the trainer would then train each worker by itself.
    trainer.args.eval_on_start = start is None
    with explaining_memory("preference", "in training", lower(config)):
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
        report.note(config.total_steps, named(trainer.evaluate(), "after/"))


def lower(config: PreferenceConfig) -> str:
    """What to change in the settings for less memory."""
    sizes = ("micro_batch_size", "max_tokens")
    if config.needs_reward:
        sizes = ("micro_batch_size", "max_new_tokens", "num_generations")
    hint = "lower " + " or ".join(f"preference.{size}" for size in sizes)
    if not config.activation_checkpointing:
        hint += ", set preference.activation_checkpointing to true"
    if config.lora is None:
        hint += ", set preference.lora, which does without a copy of the model as the reference"
    return hint


def _build_trainer(
    inputs: Inputs[PreferenceConfig],
    model: Any,
    tokenizer: Any,
    train: Examples,
    heldout: Examples,
    report: Report,
) -> Any:
    """TRL's trainer of the method, with our optimiser and schedule."""
    import trl as package
    from datasets import Dataset

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
        "output_dir": str(report.scratch / "checkpoints"),
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
        "train_dataset": Dataset.from_list(train),
        "eval_dataset": Dataset.from_list(heldout),
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
