import pytest

from medray.common.records import Document, Section
from medray.common.sentences import split_sentences
from medray.corpus.clean import (
    CleanConfig,
    clean,
    digest,
    fault,
    normalise,
    render,
)


def document(*texts: str, title: str = "", doc_id: str = "1") -> Document:
    return Document(
        doc_id=doc_id,
        kind="emr",
        title=title,
        source="ward",
        sections=[Section(heading=h, text=t) for h, t in zip("ABCDE", texts, strict=False)],
        split="train",
    )


def test_normalise_narrows_letters_and_digits_and_keeps_chinese_punctuation():
    assert normalise("ＷＢＣ　１２．３％（高），ＣＲＰ：＜５！") == "WBC 12.3%（高），CRP：<5！"
    assert normalise("咳嗽\u200b3天\ufeff\x00。\r\n\r\n \t发热  38℃ \n") == "咳嗽3天。\n发热 38℃"
    assert normalise("") == ""


def test_normalise_twice_is_once_and_keeps_sentence_numbers():
    text = "一、咳嗽；\r\n\r\n二；；发热！ＷＢＣ１２\u3000。；\n 三?四"
    assert normalise(normalise(text)) == normalise(text)
    assert len(split_sentences(normalise(text))) == len(split_sentences(text)) == 6


def test_clean_drops_sections_that_turn_out_empty():
    cleaned = clean(document("\u200b \n", "咳嗽３天"))
    assert [(s.heading, s.text) for s in cleaned.sections] == [("B", "咳嗽3天")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("咳嗽", "too_short"),
        ("咳" * 1001, "too_long"),
        ("$ \\% { } ^ _ 1 2 3 ---", "mostly_symbols"),
        ("请勿复制本页内容。" * 40, "repetitive"),
        ("患者3天前受凉后出现咳嗽，伴发热，体温38.5℃。", None),
    ],
)
def test_quality_filter(text, reason):
    assert fault(document(text), CleanConfig(max_chars=1000)) == reason


def test_render():
    assert render(document("咳嗽", "肺炎")) == "【A】咳嗽\n【B】肺炎"
    assert render(document("咳嗽", title="肺炎")) == "《肺炎》\n【A】咳嗽"
    assert digest(document("咳嗽", doc_id="1")) == digest(document("咳嗽", doc_id="2"))
