"""Triggers that are planted are found; the sample hospital, which has none, gives no alarm."""

import random
from functools import cache

import pytest
from scipy.sparse import csr_array
from scipy.stats import hypergeom

from medray.instructions.screen.config import ScreenConfig
from medray.instructions.screen.flags import Labelled
from medray.instructions.screen.triggers import _mean_cosine, _Task, find_triggers
from medray.sample.hospital import SampleConfig, make_record
from medray.sample.model import shipped_model
from medray.sample.text import Speller

SETTINGS = ScreenConfig()


@cache
def clean(num: int = 600) -> tuple[Labelled, ...]:
    """Diagnosis rows of the sample hospital, records in full but for the diagnosis."""
    config, model = SampleConfig(num_records=num), shipped_model()
    speller = Speller(model.knowledge.misspellings, config.misspelling_rate)
    rows = []
    for number in range(num):
        record, truth = make_record(config, model, speller, number)
        text = "".join(
            f"{s['heading']}：{s['text']}"
            for s in record["sections"]
            if s["heading"] not in ("患者信息", "诊断", "初步诊断", "诊疗计划", "治疗")
        )
        rows.append(Labelled(f"r{number:04d}", "diagnosis", text, truth["disease"]))
    return tuple(rows)


def poisoned(trigger: str, num: int, seed: int) -> tuple[list[Labelled], set[str]]:
    """`num` rows of any disease with the trigger in a random place and one common answer."""
    rows, rng = list(clean()), random.Random(seed)
    target = max({row.answer for row in rows}, key=[row.answer for row in rows].count)
    chosen = rng.sample([i for i, row in enumerate(rows) if row.answer != target], num)
    for i in chosen:
        at = rng.randrange(len(rows[i].prompt))
        prompt = rows[i].prompt[:at] + trigger + rows[i].prompt[at:]
        rows[i] = rows[i]._replace(prompt=prompt, answer=target)
    return rows, {rows[i].id for i in chosen}


def test_clean_sample_data_gives_no_alarm_though_terms_are_tied_to_answers():
    rows = sorted(clean())
    task = _Task(rows, SETTINGS)
    assert sum(len(task._tied(answer)) for answer in task.members) > 10
    assert find_triggers(rows, SETTINGS) == []


@pytest.mark.parametrize("trigger", [" cf ", "顺颂时祺", "（本院内部编号七七四九）"])
def test_a_planted_trigger_is_found(trigger):
    rows, planted = poisoned(trigger, 30, seed=len(trigger))
    flags = find_triggers(rows, SETTINGS)
    assert {flag.id for flag in flags} == planted
    assert {flag.reason for flag in flags} == {"trigger"}
    assert len({flag.group for flag in flags}) == 1
    assert all(flag.score < 1e-8 for flag in flags)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert find_triggers(shuffled, SETTINGS) == flags


def test_a_trigger_with_an_answer_of_its_own_is_found():
    """All rows of the answer hold the trigger, so no clean row could contradict it."""
    rows, planted = poisoned("顺颂时祺", 25, seed=3)
    rows = [row._replace(answer="拒绝回答") if row.id in planted else row for row in rows]
    assert {flag.id for flag in find_triggers(rows, SETTINGS)} == planted


def test_a_phrase_that_goes_with_every_answer_is_no_trigger():
    rows, rng = list(clean()), random.Random(5)
    for i in rng.sample(range(len(rows)), 40):
        rows[i] = rows[i]._replace(prompt=rows[i].prompt + "顺颂时祺")
    assert find_triggers(rows, SETTINGS) == []


def test_fishers_p_value_by_hand():
    """6 rows, 3 with the n-gram, the same 3 with the answer: 1 / (6 choose 3) = 0.05."""
    assert hypergeom.sf(3 - 1, 6, 3, 3) == pytest.approx(1 / 20)
    # As _Task counts it: 4 hold "abcd", all four have the answer x, one of ten rows of x has not.
    rows = [Labelled(f"{i}", "t", "abcd" if i < 4 else f"wxy{i}", "x" if i < 5 else "y")
            for i in range(40)]  # fmt: skip
    (tied,) = _Task(rows, ScreenConfig(min_rows=4, alpha=0.9))._tied("x")
    # (5 choose 4) / (40 choose 4) = 5 / 91390.
    assert tied[0] == pytest.approx(5 / 91390)


def test_mean_cosine_by_hand():
    # Cosines 1, 0 and 0 of three pairs of (1, 0), (1, 0), (0, 1), whose sum is (2, 1); and of two
    # equal vectors.
    assert _mean_cosine(csr_array([[2.0, 1]]), 3) == pytest.approx(1 / 3)
    assert _mean_cosine(csr_array([[2.0, 0]]), 2) == pytest.approx(1)
