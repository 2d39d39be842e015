from pathlib import Path

from transformers import AutoTokenizer

from medray.retrieval.training.tokenizer import SPECIAL_TOKENS, count_pieces, train_tokenizer


def test_characters_and_digits_stand_alone_after_reload(encoder_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir)
    assert tokenizer.tokenize("肺炎120") == ["肺", "炎", "1", "2", "0"]
    ids = tokenizer("肺炎")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "肺", "炎", "[SEP]"]


def test_second_segment_has_its_own_type(encoder_dir: Path) -> None:
    # [CLS] 肺 [SEP] 炎 症 [SEP]: the reward model tells prompt and response apart by it.
    encoded = AutoTokenizer.from_pretrained(encoder_dir)("肺", "炎症")
    assert encoded["token_type_ids"] == [0, 0, 0, 1, 1, 1]


def test_pieces_are_counted_by_hand() -> None:
    # mg twice, abc once: only mg is worth a piece of its own
    pieces = count_pieces([" 肺  炎 5mg", "mg abc"], 100)
    expected = [*SPECIAL_TOKENS, "5", "a", "b", "c", "g", "m", "炎", "肺"]
    expected += ["##a", "##b", "##c", "##g", "##m", "mg"]
    assert list(pieces) == expected and list(pieces.values()) == list(range(len(expected)))
    assert "mg" not in count_pieces([" 肺  炎 5mg", "mg abc"], 10)


def test_same_text_gives_the_same_tokenizer(tmp_path: Path) -> None:
    texts = ["肺炎 CRP 12.5mg/L", "abc abd abe mgx rpx hgx CRP"]
    for name in "ab":
        train_tokenizer(texts, 100, 64, tmp_path / name)
    one, other = ((tmp_path / name / "tokenizer.json").read_text("utf-8") for name in "ab")
    assert one == other
    assert AutoTokenizer.from_pretrained(tmp_path / "a").tokenize("CRPx 12mg") == [
        "crp", "##x", "1", "2", "m", "##g"
    ]  # fmt: skip
