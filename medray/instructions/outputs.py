"""The smaller outputs of `build_instructions`: scores, preferences, prompts, questions, exam.

In: a `Step` with raw rows and the corpus. Out: one directory of Parquet shards per output.
"""

from collections.abc import Iterator

from medray.common.records import (
    ExamQuestion,
    PreferencePair,
    RetrievalQuestion,
    Scenario,
    ScoredResponse,
)
from medray.common.spool import Spool
from medray.generation.prompts import exam_prompt
from medray.instructions.examples import Skipped
from medray.instructions.exams import exam_question
from medray.instructions.feedback import (
    preference_pair,
    scenario_prompt,
    scored_response,
    win_rates,
)
from medray.instructions.questions import find_passages, gold_documents, retrieval_question
from medray.instructions.raw import Exam, Preference, Question, ScenarioRow, Score
from medray.instructions.settle import Share
from medray.instructions.step import Step


def make_scores(step: Step) -> None:
    """scores/: expert scores, and win rates in their place where the config says so."""
    config, limit = step.config.scores, step.config.max_answer_chars

    def score(row: Score) -> ScoredResponse | Skipped:
        split = step.reader.split(row.split, row.scenario)
        return scored_response(row, split, step.mask, config, limit)

    def rows() -> Iterator[ScoredResponse]:
        yield from step.each("scores", step.reader.rows(Score, "score"), score)
        if config.from_preferences:
            pairs = preference_pairs(step, "scores_of_preferences")
            with Spool(step.directory) as spool:
                yield from win_rates(pairs, spool)

    def share(row: ScoredResponse) -> Share:
        if row.split == "dev":
            return Share("dev")
        return Share(f"train_bin_{config.bin_of(row.score)}", config.max_per_bin)

    step.write("scores", ScoredResponse, rows(), lambda row: row.scenario, share)


def make_preferences(step: Step) -> None:
    """preferences/: pairs, the better response first."""
    step.write(
        "preferences", PreferencePair, preference_pairs(step, "preferences"),
        lambda row: row.prompt, lambda row: Share(row.split),
    )  # fmt: skip


def make_prompts(step: Step) -> None:
    """prompts/: what reinforcement learning answers."""
    config = step.config.prompts

    def prompt(row: ScenarioRow) -> Scenario | Skipped:
        split = step.reader.split(row.split, row.scenario)
        return scenario_prompt(row, split, step.mask, step.config.max_prompt_chars)

    def share(row: Scenario) -> Share:
        return Share(row.split, config.max_rows if row.split == "train" else None)

    rows = step.each("prompts", step.reader.rows(ScenarioRow, *config.kinds), prompt)
    step.write("prompts", Scenario, rows, lambda row: row.prompt, share)


def make_questions(step: Step) -> None:
    """questions/: what retrieval is trained and measured on."""
    wanted = {d for row in step.reader.rows(Question, "question") for d in gold_documents(row)}
    passages = find_passages(step.corpus / "passages", wanted) if wanted else {}

    def question(row: Question) -> RetrievalQuestion | Skipped:
        split = step.reader.split(row.split, row.question)
        return retrieval_question(row, split, step.mask, passages)

    rows = step.each("questions", step.reader.rows(Question, "question"), question)
    step.write(
        "questions", RetrievalQuestion, rows,
        lambda row: row.question, lambda row: Share(row.split),
    )  # fmt: skip


def make_exam(step: Step) -> None:
    """exam/: questions to be evaluated on."""
    step.write(
        "exam", ExamQuestion, exam_questions(step, "exam_questions"),
        lambda row: exam_prompt(row.question, row.options), lambda row: Share(row.split),
    )  # fmt: skip


def exam_questions(step: Step, operator: str) -> Iterator[ExamQuestion]:
    """Checked exam questions."""

    def question(row: Exam) -> ExamQuestion | Skipped:
        return exam_question(row, step.reader.split(row.split, row.question))

    return step.each(operator, step.reader.rows(Exam, "exam"), question)


def preference_pairs(step: Step, operator: str) -> Iterator[PreferencePair]:
    """Checked pairs."""

    def pair(row: Preference) -> PreferencePair | Skipped:
        split = step.reader.split(row.split, row.scenario)
        return preference_pair(row, split, step.mask, step.config.max_answer_chars)

    return step.each(operator, step.reader.rows(Preference, "preference"), pair)
