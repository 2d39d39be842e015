from pathlib import Path

from transformers import AutoTokenizer


def test_characters_and_digits_stand_alone_after_reload(encoder_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir)
    assert tokenizer.tokenize("肺炎120") == ["肺", "炎", "1", "2", "0"]
    ids = tokenizer("肺炎")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "肺", "炎", "[SEP]"]


def test_second_segment_has_its_own_type(encoder_dir: Path) -> None:
    # [CLS] 肺 [SEP] 炎 症 [SEP]: the reward model tells prompt and response apart by it.
    encoded = AutoTokenizer.from_pretrained(encoder_dir)("肺", "炎症")
    assert encoded["token_type_ids"] == [0, 0, 0, 1, 1, 1]
