"""Quality control's tasks from easy to hard, then all, against one mixture of the same rows.

Part `curriculum` of benchmarks/learning.py. Source: [MedQC 4.1.2].
"""

import json
from collections import defaultdict
from typing import Any

from learning_figures import (
    Comparison,
    Found,
    Sums,
    block_losses,
    compare,
    instructions,
    packer,
    per_token,
    value,
    verdicts,
)
from learning_run import Run

from medray.common.records import Instruction
from medray.job import Job
from medray.training.curriculum import StageConfig, rows_of_stage
from medray.training.forgetting import FILE
from medray.training.general import read_text, with_text
from medray.training.language_model import load_decoder

# Is it mentioned; what does it say; is its number below a limit. [MedQC 4.1.2] gives the easy tasks
# few epochs, the hard ones more, then all. How many is not given; chosen with the rows for some
# 400 steps, of all rows it would be 1 750.
EASY_TO_HARD = (
    ("mentions", "quality/af-*", 1.0),
    ("findings", "quality/lung-*", 1.0),
    ("numbers", "quality/pci-*", 2.0),
)
JOINT = 0.5
CURRICULUM_ROWS = 4000


def curriculum(runs: dict[int, Run]) -> Found:
    """Progressive against joint on each seed's pretrained model."""
    rows, notes = [], {}
    for seed, run in runs.items():
        found, notes[seed] = orders(run, seed)
        rows += found
    better, worse = sum(row.gain[1] > 0 for row in rows), sum(row.gain[2] < 0 for row in rows)
    return rows, [], {"progressive_better": better, "worse": worse, "of": len(rows), "seeds": notes}


def orders(run: Run, seed: int) -> tuple[list[Comparison], dict[str, Any]]:
    """Progressive (after) against joint (before): the same rows as often, in another order."""
    run.make("sample", "corpus", "instructions", "pretrain")
    most = run.job.profile.sft.max_rows or CURRICULUM_ROWS
    run = run.vary(f"sft.max_rows={min(most, CURRICULUM_ROWS)}")
    stages = [
        {"name": name, "tasks": {tasks: 1}, "epochs": epochs}
        for name, tasks, epochs in EASY_TO_HARD
    ]
    plan = {"stages": stages, "joint": {"tasks": {"*": 1}, "epochs": JOINT}}
    progressive = run.vary("sft.total_steps=0", f"sft.curriculum={json.dumps(plan)}")
    progressive.make("sft")
    steps = progressive.metrics("sft")["steps"]
    mixture = {"*": JOINT} | {tasks: epochs + JOINT for _, tasks, epochs in EASY_TO_HARD}
    size = num_blocks(run.job, StageConfig(tasks=mixture, epochs=1))
    # Rounded up, these are as many steps.
    epochs = (steps * run.job.profile.sft.batch_size - 0.5) / size
    plan = {"stages": [{"name": "joint", "tasks": mixture, "epochs": epochs}]}
    joint = run.vary("sft.total_steps=0", f"sft.curriculum={json.dumps(plan)}")
    joint.make("sft")
    if joint.metrics("sft")["steps"] != steps:
        raise RuntimeError(f"joint took {joint.metrics('sft')['steps']} steps, progressive {steps}")
    sides = {"pretrained": (run, "pretrain"), "joint": (joint, "sft")}
    sides |= {"progressive": (progressive, "sft")}
    losses, judged = {}, {}
    for name, (of, step) in sides.items():
        losses[name] = of.once(quality_losses, step)
        judged[name] = verdicts(of.job, step)
    label = ("curriculum", seed, "sft")
    rows = [
        compare((*label, f"held-out loss, {name}"), *map(per_token, pair), rises=False)
        for name in losses["joint"]
        for pair in [(losses["joint"][name], losses["progressive"][name])]
    ]
    records = (judged[side]["records"] for side in ("joint", "progressive"))
    rows.append(compare((*label, "sub-tasks judged rightly"), *records))
    return rows, {
        "pretrained_loss": {k: value(per_token(v))[0] for k, v in losses["pretrained"].items()},
        "balanced_accuracy": {name: found["balanced"] for name, found in judged.items()},
        "joint": {name: joint.metrics("sft")[name] for name in ("steps", "tokens")},
        "progressive": {name: progressive.metrics("sft")[name] for name in ("steps", "tokens")},
        "losses": json.loads((progressive.job.path("sft") / FILE).read_text(encoding="utf-8")),
    }


def num_blocks(job: Job, stage: StageConfig) -> int:
    """Blocks that one pass over a stage of a curriculum takes, replayed text among them."""
    config = job.profile.sft
    train = instructions(job, "train")[: config.max_rows]
    tokenizer = load_decoder(job.path("pretrain") / "model")[1]
    pack = packer(job, tokenizer)
    blocks = pack.pack(rows_of_stage(stage, train), stage.name)
    if config.text_fraction:
        text = read_text(job.path("corpus") / "blocks", config.block_tokens, pack.pad)
        blocks = with_text(blocks, text, config.text_fraction, config.seed)
    return len(blocks)


def quality_losses(job: Job, step: str) -> dict[str, Sums]:
    """Indicator → held-out answers of its sub-tasks, by the model of `step`."""
    by_indicator: dict[str, list[Instruction]] = defaultdict(list)
    for row in instructions(job, "dev"):
        if row.task == "quality":
            by_indicator[row.group.partition("/")[0]].append(row)
    model, tokenizer = load_decoder(job.path(step) / "model")
    pack = packer(job, tokenizer).pack
    return {
        name: block_losses(model, pack(rows, name)) for name, rows in sorted(by_indicator.items())
    }
