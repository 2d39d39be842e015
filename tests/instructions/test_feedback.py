"""Scores, preferences, prompts and retrieval questions, worked by hand."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from medray.common.errors import ConfigError
from medray.common.manifest import Artefact
from medray.common.records import PreferencePair, Scenario, ScoredResponse
from medray.common.rows import read_rows
from medray.common.spool import Spool
from medray.instructions.build import InstructionsConfig, build_instructions
from medray.instructions.examples import Skipped
from medray.instructions.feedback import (
    ScoresConfig,
    preference_pair,
    scored_response,
    win_rates,
)
from medray.instructions.questions import retrieval_question
from medray.instructions.raw import Preference, Question, Score


def same(text: str) -> str:
    return text


def test_scores_are_scaled_to_their_declared_range() -> None:
    config = ScoresConfig(min_score=1, max_score=5)
    row = Score(id="1", scenario="问", response="答", score=4)
    made = scored_response(row, "train", same, config, 99)
    assert isinstance(made, ScoredResponse)
    assert made.score == 0.75  # (4 - 1) / (5 - 1)
    low = row.model_copy(update={"score": 0.5})
    assert scored_response(low, "train", same, config, 99) == Skipped("score_out_of_range")
    # Five bins of width 0.2; the last holds its upper end.
    assert [config.bin_of(s) for s in (0, 0.19, 0.2, 0.99, 1.0)] == [0, 0, 1, 4, 4]
    with pytest.raises(ConfigError, match="max_score must exceed"):
        ScoresConfig.parse({"min_score": 2, "max_score": 1}, "here")


def test_a_preference_of_consultations_is_what_the_doctor_said() -> None:
    turns = [{"role": "patient", "text": "痛"}, {"role": "doctor", "text": "甲。"},
             {"role": "doctor", "text": "乙。"}]  # fmt: skip
    row = Preference.model_validate(
        {"id": "1", "scenario": "痛", "chosen": turns, "rejected": "丙。丁。"}
    )
    pair = preference_pair(row, "train", same, 3)
    assert isinstance(pair, PreferencePair)
    assert (pair.chosen, pair.rejected) == ("甲。", "丙。")
    equal = row.model_copy(update={"rejected": "甲。"})
    assert preference_pair(equal, "train", same, 2) == Skipped("equal_responses")


def test_a_response_scores_the_share_of_its_comparisons_that_it_won(tmp_path: Path) -> None:
    def pair(name: str, chosen: str, rejected: str) -> PreferencePair:
        return PreferencePair(id=name, prompt="问", chosen=chosen, rejected=rejected, split="train")

    pairs = [pair("1", "甲", "乙"), pair("2", "甲", "丙"), pair("3", "乙", "丙")]
    with Spool(tmp_path / "spool") as spool:
        scores = {row.response: row.score for row in win_rates(pairs, spool)}
    assert scores == {"甲": 1.0, "乙": 0.5, "丙": 0.0}  # won 2 of 2, 1 of 2, 0 of 2


def test_gold_is_looked_up_by_document_and_section() -> None:
    passages = {"a": [("概述", "a#0"), ("治疗", "a#1"), ("治疗", "a#2")], "b": [("", "b#0")]}

    def gold(**row: object) -> list[str] | str:
        question = Question.model_validate({"id": "1", "question": "问", **row})
        made = retrieval_question(question, "dev", same, passages)
        return made.reason if isinstance(made, Skipped) else made.passage_ids

    assert gold(doc_id="a", section="治疗") == ["a#1", "a#2"]
    assert gold(doc_id="a") == ["a#0", "a#1", "a#2"]
    assert gold(doc_ids=["b", "gone"]) == ["b#0"]
    assert gold(doc_id="a", section="病因") == "section_not_in_corpus"
    assert gold(doc_ids=["gone"]) == "gold_not_in_corpus"
    assert gold() == "no_gold"


def test_score_ranges_are_balanced(
    hospital: Path,
    corpus: Path,
    config_of: Callable[..., InstructionsConfig],
    open_artefact: Callable[..., Artefact],
) -> None:
    config = config_of(
        scores={"max_per_bin": 3, "from_preferences": True},
        prompts={"kinds": ["preference", "scenario"], "max_rows": 4},
    )
    artefact = open_artefact(config)
    build_instructions(config, hospital, corpus, artefact)
    rows = list(read_rows(artefact.dir / "scores", ScoredResponse))
    bins = Counter(config.scores.bin_of(row.score) for row in rows if row.split == "train")
    assert bins == {0: 3, 1: 3, 2: 3, 3: 3, 4: 3}
    # All 40 scores and the 20 responses of 10 pairs came in.
    assert artefact.counts["write/scores"].rows_in == 60
    assert artefact.counts["write/scores"].rejected["over_limit"] > 0
    prompts = list(read_rows(artefact.dir / "prompts", Scenario))
    assert sum(row.split == "train" for row in prompts) == 4
    assert artefact.counts["prompts"].rows_in == 20
