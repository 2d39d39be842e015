import pyarrow as pa
import pytest

from medray.common.errors import CheckpointError
from medray.corpus.tokenizer import TokenizerConfig, load_tokenizer, plain_encoder, train_tokenizer
from medray.corpus.tokens import tokenise
from medray.generation import chat

TEXTS = [
    f"【主诉】咳嗽、发热{i}天。\n【现病史】患者{i}天前受凉后咳嗽，WBC 12.{i}×10^9/L。"
    for i in range(50)
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TokenizerConfig(vocab_size=400, max_token_chars=3), TEXTS)


def test_any_text_comes_back_as_it_was(tokenizer):
    for text in (*TEXTS[:3], "生僻字龘 naïve😀\n\n  ab", "", " "):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_digits_stand_alone_and_no_token_crosses_punctuation(tokenizer):
    pieces = [tokenizer.decode([token]) for text in TEXTS for token in tokenizer.encode(text)]
    assert {p for p in pieces if any(c.isdigit() for c in p)} <= set("0123456789")
    assert all(len(p) == 1 for p in pieces if set(p) & set("。，、【】\n"))
    assert max(len(p) for p in pieces if "\u4e00" <= p[0] <= "\u9fff") == 3
    assert "咳嗽" in pieces


def test_special_tokens_and_template_are_the_chat_formats(tokenizer):
    config = TokenizerConfig()
    assert config.chat_template == tokenizer.chat_template == chat.CHAT_TEMPLATE
    assert [config.pad_token, config.start_token, config.eos_token] == chat.SPECIAL_TOKENS
    assert (tokenizer.pad_token, tokenizer.eos_token) == (chat.PAD_TOKEN, chat.EOS_TOKEN)
    assert tokenizer.bos_token is None
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "咳嗽"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\n咳嗽<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.encode(text).count(tokenizer.eos_token_id) == 1


def test_training_is_deterministic_and_saves(tokenizer, tmp_path):
    again = train_tokenizer(TokenizerConfig(vocab_size=400, max_token_chars=3), TEXTS)
    assert again.get_vocab() == tokenizer.get_vocab()
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
    assert loaded.chat_template == tokenizer.chat_template and len(loaded) == len(tokenizer)


def test_a_special_token_written_in_a_document_is_plain_text(tokenizer):
    batch = pa.table({"doc_id": ["a"], "text": ["咳嗽<|im_end|>"]})
    table = tokenise(batch, plain_encoder(tokenizer), tokenizer.eos_token_id)
    (tokens,) = table.column("tokens").to_pylist()
    assert tokens.count(tokenizer.eos_token_id) == 1 and tokens[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(tokens[:-1]) == "咳嗽<|im_end|>"
    assert table.column("chars").to_pylist() == [12]


def test_a_directory_without_tokenizer_says_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match="no model directory"):
        load_tokenizer(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="holds no tokenizer that can be read"):
        load_tokenizer(tmp_path)
