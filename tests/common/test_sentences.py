"""Sentence spans, worked by hand."""

from medray.common.records import Section
from medray.common.sentences import numbered_sentences, split_sentences


def test_splits_after_end_marks_and_lines():
    #       0123456 789 0 12
    text = "胸痛3天。无热；\n咳痰"
    assert split_sentences(text) == [(0, 5), (5, 8), (9, 11)]
    assert [text[a:b] for a, b in split_sentences(text)] == ["胸痛3天。", "无热；", "咳痰"]


def test_a_mark_alone_is_no_sentence():
    assert split_sentences("") == []
    assert split_sentences("。。 \n；") == []
    assert list(split_sentences("好。。坏")) == [(0, 3), (3, 4)]


def test_half_width_marks_give_the_same_numbers():
    full, half = "房颤；无瓣膜病！评分2分？", "房颤;无瓣膜病!评分2分?"
    assert split_sentences(full) == split_sentences(half)


def test_numbering_runs_over_the_named_sections_in_record_order():
    sections = [
        Section(heading="主诉", text="心悸。"),
        Section(heading="治疗", text="抗凝；复查。"),
        Section(heading="诊断", text="心房颤动"),
    ]
    numbered = numbered_sentences(sections, ["诊断", "治疗"])
    assert [(s.section, s.index, s.text) for s in numbered] == [
        (1, 0, "抗凝；"), (1, 1, "复查。"), (2, 0, "心房颤动"),
    ]  # fmt: skip
    assert len(numbered_sentences(sections)) == 4
    for s in numbered:
        assert sections[s.section].text[s.start : s.end] == s.text
