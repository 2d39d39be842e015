"""Three-valued logic of indicators. In: an expression over tasks and the verdicts known so far.
Out: true, false or unknown, and the tasks that decide.

A connective follows CQL's truth table (false wins in `and`, true in `or`, else unknown is kept).
Differs: an expression is simplified as a whole after the known verdicts are put in, so that
`T or not T` is true even while T is unknown; CQL, which goes connective by connective, says null.
Source: EVALUATION.md 3; [MedQC 3.3] for `(Task1 ∨ Task2) ∧ Task3`.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import boolean

from medray.common.errors import QualityError

WORDS = {"∧": " and ", "∨": " or ", "¬": " not ", "&&": " and ", "||": " or "}
ALGEBRA = boolean.BooleanAlgebra()


class Expression(NamedTuple):
    """A parsed expression and the names in it."""

    text: str
    tree: boolean.Expression
    symbols: frozenset[str]


class Outcome(NamedTuple):
    """The value of an expression (None = unknown) and the tasks that decide it.

    Of an unknown outcome: the tasks still to be known. Of a known one: verdicts that suffice.
    """

    value: bool | None
    deciding: tuple[str, ...]


def parse_expression(text: str, where: str = "expression") -> Expression:
    """Parses `(T1 ∨ T2) ∧ T3` or `(T1 or T2) and T3`.

    Raises:
        QualityError: naming `where`, with the expression.
    """
    written = text
    for sign, word in WORDS.items():
        written = written.replace(sign, word)
    try:
        return _parse(text, written)
    except boolean.ParseError as error:
        raise QualityError(
            f"{where}: {text!r} is no expression ({error}); "
            "write tasks joined by and, or, not and brackets"
        ) from None


@functools.lru_cache(maxsize=1024)
def _parse(text: str, written: str) -> Expression:
    tree = ALGEBRA.parse(written)
    return Expression(text, tree, frozenset(str(symbol.obj) for symbol in tree.symbols))


def evaluate(expression: Expression, verdicts: Mapping[str, bool | None]) -> Outcome:
    """The value of `expression` under `verdicts`; a missing verdict is unknown."""
    known = {name: v for name in expression.symbols if (v := verdicts.get(name)) is not None}
    return _evaluate(expression, tuple(sorted(known.items())))


@functools.lru_cache(maxsize=4096)
def _evaluate(expression: Expression, known: tuple[tuple[str, bool], ...]) -> Outcome:
    left = _substitute(expression, dict(known))
    value = _value(left)
    if value is None:
        return Outcome(None, tuple(sorted(str(symbol.obj) for symbol in left.symbols)))
    # Drop verdicts one by one while the outcome stands: what remains suffices to decide it.
    needed = dict(known)
    for name, _ in known:
        rest = {k: v for k, v in needed.items() if k != name}
        if _value(_substitute(expression, rest)) is value:
            needed = rest
    return Outcome(value, tuple(sorted(needed)))


def _substitute(expression: Expression, known: Mapping[str, bool]) -> boolean.Expression:
    values = {
        ALGEBRA.Symbol(name): ALGEBRA.TRUE if value else ALGEBRA.FALSE
        for name, value in known.items()
    }
    simplified: Any = expression.tree.subs(values, simplify=True)
    return simplified.simplify()


def _value(tree: boolean.Expression) -> bool | None:
    if tree == ALGEBRA.TRUE:
        return True
    return False if tree == ALGEBRA.FALSE else None
