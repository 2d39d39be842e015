"""The operator on documents: what it counts, what it rewrites, and what it must never touch."""

import random
from pathlib import Path

import pytest

from medray.common.errors import ConfigError
from medray.common.records import Document, Section
from medray.common.sentences import split_sentences
from medray.corpus.terms.coverage import TermTotals
from medray.corpus.terms.edits import Edit, rewrite
from medray.corpus.terms.finder import TermFinder
from medray.corpus.terms.normalise import Terms, TermsConfig, load_terms, normalise_terms
from medray.privacy.deidentify import Label
from medray.privacy.recognise import SURROGATE

SYNONYMS = [
    ("Z1", "2型糖尿病", "2型糖尿病"), ("Z1", "2型糖尿病", "II型糖尿病"),
    ("Z1", "2型糖尿病", "糖尿病2型"),
    ("Z2", "冠状动脉性心脏病", "冠心病"), ("Z3", "头痛", "头疼"), ("Z4", "肺炎", "肺部炎症"),
]  # fmt: skip


def document(*sections: tuple[str, str]) -> Document:
    return Document(
        doc_id="d", kind="emr", source="ward", split="train",
        sections=[Section(heading=heading, text=text) for heading, text in sections],
    )  # fmt: skip


def test_nothing_is_done_unless_it_is_set() -> None:
    before = document(("诊断", "肺部炎症，血钾4umol/l"))
    assert normalise_terms(before, [], Terms(TermsConfig())) == (before, [], {})


def test_terms_are_counted_and_left_as_they_are(make) -> None:
    vocabulary = make([*SYNONYMS, ("Z5", "偏头痛", "头疼")], link=True)
    before = document(
        ("现病史", "头疼3天，冠心病史，肺部炎症。"), ("诊断", "1.冠心病（I25.1）；2.腰痛")
    )
    after, _, counts = normalise_terms(before, [], Terms(TermsConfig(), vocabulary))
    assert after == before
    # 头疼 is of two concepts. Z2, row 1, is met twice and Z4, row 3, once: 2 + 3 + 4 + 3 chars.
    assert counts == {
        "ambiguous/d0": 1, "matched/d0": 3, "concept/1": 2, "concept/3": 1, "covered/": 12,
        "entry_matched/d0": 1, "entry_unmatched/": 1,
    }  # fmt: skip


def test_diagnoses_are_settled_by_name_then_code_then_likeness(make) -> None:
    rows = [("A01", "社区获得性肺炎", "社区获得性肺炎"), ("A02", "胆囊结石", "胆囊结石"),
            ("A03", "左肾结石", "左肾结石"), ("A04", "右肾结石", "右肾结石")]  # fmt: skip
    vocabulary = make(rows, link=True)
    config = TermsConfig.model_validate({"link": {"min_similarity": 0.6}})
    text = "1.社区获得性肺炎；2.瓜囊石（a02）；3.社区获得肺炎；4.双肾结石；5.失眠"
    _, _, counts = normalise_terms(document(("诊断", text)), [], Terms(config, vocabulary))
    assert {key: n for key, n in counts.items() if key.startswith("entry")} == {
        "entry_matched/d0": 2, "entry_linked/d0": 1, "entry_ambiguous/": 1, "entry_unmatched/": 1,
    }  # fmt: skip
    assert counts["concept/0"] == 2 and counts["concept/1"] == 1
    _, _, elsewhere = normalise_terms(document(("既往史", text)), [], Terms(config, vocabulary))
    assert not [key for key in elsewhere if key.startswith("entry")]


def test_a_dictionary_whose_names_all_belong_to_an_earlier_one_links_nothing(tmp_path) -> None:
    (tmp_path / "icd.csv").write_text("code,name\nA01,肺炎\n", encoding="utf-8")
    icd = {"path": "icd.csv", "format": "icd10"}
    config = TermsConfig.model_validate(
        {"dictionaries": [{"name": "own", **icd}, {"name": "icd", "link": True, **icd}]}
    )
    text = "1.肺炎；2.肺炎症"
    _, _, counts = normalise_terms(document(("诊断", text)), [], load_terms(config, tmp_path))
    assert counts["entry_matched/own"] == counts["entry_unmatched/"] == 1


def test_synonyms_are_replaced_where_it_is_set(make) -> None:
    own = make(SYNONYMS, replace=True)
    terms = Terms(TermsConfig(units=True), own)
    text = "头疼2天，糖尿病2型、II型糖尿病，冠心病2年，血糖12MMOL/L。2230年1月2日"
    once, _, counts = normalise_terms(document(("现病史", text)), [], terms)
    # II型 has no digit: it stays, for a numeral must not change either.
    assert once.sections[0].text == (
        "头痛2天，2型糖尿病、II型糖尿病，冠状动脉性心脏病2年，血糖12mmol/L。2230年1月2日"
    )
    assert counts["replaced/d0"] == 3 and counts["unit/mmol/L"] == 1
    twice, _, again = normalise_terms(once, [], terms)
    assert twice == once and "replaced/d0" not in again and "unit/mmol/L" not in again


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (("1", "张某甲子", "患者"), "患者某甲子"),  # 者某甲子 is a surrogate
        (("1", "冠脉；病", "冠心病"), "冠心病"),  # another sentence
        (("1", "1月", "一月"), "一月"),  # another number
        (("1", "五天", "2日"), "2230年1月2日"),
        (("1", "diabetes", "糖尿病"), "糖尿病a"),  # would run into a word
    ],
)  # fmt: skip
def test_what_is_never_rewritten(make, row, text) -> None:
    assert TermFinder(make([row], replace=True)).replacements(text) == []


def test_a_sentence_that_would_then_be_read_another_way_stays(make) -> None:
    rows = [("1", "丙丁", "甲乙"), ("2", "子丑", "丙丁戊己")]
    finder = TermFinder(make(rows, replace=True))
    assert finder.replacements("甲乙戊己；甲乙戊") == [Edit(5, 7, "丙丁")]


def test_a_preferred_name_that_means_something_else_is_not_used(make) -> None:
    ambiguous = [("1", "结节", "肿物"), ("2", "结节", "结节病")]
    assert TermFinder(make(ambiguous, replace=True)).replacements("肿物") == []
    assert TermFinder(make(ambiguous[:1], replace=True)).replacements("肿物") == [
        Edit(0, 2, "结节")
    ]


def test_only_dictionaries_with_replace_rewrite(tmp_path: Path) -> None:
    for name in ("own", "public"):
        (tmp_path / f"{name}.csv").write_text(
            f"term,preferred,concept\n{name}一,{name}二三四,1\n", encoding="utf-8"
        )
    config = TermsConfig.model_validate({"dictionaries": [
        {"name": "own", "path": "own.csv", "format": "terms", "replace": True},
        {"name": "public", "path": str(tmp_path / "public.csv"), "format": "terms"},
    ]})  # fmt: skip
    after, _, counts = normalise_terms(
        document(("", "own一，public一")), [], load_terms(config, tmp_path)
    )
    assert after.sections[0].text == "own二三四，public一"
    assert counts["replaced/own"] == counts["matched/public"] == 1
    with pytest.raises(ConfigError, match="different names, got own, own"):
        twice = [config.dictionaries[0].model_dump()] * 2
        TermsConfig.parse({"dictionaries": twice}, "here")


def test_labels_follow_the_text_and_stop_edits() -> None:
    before = document(("", "血钾5umol/l，林某甲子，血钠5umol/l。"), ("", "5umol/l"))
    labels = [Label(0, "text", 10, 14, "NAME", "x"), Label(0, "heading", 20, 21, "NAME", "x"),
              Label(1, "text", 0, 3, "MRN", "x")]  # fmt: skip
    assert before.sections[0].text[10:14] == "林某甲子"

    def find(text: str) -> list[Edit]:
        return [Edit(i, i + 6, "μmol每升") for i in range(len(text)) if text[i : i + 6] == "umol/l"]

    after, moved, edits = rewrite(before, labels, find)
    assert after.sections[0].text == "血钾5μmol每升，林某甲子，血钠5μmol每升。"
    assert after.sections[0].text[moved[0].start : moved[0].end] == "林某甲子"
    assert moved[1:] == labels[1:] and after.sections[1].text == "5umol/l" and len(edits) == 2


def test_random_texts_keep_what_they_must(make) -> None:
    rng = random.Random(11)
    letters = "甲乙丙丁"
    names = sorted({"".join(rng.choices(letters, k=rng.randint(2, 4))) for _ in range(90)})
    rows = [(str(k % 30), names[k % 30], name) for k, name in enumerate(names)]
    terms = Terms(TermsConfig(units=True), make(rows, replace=True))
    fixed = ["5 umol/l", "林某甲子", "2230年5月1日", "TEL-A2ML", "38"]
    pieces = [*letters, *letters, "，", "。", "；", *fixed]
    replaced = changed = 0
    for _ in range(1_500):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 25)))
        once, _, counts = normalise_terms(document(("", text)), [], terms)
        twice, _, _ = normalise_terms(once, [], terms)
        new = once.sections[0].text
        assert twice == once, text
        assert len(split_sentences(new)) == len(split_sentences(text))
        assert SURROGATE.findall(new) == SURROGATE.findall(text)
        assert [c for c in new if c.isdigit()] == [c for c in text if c.isdigit()]
        assert new.count("2230年5月1日") == text.count("2230年5月1日")
        replaced, changed = replaced + counts["replaced/d0"], changed + (new != text)
    assert replaced > 200 and changed > 200


def test_a_surrogate_is_no_number_with_a_unit() -> None:
    before = document(("", "电话TEL-A2ML，林某甲子，[**Name 5 MG**]，输液200ML"))
    after, _, counts = normalise_terms(before, [], Terms(TermsConfig(units=True)))
    assert after.sections[0].text == "电话TEL-A2ML，林某甲子，[**Name 5 MG**]，输液200mL"
    assert counts == {"unit/mL": 1}


def test_totals_by_source_dictionary_and_concept(make) -> None:
    vocabulary = make(SYNONYMS, link=True)
    totals = TermTotals(vocabulary)
    totals.add("ward", 20, {"matched/d0": 2, "concept/3": 1, "concept/1": 1, "covered/": 5})
    totals.add("ward", 30, {"unit/μmol/L": 2, "entry_unmatched/": 1})
    totals.add("books", 10, {"matched/d0": 1, "concept/3": 1, "covered/": 4, "entry_linked/d0": 1})
    metrics = totals.metrics()
    assert metrics["units"] == {"μmol/L": 2}
    assert metrics["terms"] == {
        "sources": {
            "books": {"documents": 1, "with_terms": 1, "chars": 10, "covered_chars": 4},
            "ward": {"documents": 2, "with_terms": 1, "chars": 50, "covered_chars": 5},
        },
        "dictionaries": {"d0": {
            "matched": 3, "ambiguous": 0, "replaced": 0, "entry_matched": 0, "entry_linked": 1,
            "names_too_short": 0,
        }},
        "entries": {"matched": 0, "linked": 1, "ambiguous": 0, "unmatched": 1},
        "concepts": [
            {"dictionary": "d0", "id": "Z4", "name": "肺炎", "times": 2},
            {"dictionary": "d0", "id": "Z2", "name": "冠状动脉性心脏病", "times": 1},
        ],
    }  # fmt: skip
    assert TermTotals(None).metrics() == {}
    assert TermTotals(vocabulary).metrics()["terms"]["concepts"] == []
