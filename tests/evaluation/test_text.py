"""Text metrics by hand, and the traps of Chinese."""

import pytest

from medray.evaluation.text import character_f1, distinct, figures, rouge_l


def test_rouge_l_by_hand() -> None:
    # 肺炎链球菌 v. 肺炎球菌感染: common subsequence 肺炎球菌 = 4; P 4/5, R 4/6; F = 8/11.
    assert rouge_l("肺炎链球菌", "肺炎球菌感染") == pytest.approx(8 / 11, abs=1e-6)
    assert rouge_l("肺炎", "肺炎") == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("pair", [("", "肺炎"), ("肺炎", ""), (" \n", "肺炎"), ("", "")])
def test_empty_text_scores_0_and_does_not_raise(pair: tuple[str, str]) -> None:
    assert rouge_l(*pair) == 0.0
    assert character_f1(*pair) == 0.0


def test_punctuation_does_not_break_rouge() -> None:
    assert rouge_l("。", "。") >= 0.0
    assert rouge_l("发热。咳嗽。", "发热。咳嗽。") == pytest.approx(1.0, abs=1e-6)


def test_character_f1_counts_repeats() -> None:
    # 咳咳痰 v. 咳痰痰: shared 咳 1 + 痰 1 = 2; P = R = 2/3.
    assert character_f1("咳咳痰", "咳痰痰") == pytest.approx(2 / 3)
    assert character_f1("发热", "咳嗽") == 0.0


def test_distinct_over_all_responses() -> None:
    # 2-grams: 发热, 热咳 | 发热: 2 of 3 are distinct.
    assert distinct(["发热咳", "发热"], 2) == pytest.approx(2 / 3)
    assert distinct(["", "咳"], 2) is None


def test_empty_responses_stay_in_the_mean() -> None:
    rows = {f.metric: f for f in figures("sft", "treatment", ["肺炎", ""], ["肺炎", "肺炎"])}
    assert rows["rouge_l"].value == pytest.approx(0.5, abs=1e-6)
    assert rows["rouge_l"].n == 2
    assert rows["length"].value == 1.0
