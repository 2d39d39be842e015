"""Evaluation of models after each stage. In: engines, the instructions and corpus artefacts, and
where there are: truth, reward model, true score. Out: report.json, report.html, models/*.json.

Models are loaded one after the other; what one gave is written at once, so a run that was killed
goes on with the next. Comparisons are paired, on the same items.
Source: EVALUATION.md 1.
"""

import itertools
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from medray.common.config import Config
from medray.common.errors import DataError
from medray.common.manifest import Artefact, Counts
from medray.common.records import Document, ExamQuestion, Instruction, Scenario
from medray.evaluation import diagnosis, exam, grounded, inputs, language_model, rewards, text
from medray.evaluation.figures import Figure, as_metrics, mean, missing, plain
from medray.evaluation.lexicon import SHIPPED, Lexicon, read_aliases
from medray.evaluation.report import write_report
from medray.quality.protocols import Engine, Greedy, ask

logger = logging.getLogger(__name__)
EngineFactory = Callable[[], Engine]


class EvaluationConfig(Config):
    """Settings of an evaluation. Counts are upper limits; intervals tell what they are worth."""

    raw_models: list[str] = Field(default_factory=lambda: ["pretrain"])
    """Models that have seen no chats: they continue records instead of answering."""
    max_diagnoses: int = Field(default=400, ge=1)
    """Source: not given; at an accuracy of 0.9 the 95 % interval is then ±0.03."""
    max_texts: int = Field(default=40, ge=0)
    """Answers per text task."""
    text_tasks: list[str] = Field(default_factory=lambda: ["treatment", "differential"])
    max_scenarios: int = Field(default=100, ge=0)
    max_questions: int = Field(default=200, ge=0)
    max_grounded: int = Field(default=100, ge=0)
    max_loss_records: int = Field(default=100, ge=0)
    max_baseline_rows: int = Field(default=20_000, ge=1)
    """Training rows of the TF-IDF baseline."""
    baseline_iterations: int = Field(default=200, ge=1)
    diagnosis_tokens: int = Field(default=32, ge=1)
    answer_tokens: int = Field(default=160, ge=1)
    left_out_sources: list[str] = Field(default_factory=lambda: ["audit"])
    """Sources of records that are no plain sample of the hospital's visits."""
    aliases: str = ""
    """YAML of disease names and their aliases; empty: the one shipped with medray."""


class Items(NamedTuple):
    """What every model is asked; the same for all."""

    lexicon: Lexicon
    train: list[diagnosis.Item]
    chats: list[diagnosis.Item]
    completions: list[diagnosis.Item]
    texts: dict[str, list[Instruction]]
    scenarios: list[Scenario]
    questions: list[ExamQuestion]
    grounded: list[grounded.Grounded]
    records: list[Document]
    render: Callable[[Document], str]


class Bounds(NamedTuple):
    """What losses are measured against, in nats per token; None where it is not known."""

    unigram: float | None
    truth: inputs.Truth | None


def evaluate(
    config: EvaluationConfig,
    *,
    engines: Mapping[str, EngineFactory],
    instructions: Path,
    corpus: Path,
    artefact: Artefact,
    render: Callable[[Document], str],
    hospital: Path | None = None,
    scorer: rewards.Scorer | None = None,
    true_score: rewards.TrueScore | None = None,
    unigram_nats: float | None = None,
) -> list[Figure]:
    """Measures every model, the baseline and the ceiling; writes the report; returns the figures.

    Args:
        engines: model name → what loads it, in the order of the stages.
        render: a document as pretraining text.
        hospital: the sample hospital, if the data come from it: its truth gives ceiling and bound.
        unigram_nats: unigram entropy of held-out records, nats per token.
    """
    items = read_items(config, instructions, corpus, render)
    wanted = {record.doc_id for record in items.records}
    wanted |= {item.id.removeprefix("diagnosis-") for item in items.chats}
    bounds = Bounds(unigram_nats, inputs.read_truth(hospital, wanted))
    figures = baseline_figures(config, items, bounds)
    values: dict[str, dict[str, list[float]]] = {}
    for name, load in engines.items():
        path = artefact.dir / "models" / f"{name}.json"
        if not path.exists():
            logger.info("evaluation: measuring %s", name)
            found, per_item = measure_model(config, name, load(), items, bounds, scorer, true_score)
            _save(path, found, per_item)
        found, values[name] = _load(path)
        figures += found
    figures += comparisons(values)
    artefact.counts["items"] = Counts(rows_in=len(items.chats), rows_out=len(items.chats))
    artefact.metrics |= as_metrics(figures)
    write_report(figures, artefact.dir)
    return figures


def read_items(
    config: EvaluationConfig, instructions: Path, corpus: Path, render: Callable[[Document], str]
) -> Items:
    """Reads what the models are asked.

    Raises:
        DataError: if no diagnosis, text, scenario, question or grounded example is held out.
    """

    def held_out(task: str, limit: int) -> list[Instruction]:
        return inputs.sample_rows(inputs.read_instructions(instructions, task, "dev"), "id", limit)

    records, codes = inputs.read_records(
        corpus, max(config.max_loss_records, config.max_diagnoses), config.left_out_sources
    )
    dev = held_out("diagnosis", config.max_diagnoses)
    # Whole records alone: the baseline is the better for it (0.886 against 0.873) and faster.
    train_rows = inputs.read_instructions(instructions, "diagnosis", "train")
    whole = (row for row in train_rows if not row.partial)
    train = inputs.sample_rows(whole, "id", config.max_baseline_rows)
    aliases = read_aliases(Path(config.aliases) if config.aliases else SHIPPED)
    names = {row.answer for row in (*dev, *train)} | set(codes.values())
    lexicon = Lexicon(sorted(names), aliases, codes)
    items = Items(
        lexicon=lexicon,
        train=diagnosis.chat_items(train, lexicon),
        chats=diagnosis.chat_items(dev, lexicon),
        completions=diagnosis.completion_items(records[: config.max_diagnoses], lexicon, render),
        texts={task: held_out(task, config.max_texts) for task in config.text_tasks},
        scenarios=inputs.sample_rows(
            inputs.read_scenarios(instructions), "id", config.max_scenarios
        ),
        questions=inputs.sample_rows(inputs.read_exam(instructions), "id", config.max_questions),
        grounded=grounded.read_examples(held_out("grounded", config.max_grounded)),
        records=records[: config.max_loss_records],
        render=render,
    )
    asked = (items.chats, items.scenarios, items.questions, items.grounded, items.completions)
    if not any((*asked, *items.texts.values())):
        raise DataError(
            f"{instructions} holds nothing of split dev to evaluate on; raise dev_fraction of the "
            "corpus and instructions steps, or take more rows"
        )
    return items


def baseline_figures(config: EvaluationConfig, items: Items, bounds: Bounds) -> list[Figure]:
    """The ceiling and the TF-IDF baseline."""
    truth = bounds.truth
    if truth is None or truth.ceiling is None:
        figures = [missing("ceiling", "diagnosis_accuracy", "the data come without their truth")]
    else:
        se = truth.ceiling_se or 0.0
        low, high = truth.ceiling - 1.96 * se, min(1.0, truth.ceiling + 1.96 * se)
        figures = [
            plain("ceiling", "diagnosis_accuracy", truth.ceiling, low=low, high=high),
        ]
        posterior = [
            float(row["posterior_max"])
            for item in items.chats
            if (row := truth.records.get(item.id.removeprefix("diagnosis-"))) is not None
        ]
        figures.append(mean("ceiling_of_items", "diagnosis_accuracy", posterior))
    if not items.chats or not items.train:
        return [*figures, missing("tfidf", "diagnosis_accuracy", "no diagnosis instructions")]
    answers = diagnosis.tfidf_answers(items.train, items.chats, config.baseline_iterations)
    result = diagnosis.grade(items.chats, answers, items.lexicon)
    return figures + diagnosis.figures("tfidf", items.chats, result)


def measure_model(
    config: EvaluationConfig,
    name: str,
    engine: Engine,
    items: Items,
    bounds: Bounds,
    scorer: rewards.Scorer | None,
    true_score: rewards.TrueScore | None,
) -> tuple[list[Figure], dict[str, list[float]]]:
    """All figures of one model, and values per item for paired comparisons."""
    raw = name in config.raw_models
    per_item: dict[str, list[float]] = {}
    figures = loss_figures(config, name, engine, items, bounds)
    asked = items.completions if raw else items.chats
    if asked:
        result = diagnosis.answer_items(
            asked, engine, items.lexicon, raw=raw, tokens=config.diagnosis_tokens
        )
        figures += diagnosis.figures(name, asked, result)
        if not raw:
            per_item["diagnosis_accuracy"] = [float(right) for right in result.right]
    else:
        figures.append(missing(name, "diagnosis_accuracy", "no held-out diagnoses"))
    if items.questions:
        figures += exam.figures(name, items.questions, engine, raw=raw)
    else:
        figures.append(missing(name, "exam_accuracy", "no held-out exam questions"))
    if raw:
        return figures, per_item
    for task, rows in items.texts.items():
        chats = [ask(row.messages[0].content) for row in rows]
        answers = engine.chat(chats, Greedy(max_new_tokens=config.answer_tokens)) if rows else []
        references = [row.messages[-1].content for row in rows]
        figures += text.figures(name, task, [answer.text for answer in answers], references)
    if items.scenarios:
        worth = rewards.answer_scenarios(
            items.scenarios, engine, scorer, true_score, config.answer_tokens
        )
        figures += rewards.figures(name, worth)
        per_item |= {
            "reward": worth.reward,
            "true_score": worth.true_score,
            "answer_length": worth.length,
        }
    else:
        figures.append(missing(name, "reward", "no held-out scenarios"))
    if items.grounded:
        figures += grounded.figures(name, items.grounded, engine, config.answer_tokens)
    else:
        figures.append(missing(name, "grounded_right_quote", "no held-out grounded examples"))
    return figures, per_item


def loss_figures(
    config: EvaluationConfig, name: str, engine: Engine, items: Items, bounds: Bounds
) -> list[Figure]:
    """Nats per token on held-out records; for a raw model also the distance closed."""
    if name not in config.raw_models or not items.records:
        return []
    loss = language_model.held_out_loss(items.records, engine, items.render)
    if loss.per_token is None:
        return [missing(name, "record_nats_per_token", "no held-out record fits the context")]
    n = len(loss.doc_ids)
    figures = [plain(name, "record_nats_per_token", loss.per_token, n, unit="nats/token")]
    truth = bounds.truth.records if bounds.truth else {}
    if not all(doc_id in truth for doc_id in loss.doc_ids):
        why = "the generator's log-probabilities are not known for these records"
        return [*figures, missing(name, "distance_closed", why)]
    bound = sum(float(truth[doc_id]["nll_nats"]) for doc_id in loss.doc_ids) / loss.tokens
    figures.append(plain("bound", "record_nats_per_token", bound, n, unit="nats/token"))
    if bounds.unigram is None:
        return [*figures, missing(name, "distance_closed", "unigram entropy is not given")]
    figures.append(plain("unigram", "record_nats_per_token", bounds.unigram, unit="nats/token"))
    closed = language_model.share_closed(bounds.unigram, loss.per_token, bound)
    return [*figures, plain(name, "distance_closed", closed, n)]


def comparisons(values: Mapping[str, Mapping[str, list[float]]]) -> list[Figure]:
    """Paired differences between neighbouring stages."""
    figures = []
    names = [name for name, metrics in values.items() if metrics]
    for before, after in itertools.pairwise(names):
        figures += [
            rewards.compare(before, after, metric, values[before][metric], values[after][metric])
            for metric in values[before]
            if values[before][metric] and values[after].get(metric)
        ]
    return figures


def _save(path: Path, figures: list[Figure], per_item: Mapping[str, list[float]]) -> None:
    content = {"figures": [figure.model_dump() for figure in figures], "items": per_item}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    temporary.replace(path)


def _load(path: Path) -> tuple[list[Figure], dict[str, list[float]]]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return [Figure.model_validate(row) for row in content["figures"]], content["items"]
