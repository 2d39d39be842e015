"""An engine around a small decoder with random weights and a tokenizer of single characters."""

from pathlib import Path

import pytest

from medray.generation.chat import CHAT_TEMPLATE, EOS_TOKEN, PAD_TOKEN, SPECIAL_TOKENS
from medray.generation.engine import HFEngine


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    """The model as a Hugging Face directory."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    directory = tmp_path_factory.mktemp("model")
    letters = [*SPECIAL_TOKENS, "<unk>", *"ABCD是否肺炎咳嗽哮喘胃痛三天。？“”\nuseratin"]
    words = Tokenizer(models.WordLevel({w: k for k, w in enumerate(letters)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    words.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token=PAD_TOKEN, eos_token=EOS_TOKEN,
        additional_special_tokens=SPECIAL_TOKENS[1:2], chat_template=CHAT_TEMPLATE,
    ).save_pretrained(directory)  # fmt: skip
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(letters), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, intermediate_size=32, max_position_embeddings=128,
        initializer_range=0.3, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def engine(model_dir: Path) -> HFEngine:
    return HFEngine(model_dir, batch_size=3)
