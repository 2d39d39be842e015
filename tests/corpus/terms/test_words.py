"""Words with and without a dictionary, and a tokenizer that keeps to them."""

import random

from medray.corpus.terms.words import Segmenter
from medray.corpus.tokenizer import TokenizerConfig, train_tokenizer


def test_a_term_is_one_word(make) -> None:
    terms = [("1", "急性加重期", "急性加重期"), ("2", "壬癸综合征", "壬癸综合征")]
    text = "壬癸综合征急性加重期患者咳嗽3天"
    plain, medical = Segmenter(), Segmenter(make(terms))
    assert medical.words(text) == ["壬癸综合征", "急性加重期", "患者", "咳嗽", "3", "天"]
    assert not {"壬癸综合征", "急性加重期"} & set(plain.words(text))
    # Cuts between Chinese characters only: a letter or digit keeps what stands before it.
    assert list(medical.pieces("壬癸综合征患者CT示3天")) == ["壬癸综合征", "患者CT示3天"]
    assert list(medical.pieces("")) == [""]


def test_words_and_pieces_are_the_text(make) -> None:
    rng, segmenter = (
        random.Random(5),
        Segmenter(make([("1", "胃癌", "胃癌"), ("2", "ab c", "ab c")])),
    )
    for _ in range(300):
        text = "".join(rng.choices("胃癌患者咳嗽的a b c1，。\n\u3000😀", k=rng.randint(0, 30)))
        assert "".join(segmenter.words(text)) == text
        assert "".join(segmenter.pieces(text)) == text


def test_no_token_joins_two_words(make) -> None:
    segmenter = Segmenter(make([("1", "甲乙丙", "甲乙丙"), ("2", "丁戊己", "丁戊己")]))
    texts = ["甲乙丙丁戊己"] * 50
    config = TokenizerConfig(vocab_size=400, max_token_chars=6)
    plain = train_tokenizer(config, texts)
    within = train_tokenizer(config, (p for text in texts for p in segmenter.pieces(text)))
    assert plain.tokenize("甲乙丙丁戊己") != within.tokenize("甲乙丙丁戊己")
    pieces = [within.decode([token]) for token in within.encode("甲乙丙丁戊己")]
    assert pieces == ["甲乙丙", "丁戊己"]
