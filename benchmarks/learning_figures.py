"""Runs of the pipeline and their figures per held-out item, for benchmarks/learning.py.

In: a profile with overrides. Out: values per item, which artefacts do not keep (packed blocks for
losses, pairs, scored answers, records), and comparisons of two models on them, 95 % intervals.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from medray.common.manifest import Artefact, artefact_key, read_manifest
from medray.common.records import Document, Instruction, PreferencePair, ScoredResponse
from medray.common.rows import read_batches, read_rows
from medray.evaluation.bootstrap import mean_interval, paired_difference
from medray.evaluation.figures import Figure
from medray.evaluation.table import Line
from medray.generation.engine import HFEngine
from medray.launch import JOBS, Job, load_profile
from medray.project import jobs_directory
from medray.quality.accuracy import ANSWERS, WORDS
from medray.quality.run import check_quality
from medray.training.chats import Packer
from medray.training.curriculum import StageConfig, rows_of_stage
from medray.training.forgetting import FILE
from medray.training.general import GENERAL, read_heldout
from medray.training.language_model import (
    LanguageModelLoss,
    build_decoder,
    load_decoder,
    load_tokenizer,
)
from medray.training.packed import PackedBlocks
from medray.training.reward.model import RewardModel
from medray.training.reward.scorer import load_scorer

Sums = list[tuple[float, float]]
"""(nats, tokens) of each block."""
Value = tuple[float, float, float]
"""A mean with the ends of its 95 % interval."""


class Run:
    """A profile under one root: its jobs run as processes, its artefacts are read here."""

    def __init__(self, profile: str, root: Path, overrides: list[str], data: Path | None) -> None:
        self.root, self.profile, self.data = root, profile, data
        self.overrides = [f"storage.root={root}", *overrides]
        self.job = Job(load_profile(profile, self.overrides, str(data) if data else None))

    def vary(self, *overrides: str) -> "Run":
        """The same with other settings."""
        return Run(self.profile, self.root, [*self.overrides[1:], *overrides], self.data)

    def make(self, *steps: str, job: str = "") -> None:
        """Runs the jobs, or the one `job`, of the steps that are missing."""
        for step in steps:
            if not self.job.storage.exists(step, self.job.key(step)):
                self._start(job or JOBS[step])

    def _start(self, job: str) -> None:
        command = [sys.executable, str(jobs_directory() / f"{job}.py"), "--profile", self.profile]
        command += ["--data", str(self.data)] if self.data else []
        self.root.mkdir(parents=True, exist_ok=True)
        log = self.root / "jobs.log"
        say(f"{self.root.name}: {job}")
        with log.open("ab") as file:
            code = subprocess.call(
                [*command, *self.overrides], stdout=subprocess.DEVNULL, stderr=file
            )
        if code:
            tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise RuntimeError(f"{job} ended with {code}:\n{tail}")

    def metrics(self, step: str) -> dict[str, Any]:
        """Headline figures of a finished step."""
        return read_manifest(self.job.path(step)).metrics

    def once(self, measure: Callable[[Job, str], Any], step: str) -> Any:
        """What `measure` gives for the artefact of `step`, from a file if it was measured."""
        name = measure.__name__
        path = self.root / "measured" / f"{name}-{step}-{self.job.key(step)}.json"
        if not path.exists():
            say(f"{self.root.name}: {name} of {step}")
            self.job.use_all_threads()
            content = json.dumps(measure(self.job, step))
            path.parent.mkdir(exist_ok=True)
            path.with_suffix(".tmp").write_text(content, encoding="utf-8")
            path.with_suffix(".tmp").replace(path)
        return json.loads(path.read_text(encoding="utf-8"))

    def evaluated(self, model: str) -> tuple[dict[str, Figure], dict[str, list[float]]]:
        """A model's figures by metric/group, and its values per item."""
        path = self.job.path("evaluation") / "models" / f"{model}.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        found = [Figure.model_validate(row) for row in content["figures"]]
        return {row.key.removeprefix(f"{model}/"): row for row in found}, content["items"]

    def losses(self) -> dict[str, Any]:
        """Step → moment → source or task → held-out loss, where a step tells them apart; the
        encoder's, of which no values per item can be had, as its manifest has them."""
        found = {"encoder": {k: v for k, v in self.metrics("encoder").items() if "loss" in k}}
        for step in ("pretrain", "sft"):
            path = self.job.path(step) / FILE
            if path.exists():
                found[step] = json.loads(path.read_text(encoding="utf-8"))["loss"]
        return found


def say(text: str) -> None:
    """To people; standard output holds the result alone."""
    print(text, file=sys.stderr, flush=True)


class Comparison(NamedTuple):
    """Two models on the same items."""

    part: str
    seed: int
    stage: str
    figure: str
    n: int
    """Items."""
    before: Value
    after: Value
    gain: Value
    """Paired difference; above 0 is better."""
    apart: bool
    """It is better, and the intervals of the two do not overlap."""
    trivial: float | None = None
    """What a guess without a model reaches."""
    ceiling: float | None = None


def value(items: Sequence[float]) -> Value:
    """The mean of `items` with its interval."""
    return sum(items) / len(items), *mean_interval(items)


def compare(
    label: tuple[str, int, str, str],
    before: Sequence[float],
    after: Sequence[float],
    *,
    rises: bool = True,
    **bounds: float | None,
) -> Comparison:
    """Of values per item. `label`: part, seed, stage, figure; `rises`: more is better."""
    a, b = value(before), value(after)
    worse, better = (before, after) if rises else (after, before)
    gain = paired_difference(worse, better)
    apart = b[1] > a[2] if rises else b[2] < a[1]
    return Comparison(*label, len(before), a, b, gain[:3], apart, **bounds)


def line(row: Comparison) -> Line:
    """A comparison as a line of a table."""
    sides = ["{:.3f} [{:.3f}, {:.3f}]".format(*side) for side in (row.before, row.after)]
    more = ["gain {:+.3f} [{:+.3f}, {:+.3f}]".format(*row.gain)]
    for name, bound in (("trivial", row.trivial), ("ceiling", row.ceiling)):
        more += [] if bound is None else [f"{name} {bound:.3f}"]
    shown = "; ".join([" → ".join(sides), *more, f"n {row.n}"])
    group, name = f"{row.part} {row.seed}", f"{row.stage}: {row.figure}"
    return Line(group, name, row.after[0], shown, "apart", row.apart)


def per_token(sums: Iterable[Sequence[float]]) -> list[float]:
    """A value per block; their mean is Σ nats / Σ tokens, their spread that of this ratio.

    Source: linearisation of a ratio, for blocks hold different numbers of tokens.
    """
    nats, tokens = zip(*sums, strict=True)
    ratio, mean = sum(nats) / sum(tokens), sum(tokens) / len(tokens)
    return [ratio + (a - ratio * b) / mean for a, b in zip(nats, tokens, strict=True)]


def instructions(job: Job, split: str) -> list[Instruction]:
    """Fine-tuning rows in their order."""
    rows = read_rows(job.path("instructions") / "sft", Instruction)
    return [row for row in rows if row.split == split]


def packer(job: Job, tokenizer: Any) -> Packer:
    """As fine-tuning packs."""
    config = job.profile.sft
    return Packer(tokenizer, config.block_tokens, config.reduction)


def num_blocks(job: Job, stage: StageConfig) -> int:
    """Blocks that one pass over a stage of a curriculum takes."""
    train = instructions(job, "train")[: job.profile.sft.max_rows]
    tokenizer = load_decoder(job.path("pretrain") / "model")[1]
    return len(packer(job, tokenizer).pack(rows_of_stage(stage, train), stage.name))


@torch.no_grad()
def block_losses(model: Any, parts: Iterable[PackedBlocks]) -> Sums:
    """Block by block, of several sets of blocks."""
    loss = LanguageModelLoss(model).eval()
    return [
        (float(loss(**blocks.collate([i]))), blocks.weight([i]))
        for blocks in parts
        for i in range(len(blocks))
    ]


def pretrain_losses(job: Job, step: str) -> list[Sums]:
    """Held-out text before and after; the model before is made again, as pretraining makes it."""
    profile, corpus = job.profile, job.path("corpus")
    train = PackedBlocks.open(corpus / "blocks", "train")
    tokenizer = load_tokenizer(profile.decoder, corpus / "tokenizer")
    if profile.pretrain.with_instructions:
        chats = Packer(tokenizer, train.block_tokens).pack(instructions(job, "train"), "train")
        train = train.join(chats.whole(profile.pretrain.answer_weight))
    before = build_decoder(profile.decoder, tokenizer, train, profile.pretrain.seed)
    after, _ = load_decoder(job.path(step) / "model")
    heldout = [part for name, part in read_heldout(corpus / "blocks").items() if name != GENERAL]
    return [block_losses(model, heldout) for model in (before, after)]


def sft_losses(job: Job, step: str) -> list[Sums]:
    """Held-out answers before and after."""
    heldout = instructions(job, "dev")[: job.profile.sft.num_heldout]
    sides = []
    for name in ("pretrain", step):
        model, tokenizer = load_decoder(job.path(name) / "model")
        parts = packer(job, tokenizer).pack_by_task(heldout, "held-out")
        sides.append(block_losses(model, parts.values()))
    return sides


def quality_losses(job: Job, step: str) -> dict[str, Sums]:
    """Indicator → held-out answers of its sub-tasks, by the model of `step`."""
    by_indicator: dict[str, list[Instruction]] = defaultdict(list)
    for row in instructions(job, "dev"):
        if row.task == "quality":
            by_indicator[row.group.partition("/")[0]].append(row)
    model, tokenizer = load_decoder(job.path(step) / "model")
    pack = packer(job, tokenizer).pack
    return {
        name: block_losses(model, [pack(rows, name)]) for name, rows in sorted(by_indicator.items())
    }


def reward_scores(job: Job, step: str) -> dict[str, Any]:
    """Before (a new head) and after, per item: `right`, whether a held-out pair is in the right
    order, a tie half; `errors`, squared, of held-out scores. `constant`: that of their mean."""
    config, data = job.profile.reward, job.path("instructions")
    pairs = [p for p in read_rows(data / "preferences", PreferencePair) if p.split == "dev"]
    all_scores = list(read_rows(data / "scores", ScoredResponse))
    scores = [s for s in all_scores if s.split == "dev"]
    mean = statistics.fmean(s.score for s in all_scores if s.split == "train")
    right, errors = [], []
    with tempfile.TemporaryDirectory() as new:
        for part in load_scorer(job.path(config.parent) / "model", config, mean):
            part.save_pretrained(new)
        for directory in (new, job.path(step) / "model"):
            model = RewardModel(directory)
            prompts = [pair.prompt for pair in pairs]
            chosen = model.score(prompts, [pair.chosen for pair in pairs])
            rejected = model.score(prompts, [pair.rejected for pair in pairs])
            guesses = model.score([s.scenario for s in scores], [s.response for s in scores])
            right.append([(a > b) + 0.5 * (a == b) for a, b in zip(chosen, rejected, strict=True)])
            errors.append([(g - s.score) ** 2 for g, s in zip(guesses, scores, strict=True)])
    constant = statistics.pvariance(row.score for row in scores)
    return {"right": right, "errors": errors, "constant": constant}


def verdicts(job: Job, step: str) -> dict[str, Any]:
    """Quality control by the model of `step`, as its job does it by the policy: for each record the
    share of its labelled sub-tasks that are judged rightly, and the job's figures."""
    quality = job.path("instructions") / "quality"
    labels = [row for batch in read_batches(quality / "labels") for row in batch.to_pylist()]
    sections = job.sections("quality")
    parents = {"instructions": job.key("instructions"), step: job.key(step)}
    key = artefact_key("quality", sections, parents, "")
    if step == "ppo":
        key = job.key("quality")  # the pipeline has made it
    if not job.storage.exists("quality", key):
        say(f"quality control by {step}/{job.key(step)}")
        job.use_all_threads()
        artefact = Artefact(job.storage, "quality", sections, key=key)
        documents = read_rows(quality / "documents", Document)
        engine = HFEngine(job.path(step) / "model")
        check_quality(job.profile.quality, documents, engine, None, labels, artefact)
        artefact.publish()
    made: Path = job.storage.fetch("quality", key)
    truth = {
        (row["record_id"], row["indicator"], row["name"]): WORDS[row["value"]]
        for row in labels
        if row["level"] == "task"
    }
    right: dict[str, list[bool]] = defaultdict(list)
    for batch in read_batches(made / "verdicts"):
        for row in batch.to_pylist():
            item = row["doc_id"], row["indicator"], row["task"]
            if item in truth:
                answer = ANSWERS.get(row["reason"], row["reason"])
                right[row["doc_id"]].append(answer == truth[item])
    metrics = read_manifest(made).metrics
    balanced = {
        level: metrics.get(f"quality/{level}_balanced_accuracy")
        for level in ("subtask", "indicator")
    }
    return {"balanced": balanced, "records": [sum(r) / len(r) for _, r in sorted(right.items())]}
