"""Weights of terms: they learn what a word says, only where held-out questions gain by it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from medray.retrieval.lexical import LexicalConfig, LexicalIndex
from medray.retrieval.term_weights import (
    Ranking,
    TermWeightsConfig,
    learn_term_weights,
    padded,
    rank,
    reciprocal_rank,
    weighted,
)

TOPICS = [f"topic{i}" for i in range(40)]
# "please" is as rare as a topic, and stands in passages that answer nothing.
TEXTS = [f"{topic} therapy dose" for topic in TOPICS] + ["please wait", "please please call"]
CONFIG = TermWeightsConfig(min_questions=20, epochs=6, candidates=8, learning_rate=0.1)


def index() -> LexicalIndex:
    return LexicalIndex.build(TEXTS, LexicalConfig())


def test_a_word_that_says_nothing_loses_its_weight() -> None:
    questions = [(f"please please {topic}", [i]) for i, topic in enumerate(TOPICS)] * 3
    words = index()
    assert words.scores(questions[0][0]).argmax() != 0  # "please" twice outweighs the topic
    words.weights_V = learn_term_weights(words, questions, CONFIG)
    weights = words.weights
    assert weights["please"] < 1 < np.mean([weights.get(topic, 1) for topic in TOPICS])
    found = [int(words.scores(text).argmax()) == gold[0] for text, gold in questions[:40]]
    assert np.mean(found) > 0.9
    # what was learned goes on in an index made anew, where the term still is
    again = LexicalIndex.build(TEXTS[1:-2], LexicalConfig(), weights)
    assert again.weights == {
        name: weight for name, weight in weights.items() if name not in ("topic0", "please")
    }


def test_nothing_is_learned_from_little_or_for_nothing() -> None:
    questions = [(topic, [i]) for i, topic in enumerate(TOPICS)]
    assert learn_term_weights(index(), questions[:10], CONFIG) is None
    assert learn_term_weights(index(), questions, CONFIG.model_copy(update={"epochs": 0})) is None
    # every topic is found already: held-out questions gain nothing
    asked = [(f"{topic} therapy", [i]) for i, topic in enumerate(TOPICS)]
    assert learn_term_weights(index(), asked, CONFIG) is None


def test_candidates_of_a_question() -> None:
    words = index()
    one = rank(words, "please topic3 unheard", [3], 3)
    assert one is not None
    assert one.scores_CK.shape == (3, 2)  # the answer and both others that share a term
    sums_C = one.scores_CK.sum(1)
    scores_N = words.scores("please topic3")
    assert sums_C == pytest.approx([scores_N[3], *sorted(scores_N[-2:])[::-1]], rel=1e-6)
    assert rank(words, "unheard", [3], 3) is None
    assert rank(words, "topic3", [3], 3) is None  # nothing to tell it from


def test_ranks_and_scores_by_hand() -> None:
    one = Ranking(np.array([0, 2]), np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 3.0]], np.float32))
    two = Ranking(np.array([1]), np.array([[1.0], [0.5]], np.float32))
    log_weights = torch.tensor([0.0, 1.0, 0.0])
    # 3, 3, 3: the answer counts as last of equal ones; then e against e / 2
    assert reciprocal_rank([one, two], log_weights) == pytest.approx((1 / 3 + 1) / 2)
    rows_BK, scores_BCK, filler_BC = padded([one, two])
    assert filler_BC.tolist() == [[False] * 3, [False, False, True]]
    scores_BC = weighted(rows_BK, scores_BCK, log_weights)
    assert scores_BC.tolist() == [[3, 3, 3], pytest.approx([np.e, np.e / 2, 0])]


def test_plain_scores_stay_beside_weighted_ones(tmp_path: Path) -> None:
    words = LexicalIndex.build(TEXTS, LexicalConfig(), {"please": 0.5, "unheard": 9.0})
    plain, weighted_N = words.scores("please", weighted=False), words.scores("please")
    assert weighted_N == pytest.approx(plain / 2)
    words.save(tmp_path / "words")
    loaded = LexicalIndex.load(tmp_path / "words")
    assert loaded.weights == {"please": 0.5}
    np.testing.assert_array_equal(loaded.scores("please"), weighted_N)
