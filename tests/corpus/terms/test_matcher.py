"""Longest match, against hand-made cases and against trying every span."""

import random

import pytest

from medray.common.errors import DataError
from medray.corpus.terms.dictionaries import Dictionary
from medray.corpus.terms.matcher import Match, Matcher
from medray.corpus.terms.vocabulary import AMBIGUOUS, Vocabulary, build_vocabulary, fold


def found(vocabulary: Vocabulary, text: str) -> list[str]:
    return [text[m.start : m.end] for m in Matcher(vocabulary).find(text)]


def test_the_longest_term_at_the_leftmost_place(make) -> None:
    vocabulary = make([("1", x, x) for x in ("心肌", "急性心肌梗死", "梗死", "死后", "急性")])
    assert found(vocabulary, "急性心肌梗死后，心肌急性梗塞") == ["急性心肌梗死", "心肌", "急性"]
    assert found(vocabulary, "") == []


def test_words_and_numbers_are_not_cut(make) -> None:
    names = ("COPD", "Diabetes mellitus", "维生素B1", "2型糖尿病", "β-blocker")
    vocabulary = make([(name, name, name) for name in names])
    assert found(vocabulary, "copd，ACOPD COPD2 患COPD者 ＣＯＰＤ") == ["copd", "COPD", "ＣＯＰＤ"]
    text = "维生素B12与维生素B1。12型糖尿病，1.2型糖尿病"
    assert found(vocabulary, text) == ["维生素B1", "2型糖尿病"]
    assert found(vocabulary, "diabetes Mellitus; diabetes mellituss") == ["diabetes Mellitus"]
    assert found(vocabulary, "Β-blocker") == ["Β-blocker"]


def test_folding_keeps_every_offset() -> None:
    text = "İSTANBUL ΑΣ Ⅱ ﬁ（ＡＢＣ）µg ẞ"
    assert len(fold(text)) == len(text)
    assert fold("ΑΣ") == fold("ας") == fold("ασ")
    assert fold("（Ａ）") == "(a)"
    assert fold("µ") == fold("μ") == fold("Μ")


def test_two_concepts_of_a_dictionary_make_a_form_ambiguous(make) -> None:
    own, public = [("o", "感冒", "感冒")], [("1", "感冒", "感冒"), ("2", "伤风", "感冒"),
                                      ("3", "伤风", "伤风"), ("4", "着凉", "伤风")]  # fmt: skip
    match = list(Matcher(make(own, public)).find("感冒与伤风"))
    # The first dictionary settles 感冒: its only concept is number 0. 伤风 is of 2, 3 and 4.
    assert match == [Match(0, 2, 0, 0), Match(3, 5, AMBIGUOUS, 1)]


def test_an_ambiguous_form_hides_what_is_within_it(make) -> None:
    twice = [("1", "甲状腺炎", "甲状腺炎"), ("2", "桥本病", "甲状腺炎")]
    vocabulary = make([*twice, ("3", "甲状腺", "甲状腺")])
    assert [m.concept for m in Matcher(vocabulary).find("甲状腺炎")] == [AMBIGUOUS]


def test_the_preferred_name_is_that_of_least_rank(tmp_path, mrconso) -> None:
    (tmp_path / "MRCONSO.RRF").write_text(mrconso, encoding="utf-8")
    umls = Dictionary(name="umls", path="MRCONSO.RRF", format="umls", languages=["ENG", "CHI"])
    vocabulary = build_vocabulary([umls], tmp_path, min_chars=2, min_latin_chars=4)
    assert vocabulary.concepts.to_pylist() == [
        {"dictionary": 0, "id": "C9000001", "name": "Pneumonia"},
        {"dictionary": 0, "id": "C9000002", "name": "Cold"},
        {"dictionary": 0, "id": "C9000003", "name": "cold"},
    ]
    matches = list(Matcher(vocabulary).find("Lung inflammation, old lung fever, COLD, 肺炎"))
    assert [(m.start, m.concept) for m in matches] == [(0, 0), (35, AMBIGUOUS), (41, 0)]


def test_short_names_are_left_out_and_counted(make) -> None:
    vocabulary = make([("1", "痔", "痔"), ("2", "ALL", "ALL"), ("3", "痔疮", "痔疮")])
    assert vocabulary.too_short == {"d0": 2}
    assert found(vocabulary, "all 痔疮 痔") == ["痔疮"]
    with pytest.raises(DataError, match="no name of d0 has 2 characters"):
        make([("1", "痔", "痔")])


def test_the_digest_tells_vocabularies_apart(make) -> None:
    first, again = make([("1", "肺炎", "肺炎")]), make([("1", "肺炎", "肺炎")])
    assert first == again and hash(first) == hash(again)
    assert first != make([("1", "肺炎", "肺炎")], replace=True)
    assert first != make([("2", "肺炎", "肺炎")])


def brute_force(forms: set[str], text: str) -> list[tuple[int, int]]:
    """Every place tries every end, the farthest first."""
    folded, spans, at = fold(text), [], 0

    def word(place: int) -> bool:
        return 0 <= place < len(folded) and folded[place] in "ab1"

    while at < len(text):
        for end in range(len(text), at, -1):
            cuts = (word(at) and word(at - 1)) or (word(end - 1) and word(end))
            if folded[at:end] in forms and not cuts:
                spans.append((at, end))
                at = end
                break
        else:
            at += 1
    return spans


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_brute_force(make, seed) -> None:
    rng = random.Random(seed)
    letters = "甲乙丙aAb1 "

    def draw(low: int, high: int) -> str:
        return "".join(rng.choices(letters, k=rng.randint(low, high)))

    names = {name.strip() for name in (draw(1, 6) for _ in range(60))} - {""}
    kept = [name for name in sorted(names) if len(name) >= 2]
    vocabulary = make([(name, name, name) for name in kept], min_latin_chars=2)
    matcher, forms = Matcher(vocabulary), {fold(name) for name in kept}
    num = 0
    for _ in range(200):
        text = draw(0, 60)
        spans = [(m.start, m.end) for m in matcher.find(text)]
        assert spans == brute_force(forms, text), (kept, text)
        num += len(spans)
    assert num > 300
