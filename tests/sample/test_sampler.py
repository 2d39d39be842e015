"""Prices of choices, misspellings, identifiers."""

import math
from datetime import date

import pytest

from medray.sample.identity import check_digit, draw_identity
from medray.sample.sampler import Sampler
from medray.sample.text import Speller, TextBuilder


def test_each_choice_adds_its_price() -> None:
    sampler = Sampler("k")
    sampler.choice("abcd")
    assert sampler.nll_nats == pytest.approx(math.log(4))
    sampler.arrange("abc", 2)  # 3 x 2 ordered pairs
    assert sampler.nll_nats == pytest.approx(math.log(4 * 6))
    outcome = sampler.flip(0.2)
    assert sampler.nll_nats == pytest.approx(math.log(24) - math.log(0.2 if outcome else 0.8))


def test_certain_and_free_choices_cost_nothing() -> None:
    sampler = Sampler("k")
    assert sampler.flip(1.0) and not sampler.flip(0.0)
    assert sampler.arrange([], 0) == [] and sampler.choice(["only"]) == "only"
    sampler.free.random()
    assert sampler.nll_nats == 0.0


def test_free_choices_do_not_move_the_counted_stream() -> None:
    one, other = Sampler("k"), Sampler("k")
    other.free.random()
    assert [one.choice(range(99)) for _ in range(5)] == [other.choice(range(99)) for _ in range(5)]


def test_misspelling_price_and_rate() -> None:
    speller = Speller({"嗽": "漱", "敏": "每民"}, 0.3)
    sampler = Sampler("spell")
    text = speller.spell("嗽敏" * 1000, sampler)
    changed = {c: text.count(c) for c in "漱每民"}
    num = sum(changed.values())
    # each: ln 0.3 or ln 0.7; one of two characters for 敏: ln 2 more
    price = -num * math.log(0.3) - (2000 - num) * math.log(0.7)
    price += (changed["每"] + changed["民"]) * math.log(2)
    assert sampler.nll_nats == pytest.approx(price)
    assert len(text) == 2000 and num == speller.num_changed and speller.num_eligible == 2000
    assert num / 2000 == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 2000))


def test_identifiers_are_never_misspelt() -> None:
    builder = TextBuilder(Sampler("k"), Speller({"胸": "凶"}, 0.49))
    for _ in range(50):
        builder.add("胸").phi("NAME", "胸")
    spans = [builder.text[s.start : s.end] for s in builder.spans]
    assert spans == ["胸"] * 50 and "凶" in builder.text


def test_check_digit_by_hand() -> None:
    # 11010519491231002: 7+9+0+5+0+20+2+9+24+27+... the standard's example ends in X
    assert check_digit("11010519491231002") == "X"
    # only the first weight counts: 1 x 7 = 7 mod 11 -> "5"; nothing counts: 0 -> "1"
    assert check_digit("1" + "0" * 16) == "5"
    assert check_digit("0" * 17) == "1"


def test_identity_fits_age_and_sex() -> None:
    for number in range(50):
        who = draw_identity(Sampler(f"{number}").free, age=40, sex=number % 2, hospital="医院")
        number_17, check = who.resident_id[:17], who.resident_id[17]
        assert check_digit(number_17) == check and int(number_17[16]) % 2 == number % 2
        born = date(int(number_17[6:10]), int(number_17[10:12]), int(number_17[12:14]))
        assert 39.9 < (who.admitted - born).days / 365.25 < 41
        assert who.earlier < who.admitted
