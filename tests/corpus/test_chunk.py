from medray.common.records import Document, Section
from medray.corpus.chunk import ChunkConfig, chunk, spans


def test_spans_hold_whole_sentences_and_long_ones_are_cut():
    # Sentences of 4, 4 and 4 characters; 8 fit: 4 + 4, then 4.
    assert spans("一二三。四五六。七八九。", 8) == [(0, 8), (8, 12)]
    assert spans("一二三四五六七八九十。", 4) == [(0, 4), (4, 8), (8, 11)]
    assert spans("", 4) == []


def test_a_piece_begins_with_the_last_sentences_of_the_one_before():
    text = "一二三。四五六。七八九。十。"  # at 0, 4, 8 and 12; 14 characters
    assert spans(text, 8, 1) == [(0, 8), (4, 12), (8, 14)]
    # Two of them and one of its own do not fit into 8: one does.
    assert spans(text, 8, 2) == [(0, 8), (4, 12), (8, 14)]
    assert spans(text, 12, 2) == [(0, 12), (4, 14)]
    assert spans(text, 4, 1) == [(0, 4), (4, 8), (8, 12), (12, 14)]  # none fits
    # A sentence that was cut hard is begun with by no other.
    assert spans("一二三四五。六七。八九十。", 4, 1) == [(0, 4), (4, 6), (6, 9), (9, 13)]
    numbers = ["一二三四五六七八九。", "甲乙丙丁戊己庚辛壬。", "子丑寅卯辰巳午未申。"]  # each 10
    document = Document(
        doc_id="d1", kind="guideline", title="肺炎", source="books", split="train",
        sections=[
            Section(heading="症状", text="".join(numbers)),
            Section(heading="治疗", text="首选青霉素。"),
        ],
    )  # fmt: skip
    config = ChunkConfig(max_chars=20, min_chars=5, overlap_sentences=1)
    made = [(passage.passage_id, passage.text) for passage in chunk(document, config)]
    assert made == [
        ("d1#0-0", numbers[0] + numbers[1]),
        ("d1#0-10", numbers[1] + numbers[2]),
        ("d1#1-0", "首选青霉素。"),
    ]


def test_passages_stay_in_their_section_and_point_into_it():
    document = Document(
        doc_id="d1",
        kind="guideline",
        title="肺炎",
        date="2024-01-01",
        superseded_by="d2",
        source="books",
        sections=[
            Section(heading="症状", text="咳嗽咳痰，发热。" * 5),
            Section(heading="治疗", text="首选阿莫西林。"),
            Section(heading="", text="短"),
        ],
        split="train",
    )
    passages = list(chunk(document, ChunkConfig(max_chars=20, min_chars=5)))
    assert {p.superseded_by for p in passages} == {"d2"}
    assert [p.passage_id for p in passages] == ["d1#0-0", "d1#0-16", "d1#0-32", "d1#1-0"]
    assert [p.title for p in passages] == ["肺炎 症状"] * 3 + ["肺炎 治疗"]
    by_heading = {s.heading: s.text for s in document.sections}
    assert all(p.text == by_heading[p.section][p.start : p.end] for p in passages)
    assert all(len(p.text) <= 20 for p in passages)
    assert "".join(p.text for p in passages[:3]) == by_heading["症状"]
