"""Figures of the pipeline's artefacts per held-out item, for benchmarks/learning.py.

In: a run's artefacts. Out: values per item, which artefacts do not keep (packed blocks for
losses, pairs, scored answers, records), and comparisons of two models on them, 95 % intervals.
"""

import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from learning_run import say

from medray.common.manifest import Artefact, artefact_key, read_manifest
from medray.common.records import (
    Document,
    Instruction,
    PreferencePair,
    Scenario,
    ScoredResponse,
)
from medray.common.rows import read_batches, read_rows
from medray.evaluation.bootstrap import mean_interval, paired_difference
from medray.evaluation.rewards import answer_scenarios
from medray.evaluation.table import Line
from medray.generation.engine import HFEngine
from medray.job import Job
from medray.quality.accuracy import ANSWERS, WORDS
from medray.quality.run import check_quality
from medray.sample.consult import scenarios
from medray.sample.model import shipped_model
from medray.sample.truth import true_score
from medray.training.chats import Packer
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

NUM_SCENARIOS = 600
NEW_PATIENTS = 1_000_000
"""Added to the sample's seed: patients that no sample of a small seed holds."""
Sums = list[tuple[float, float]]
"""(nats, tokens) of each block."""
Value = tuple[float, float, float]
"""A mean with the ends of its 95 % interval."""


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


Found = tuple[list[Comparison], list[Line], dict[str, Any]]
"""Comparisons, further lines for people, and what else is kept of a part."""


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


def per_token(*strata: Iterable[Sequence[float]]) -> list[float]:
    """A value per block; their mean is Σ nats / Σ tokens, their spread that of this ratio where
    each stratum (a task) keeps its share of the tokens: tasks differ more than their blocks do.

    Source: linearisation of a ratio, for blocks hold different numbers of tokens (Cochran 1977,
    Sampling Techniques, 6.11, separate and combined ratio estimators).
    """
    blocks = [list(zip(*sums, strict=True)) for sums in strata]
    num_tokens = sum(sum(tokens) for _, tokens in blocks)
    mean = num_tokens / sum(len(tokens) for _, tokens in blocks)
    whole = sum(sum(nats) for nats, _ in blocks) / num_tokens
    values = []
    for nats, tokens in blocks:
        ratio = sum(nats) / sum(tokens)
        values += [whole + (a - ratio * b) / mean for a, b in zip(nats, tokens, strict=True)]
    return values


def instructions(job: Job, split: str) -> list[Instruction]:
    """Fine-tuning rows in their order."""
    rows = read_rows(job.path("instructions") / "sft", Instruction)
    return [row for row in rows if row.split == split]


def packer(job: Job, tokenizer: Any) -> Packer:
    """As fine-tuning packs."""
    config = job.profile.sft
    return Packer(tokenizer, config.block_tokens, config.reduction)


@torch.no_grad()
def block_losses(model: Any, blocks: PackedBlocks) -> Sums:
    """Block by block."""
    loss = LanguageModelLoss(model).eval()
    return [(float(loss(**blocks.collate([i]))), blocks.weight([i])) for i in range(len(blocks))]


def losses_of_each(model: Any, parts: Iterable[PackedBlocks]) -> list[Sums]:
    """The same of several sets of blocks."""
    return [block_losses(model, blocks) for blocks in parts]


def pretrain_losses(job: Job, step: str) -> list[list[Sums]]:
    """Held-out text before and after, source by source; the model before is made again, as
    pretraining makes it."""
    profile, corpus = job.profile, job.path("corpus")
    train = PackedBlocks.open(corpus / "blocks", "train")
    tokenizer = load_tokenizer(profile.decoder, corpus / "tokenizer")
    if profile.pretrain.with_instructions:
        chats = Packer(tokenizer, train.block_tokens).pack(instructions(job, "train"), "train")
        train = train.join(chats.whole(profile.pretrain.answer_weight))
    before = build_decoder(profile.decoder, tokenizer, train, profile.pretrain.seed)
    return [losses_of_each(before, heldout_text(job)), text_losses(job, step)]


def text_losses(job: Job, step: str) -> list[Sums]:
    """Held-out text, source by source, by the model of `step`."""
    return losses_of_each(load_decoder(job.path(step) / "model")[0], heldout_text(job))


def heldout_text(job: Job) -> list[PackedBlocks]:
    """Held-out blocks of each source, without the general text that is only watched."""
    parts = read_heldout(job.path("corpus") / "blocks")
    return [part for name, part in parts.items() if name != GENERAL]


def sft_losses(job: Job, step: str) -> list[list[Sums]]:
    """Held-out answers before and after, task by task."""
    heldout = instructions(job, "dev")[: job.profile.sft.num_heldout]
    sides = []
    for name in ("pretrain", step):
        model, tokenizer = load_decoder(job.path(name) / "model")
        parts = packer(job, tokenizer).pack_by_task(heldout, "held-out")
        sides.append(losses_of_each(model, parts.values()))
    return sides


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


def worth(job: Job, step: str) -> dict[str, list[float]]:
    """Reward and true score of greedy answers to scenarios of new patients: those that the
    pipeline holds out are too few for intervals that tell a point of ten."""
    known = {row.prompt for row in read_rows(job.path("instructions") / "prompts", Scenario)}
    drawn = scenarios(shipped_model(), NEW_PATIENTS + job.profile.sample.seed, NUM_SCENARIOS)
    rows, truth = [], {}
    for row, true in drawn:
        if row["scenario"] not in known:
            rows.append(Scenario(id=row["id"], prompt=row["scenario"], split="dev"))
            truth[row["id"]] = true

    def scores(ids: Sequence[str], texts: Sequence[str]) -> list[float]:
        return [true_score(truth[i], text) for i, text in zip(ids, texts, strict=True)]

    engine = HFEngine(job.path(step) / "model")
    scorer = RewardModel(job.path("reward") / "model")
    found = answer_scenarios(rows, engine, scorer, scores, job.profile.evaluation.answer_tokens)
    return {"reward": found.reward, "true_score": found.true_score}


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
