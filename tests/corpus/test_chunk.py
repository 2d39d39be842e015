from medray.common.records import Document, Section
from medray.corpus.chunk import ChunkConfig, chunk, spans


def test_spans_hold_whole_sentences_and_long_ones_are_cut():
    # Sentences of 4, 4 and 4 characters; 8 fit: 4 + 4, then 4.
    assert spans("一二三。四五六。七八九。", 8) == [(0, 8), (8, 12)]
    assert spans("一二三四五六七八九十。", 4) == [(0, 4), (4, 8), (8, 11)]
    assert spans("", 4) == []


def test_passages_stay_in_their_section_and_point_into_it():
    document = Document(
        doc_id="d1",
        kind="guideline",
        title="肺炎",
        date="2024-01-01",
        source="books",
        sections=[
            Section(heading="症状", text="咳嗽咳痰，发热。" * 5),
            Section(heading="治疗", text="首选阿莫西林。"),
            Section(heading="", text="短"),
        ],
        split="train",
    )
    passages = list(chunk(document, ChunkConfig(max_chars=20, min_chars=5)))
    assert [p.passage_id for p in passages] == ["d1#0-0", "d1#0-16", "d1#0-32", "d1#1-0"]
    assert [p.title for p in passages] == ["肺炎 症状"] * 3 + ["肺炎 治疗"]
    by_heading = {s.heading: s.text for s in document.sections}
    assert all(p.text == by_heading[p.section][p.start : p.end] for p in passages)
    assert all(len(p.text) <= 20 for p in passages)
    assert "".join(p.text for p in passages[:3]) == by_heading["症状"]
