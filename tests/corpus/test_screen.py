"""Poison that is planted is found; the sample hospital, which has none, gives no alarm."""

import json
import random
from functools import cache

import numpy as np
import pytest
from scipy.stats import hypergeom

from medray.common.records import Instruction, Message
from medray.corpus.screen import (
    Flag,
    Labelled,
    ScreenConfig,
    _mean_cosine,
    _Task,
    find_conflicts,
    find_triggers,
    labelled,
    write_flags,
)
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
    assert all(flag.p_value is not None and flag.p_value < 1e-8 for flag in flags)
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
    # Cosines 1, 0 and 0 of three pairs.
    assert _mean_cosine(np.array([[1.0, 0], [1, 0], [0, 1]])) == pytest.approx(1 / 3)


def test_label_conflicts_on_near_identical_inputs():
    def row(number: int, answer: str, task: str = "a") -> Labelled:
        return Labelled(str(number), task, "", answer)

    rows = [
        row(0, "肺炎"), row(1, "肺炎"), row(2, "感冒"),  # one against two
        row(3, "哮喘"), row(4, "感冒"),  # one against one
        row(5, "胃炎"), row(6, "胃炎"),  # agreed
        row(7, "胃炎"),  # alone
        row(8, "长" * 41), row(9, "别" * 41),  # free text
    ]  # fmt: skip
    labels = np.array([0, 0, 0, 3, 3, 5, 5, 7, 8, 8])
    flags = find_conflicts(rows, labels, ScreenConfig(max_conflicts=0.7))
    assert flags == [
        Flag("2", "label_conflict", "a/0"),
        Flag("3", "label_conflict", "a/3"),
        Flag("4", "label_conflict", "a/3"),
    ]
    # Two of three groups in conflict: in such a task near-identical inputs differ by nature.
    assert find_conflicts(rows, labels, ScreenConfig(max_conflicts=0.6)) == []
    # The same inputs in two tasks do not meet.
    apart = [row(0, "肺炎", "a"), row(1, "感冒", "b")]
    assert find_conflicts(apart, np.zeros(2, int), SETTINGS) == []


def test_what_a_screen_sees_of_a_row_and_writes(tmp_path):
    messages = [("system", "你是 医生。"), ("user", "咳嗽\n CF"), ("assistant", "肺炎 Ａ")]
    row = Instruction(
        id="1", task="diagnosis", split="train",
        messages=[Message(role=role, content=content) for role, content in messages],
    )  # fmt: skip
    assert labelled(row) == Labelled("1", "diagnosis", " 你是 医生。 咳嗽 cf ", "肺炎 ａ")
    assert labelled(row.model_copy(update={"answer": "肺炎"})).answer == "肺炎"
    flags = [Flag("1", "trigger", "diagnosis/1", 1e-9), Flag("1", "label_conflict", "diagnosis/1")]
    path = tmp_path / "quarantine" / "flags.jsonl"
    assert write_flags(path, flags) == 1
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [Flag(**json.loads(line)) for line in lines] == flags
    assert path.stat().st_mode & 0o077 == 0
