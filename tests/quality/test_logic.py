"""Three-valued logic against CQL's truth table, written out by hand."""

import pytest

from medray.common.errors import QualityError
from medray.quality.logic import evaluate, parse_expression

T, F, U = True, False, None
AND = {(T, T): T, (T, F): F, (T, U): U, (F, T): F, (F, F): F, (F, U): F,
       (U, T): U, (U, F): F, (U, U): U}  # fmt: skip
OR = {(T, T): T, (T, F): T, (T, U): T, (F, T): T, (F, F): F, (F, U): U,
      (U, T): T, (U, F): U, (U, U): U}  # fmt: skip


@pytest.mark.parametrize("pair", AND)
def test_connectives_follow_the_truth_table_of_cql(pair: tuple) -> None:
    verdicts = dict(zip("AB", pair, strict=True))
    assert evaluate(parse_expression("A and B"), verdicts).value is AND[pair]
    assert evaluate(parse_expression("A or B"), verdicts).value is OR[pair]


@pytest.mark.parametrize(("value", "negated"), [(T, F), (F, T), (U, U)])
def test_not_keeps_unknown(value: bool | None, negated: bool | None) -> None:
    assert evaluate(parse_expression("not A"), {"A": value}).value is negated


@pytest.mark.parametrize(
    ("verdicts", "value", "deciding"),
    [
        ((T, U, T), T, ("T1", "T3")),  # one way of success is enough
        ((U, U, F), F, ("T3",)),  # poor flow decides, whatever the stenosis
        ((F, F, U), F, ("T1", "T2")),
        ((U, F, T), U, ("T1",)),  # all hangs on T1
        ((U, U, T), U, ("T1", "T2")),
        ((T, U, U), U, ("T3",)),  # T2 does not matter any more
        ((U, U, U), U, ("T1", "T2", "T3")),
    ],
)
def test_pci_success_names_the_tasks_that_decide(
    verdicts: tuple, value: bool | None, deciding: tuple
) -> None:
    expression = parse_expression("(T1 ∨ T2) ∧ T3")
    outcome = evaluate(expression, dict(zip(("T1", "T2", "T3"), verdicts, strict=True)))
    assert outcome == (value, deciding)


def test_signs_and_words_are_the_same() -> None:
    verdicts = {"A": True, "B": False}
    signs, words = parse_expression("A∧¬B"), parse_expression("A and not B")
    assert evaluate(signs, verdicts) == evaluate(words, verdicts) == (True, ("A", "B"))


@pytest.mark.parametrize("text", ["A and", "A B", "(A", "A - B", ""])
def test_what_is_no_expression_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(QualityError, match=r"populations\.numerator"):
        parse_expression(text, "populations.numerator")
