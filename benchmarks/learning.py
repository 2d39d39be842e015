"""What each stage learns, seed by seed, on the sample hospital and on real sets.

sample      the pipeline: each stage's held-out figure before and after it, what a trivial guess
            reaches, the ceiling where the generator knows it; KL and diagnosis under PPO; what
            each stage does to the scores of all tasks.
curriculum  from each seed's pretrained model: quality control's tasks from easy to hard, then all
            tasks (after), against one mixture of the same rows, as often and for as many steps
            (before).
real        with --data: pretraining, fine-tuning and reward of the profile `public`.

Intervals (95 %) are over held-out items within a seed, never over seeds. A comparison counts if the
intervals before and after do not overlap; the paired difference, which is narrower, stands beside
it. --work DIR keeps artefacts and measurements: a call that was ended goes on.
Source: EVALUATION.md 1; [MedQC 4.1.2] for the order of tasks.
"""

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import learning_figures as figures
from frame import print_result
from learning_curriculum import curriculum
from learning_figures import Comparison, Found, compare, line, per_token, value
from learning_run import Run, say
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from medray.evaluation.bootstrap import paired_difference
from medray.evaluation.table import Line, format_table
from medray.launch import set_environment
from medray.sample.consult import SCORE_NOISE

MODELS = ("pretrain", "sft", "ppo")
SEEDED = ("pretrain", "encoder", "sft", "reward", "ppo")
LEARNT = ("corpus", "instructions", "pretrain", "sft")
# Task → (figure of the evaluation, what it is at most).
TASKS = {
    "diagnosis": ("diagnosis_accuracy", 1),
    "exam": ("exam_accuracy", 1),
    "right quote": ("grounded_right_quote", 1),
    "right quote, not guided": ("grounded_unguided_quote", 1),
    "exchanged fact followed": ("fact_swap_followed", 1),
    "treatment, ROUGE-L": ("rouge_l/treatment", 1),
    "differential, ROUGE-L": ("rouge_l/differential", 1),
    "consultation, true score": ("true_score", 10),
}
TOLERATED = -0.02
# Of the experts' scores, in points of 10: their spread, and that of rounding to half points.
FLOOR = (SCORE_NOISE**2 + 0.5**2 / 12) / 10**2
_QUICK = """
sample.num_records=150 min_free_disk_gb=0.5 corpus.tokenizer.vocab_size=1500
decoder.hidden_size=32 decoder.num_layers=2 decoder.num_heads=1 decoder.head_dim=32
decoder.intermediate_size=64 pretrain.total_steps=20 pretrain.warmup_steps=2 sft.total_steps=3
sft.warmup_steps=1 sft.max_rows=300 sft.num_heldout=60 encoder.num_layers=1 encoder.hidden_size=32
encoder.num_heads=2 encoder.mlm.steps=3 encoder.contrastive.steps=3 reward.total_steps=6
reward.warmup_steps=1 ppo.total_steps=1 ppo.rollouts=8 ppo.batch_size=8 ppo.micro_batch_size=4
ppo.max_new_tokens=8 ppo.num_heldout=4 ppo.replay.max_rows=100 quality.max_records=6
evaluation.max_diagnoses=20 evaluation.max_texts=2 evaluation.max_scenarios=8
evaluation.max_questions=8 evaluation.max_grounded=4 evaluation.max_loss_records=8
evaluation.baseline_iterations=5 evaluation.diagnosis_tokens=8 evaluation.answer_tokens=16
instructions.sampling.instruction.max_rows=300 instructions.sampling.instruction.max_dev_rows=40
"""
QUICK = _QUICK.split()


def sample(runs: dict[int, Run]) -> Found:
    """The pipeline of each seed."""
    rows, lines, ppo, scores, losses = [], [], {}, {}, {}
    for seed, run in runs.items():
        run.make("evaluation", job="run_pipeline")
        rows += [*learnt(run, "sample", seed), *policy(run, seed)]
        losses[seed], scores[seed] = run.losses(), task_scores(run)
        texts = {step: run.once(figures.text_losses, step) for step in MODELS}
        losses[seed]["text"] = {step: value(per_token(*found))[0] for step, found in texts.items()}
        shown = " → ".join(f"{loss:.3f}" for loss in losses[seed]["text"].values())
        lines.append(Line("text", f"seed {seed}: nats a token of {', '.join(texts)}", None, shown))
        right = [run.evaluated(model)[1]["diagnosis_accuracy"] for model in ("sft", "ppo")]
        change = paired_difference(right[0], right[1])
        ppo[seed] = run.metrics("ppo") | {"diagnosis": change[:3]}
        kl, most = ppo[seed]["kl"], ppo[seed]["kl_target"]
        shown = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*change[:3])
        lines += [
            Line("PPO", f"seed {seed}: KL", kl, f"{kl:.3f}", f"< {most}", kl < most),
            Line("PPO", f"seed {seed}: diagnosis", None, shown, "≥ -0.010", change[0] >= -0.01),
        ]
    moved = list(changes(list(scores.values())))
    for row in moved:
        shown = f"{row['mean']:+.3f} ({', '.join(f'{change:+.3f}' for change in row['seeds'])})"
        shown += f"; intervals apart in {row['seeds_clearly_lower']}"
        name = f"{row['task']}, after {row['stage']}"
        lines.append(Line("tasks", name, None, shown, f"≥ {TOLERATED:.3f}", not row["falls"]))
    return rows, lines, {"ppo": ppo, "scores": scores, "changes": moved, "losses": losses}


def real(runs: dict[int, Run]) -> Found:
    """The real sets; corpus and instructions are the same for all seeds."""
    rows, losses = [], {}
    for seed, run in runs.items():
        run.make(*LEARNT, run.job.profile.reward.parent, "reward")
        rows += learnt(run, "real", seed)
        losses[seed] = run.losses()
    return rows, [], {"losses": losses}


def learnt(run: Run, part: str, seed: int) -> list[Comparison]:
    """Pretraining, fine-tuning and reward, before and after."""
    is_sample = part == "sample"
    known = run.metrics("evaluation") if is_sample else {}
    # Both are of the records that the evaluation asks, a part of these blocks.
    unigram, bound = (known.get(f"{name}/record_nats_per_token") for name in ("unigram", "bound"))
    rows = []
    for step, measure, bounds in (
        ("pretrain", figures.pretrain_losses, {"trivial": unigram, "ceiling": bound}),
        ("sft", figures.sft_losses, {}),
    ):
        a, b = (per_token(*side) for side in run.once(measure, step))
        # Another loss than the stage's own would be of another model or other data.
        for items, when in ((a, "before"), (b, "after")):
            ours, theirs = value(items)[0], run.metrics(step)[f"loss_{when}"]
            if abs(ours - theirs) > 2e-3 * theirs:
                raise RuntimeError(f"{step}: loss {when} is {ours:.4f}, its stage had {theirs:.4f}")
        label = (part, seed, step, "held-out loss, nats a token")
        rows.append(compare(label, a, b, rises=False, **bounds))
    found = run.once(figures.reward_scores, "reward")
    label = (part, seed, "reward", "held-out pairs in the right order")
    top = 1.0 if is_sample else None  # the generator orders its pairs by the true score
    rows.append(compare(label, *found["right"], trivial=0.5, ceiling=top))
    if run.job.profile.reward.objective == "regression":  # else it is of no scale
        label = (part, seed, "reward", "squared error of held-out scores")
        bounds = {"trivial": found["constant"], "ceiling": FLOOR if is_sample else None}
        rows.append(compare(label, *found["errors"], rises=False, **bounds))
    return rows


def policy(run: Run, seed: int) -> list[Comparison]:
    """Greedy answers to scenarios of new patients before and after PPO."""
    sft, ppo = (run.once(figures.worth, step) for step in ("sft", "ppo"))
    return [
        compare(("sample", seed, "ppo", name), sft[name], ppo[name], ceiling=ceiling)
        for name, ceiling in (("reward", None), ("true_score", 10.0))
    ]


def task_scores(run: Run) -> dict[str, dict[str, list[float]]]:
    """Task → model → score (0 to 1) with its interval. The pretrained model is asked in chats as
    the others are: the laptop's has read them. A task that was not asked is left out."""
    chats = run.vary("evaluation.raw_models=[]")
    chats.make("evaluation")
    scores: dict[str, dict[str, list[float]]] = {task: {} for task in (*TASKS, "quality")}
    for model in MODELS:
        found, _ = chats.evaluated(model)
        for task, (name, scale) in TASKS.items():
            if name in found and found[name].value is not None:
                ends = (found[name].value, found[name].low, found[name].high)
                scores[task][model] = [end / scale for end in ends if end is not None]
        scores["quality"][model] = [*value(figures.verdicts(run.job, model)["records"])]
    return {task: by_model for task, by_model in scores.items() if len(by_model) == len(MODELS)}


def changes(scores: Sequence[dict[str, dict[str, list[float]]]]) -> Iterator[dict[str, Any]]:
    """What each stage does to each task's score, seed by seed and on average."""
    for task, (before, after) in itertools.product(scores[0], itertools.pairwise(MODELS)):
        sides = [(of[task][before], of[task][after]) for of in scores if task in of]
        seeds = [b[0] - a[0] for a, b in sides]
        mean = sum(seeds) / len(seeds)
        clear = sum(b[2] < a[1] for a, b in sides)
        yield {
            "task": task, "stage": after, "mean": mean, "seeds": seeds,
            "falls": mean < TOLERATED, "seeds_clearly_lower": clear,
        }  # fmt: skip


PARTS: dict[str, Callable[[dict[int, Run]], Found]] = {
    "sample": sample,
    "curriculum": curriculum,
    "real": real,
}


def main() -> int:
    """Prints tables on standard error, then the result line."""
    parser = argparse.ArgumentParser(description="What each stage learns, seed by seed.")
    parser.add_argument("--work", type=Path, help="keeps artefacts and measurements")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", choices=PARTS, help="one part alone")
    parser.add_argument("--data", type=Path, help="directory of the real sets")
    parser.add_argument("--quick", action="store_true", help="one seed, models too small to learn")
    arguments = parser.parse_args()
    if arguments.part == "real" and not arguments.data:
        parser.error("--part real needs --data DIR")
    set_environment()
    disable_progress_bar()
    set_verbosity_error()
    parts = [part for part in PARTS if part != "real" or arguments.data]
    rows: list[Comparison] = []
    ours: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = (arguments.work or Path(scratch)).resolve()
        for part in [arguments.part] if arguments.part else parts:
            runs: dict[int, Run] = {}
            for seed in arguments.seeds[:1] if arguments.quick else arguments.seeds:
                # Seed 0 is the profile as it is shipped.
                overrides = [*(f"{step}.seed={seed}" for step in SEEDED), f"sample.seed={7 + seed}"]
                overrides += QUICK if arguments.quick else []
                runs[seed] = (
                    Run("public", work / "real", overrides, arguments.data)
                    if part == "real"
                    else Run("laptop", work / f"seed-{seed}", overrides, None)
                )
            found, lines, notes = PARTS[part](runs)
            say(format_table([*map(line, found), *lines]))
            ours[part] = {"comparisons": [row._asdict() for row in found]} | notes
            rows += [] if part == "curriculum" else found
    print_result(
        "learning",
        round(sum(row.apart for row in rows) / len(rows), 4) if rows else None,
        unit="share of stages' figures, seed by seed, that improve with 95 % intervals apart",
        goal="1",
        ours=ours,
        other=None,
        n=len(rows),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
