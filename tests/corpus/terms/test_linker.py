"""Links of variants, and the entries of a diagnosis section."""

import math
from collections import Counter

import pytest

from medray.corpus.terms.entries import diagnosis_entries
from medray.corpus.terms.linker import LinkConfig, Linker, is_linked
from medray.corpus.terms.vocabulary import AMBIGUOUS

NAMES = ["乳房病损切除术", "乳房根治性切除术", "甲状腺病损切除术", "膝关节镜检查"]


def cosine(term: str, names: list[str]) -> list[float]:
    """TF-IDF of single characters and pairs by the textbook: idf = 1 + ln((1 + N) / (1 + df))."""

    def grams(text: str) -> Counter[str]:
        return Counter([*text, *(text[i : i + 2] for i in range(len(text) - 1))])

    frequency = Counter(gram for name in names for gram in set(grams(name)))

    def vector(text: str) -> dict[str, float]:
        weights = {
            gram: times * (1 + math.log((1 + len(names)) / (1 + frequency[gram])))
            for gram, times in grams(text).items()
            if gram in frequency
        }
        norm = math.hypot(*weights.values())
        return {gram: weight / norm for gram, weight in weights.items()}

    left = vector(term)
    return [sum(w * left.get(g, 0) for g, w in vector(name).items()) for name in names]


def test_similarity_is_the_cosine_of_tf_idf(make) -> None:
    linker = Linker(make([(name, name, name) for name in NAMES], link=True))
    for term in ("左乳房病损切除术", "膝关节镜", "切除术", *NAMES):
        link, wanted = linker.nearest(term), cosine(term, NAMES)
        assert link is not None
        best, second = sorted(wanted)[:-3:-1]
        assert link.similarity == pytest.approx(best, abs=1e-5)
        assert link.margin == pytest.approx(best - second, abs=1e-5)
        assert wanted[link.concept] == pytest.approx(best)
    assert linker.nearest("CT") is None


def test_other_names_of_the_same_concept_do_not_narrow_the_margin(make) -> None:
    name = "甲状腺病损切除术"
    rows = [("1", name, name), ("1", name, name[:-1]), ("2", "膝关节镜检查", "膝关节镜检查")]
    link = Linker(make(rows, link=True)).nearest(name)
    assert link is not None and link.concept == 0
    assert link.similarity == link.margin == pytest.approx(1)


def test_a_link_needs_likeness_and_distance_from_the_next(make) -> None:
    twice = [("1", "感冒", "上呼吸道感染"), ("2", "流感", "上呼吸道感染")]
    link = Linker(make(twice, link=True)).nearest("上呼吸道感染")
    assert link is not None and link.concept == AMBIGUOUS and not is_linked(link, LinkConfig())
    assert not is_linked(None, LinkConfig())
    one = Linker(make([("1", "上呼吸道感染", "上呼吸道感染")], link=True)).nearest("上呼吸道感染")
    assert is_linked(one, LinkConfig(min_similarity=0.99, min_margin=0.99))
    near = Linker(make([(n, n, n) for n in ("左肾结石", "右肾结石")], link=True)).nearest(
        "双肾结石"
    )
    assert near is not None and near.margin == pytest.approx(0, abs=1e-6)
    assert not is_linked(near, LinkConfig(min_similarity=0.1))


def test_only_dictionaries_with_link_take_part(make) -> None:
    vocabulary = make([("1", "肺炎", "肺炎")])
    with pytest.raises(ValueError, match="empty vocabulary"):
        Linker(vocabulary)


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("1. 间质性肺炎（J18.9）；2. 2型糖尿病", [("间质性肺炎", "J18.9"), ("2型糖尿病", "")]),
        ("1.肺炎 2.高血压病3级，很高危", [("肺炎", ""), ("高血压病3级，很高危", "")]),
        ("主要诊断：结核性肾脓肿(ICD10：A18.104+N29.1*)\n其他诊断：①贫血？②肾结石",
         [("结核性肾脓肿", "A18.104+N29.1*"), ("贫血", ""), ("肾结石", "")]),
        ("1、胃癌(T3N2M0)。", [("胃癌(T3N2M0)", "")]),
        ("咳嗽待查？\n考虑肺炎可能", [("咳嗽", ""), ("肺炎", "")]),
        ("肺炎（j18.900x001）", [("肺炎", "J18.900X001")]),
        ("患者某甲子；痔；。", []),
        ("病" * 41, []),
        ("", []),
    ],
)  # fmt: skip
def test_entries_of_a_diagnosis_section(text, entries) -> None:
    assert list(diagnosis_entries(text, 40)) == entries
