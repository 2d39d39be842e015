"""Terms and BM25, against the formula written out."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from medray.retrieval.lexical import LexicalConfig, LexicalIndex
from medray.retrieval.terms import lexical_terms

TEXTS = [
    "肺炎 治疗\n肺炎用抗生素。",
    "哮喘 治疗\n哮喘先吸入激素，CRP 12.5",
    "胃炎",
    "……",
    "CRP crp ＣＲＰ",
]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("慢性胃炎", "慢 性 胃 炎 慢性 性胃 胃炎"),
        ("发热，咳", "发 热 发热 咳"),
        ("CA19-9 12.5U/ml", "ca19 9 12.5 u ml"),
        ("HbA1c６.5％", "hba1c6.5"),
        ("β-lactam naïve", "β lactam naïve"),
        ("𠮷田", "𠮷 田 𠮷田"),
        ("，。", ""),
    ],
)
def test_terms(text: str, terms: str) -> None:
    assert Counter(lexical_terms(text)) == Counter(terms.split())


def formula(question: str, config: LexicalConfig) -> list[float]:
    """Robertson and Zaragoza 2009 (3.15), idf as Lucene has it, never below 0."""
    counted = [Counter(lexical_terms(text)) for text in TEXTS]
    mean = sum(map(Counter.total, counted)) / len(counted)
    scores = []
    for terms in counted:
        score = 0.0
        for term in lexical_terms(question):
            df = sum(term in other for other in counted)
            idf = math.log(1 + (len(counted) - df + 0.5) / (df + 0.5))
            length = 1 - config.b + config.b * terms.total() / mean
            score += idf * terms[term] / (terms[term] + config.k1 * length)
        scores.append(score)
    return scores


@pytest.mark.parametrize("question", ["肺炎怎么治疗", "CRP升高", "治疗治疗", "无关", ""])
@pytest.mark.parametrize("config", [LexicalConfig(), LexicalConfig(k1=0.9, b=0.4)])
def test_scores_are_those_of_the_formula(
    question: str, config: LexicalConfig, tmp_path: Path
) -> None:
    index = LexicalIndex.build(TEXTS, config)
    assert index.scores(question) == pytest.approx(formula(question, config), rel=1e-5)
    index.save(tmp_path / "lexical")
    np.testing.assert_array_equal(
        LexicalIndex.load(tmp_path / "lexical").scores(question), index.scores(question)
    )
