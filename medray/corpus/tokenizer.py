"""The corpus's own tokenizer. In: training text. Out: a Hugging Face tokenizer directory.

Byte-level BPE: any text can be written. Digits stand alone and no token crosses punctuation, so
that numbers and clause ends look the same wherever they stand.
Source: not given in the method, which starts from existing models; the form is Qwen's.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from medray.common.config import Config
from medray.common.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

BYTES_PER_HAN = 3
ROLES = ("system", "user", "assistant")
"""Words of the chat template that hospital text does not hold: one token each, not one a letter."""
PIECES = r"\p{Han}+| ?[\p{L}&&[^\p{Han}]]+|\p{N}|\s+|[^\p{L}\p{N}\s]"


class TokenizerConfig(Config):
    """The tokenizer to train; not used where a model brings its own."""

    vocab_size: int = Field(default=6_000, ge=300)
    """Source: not given; chosen so that the embedding of a 2 M-parameter model stays below half."""
    max_token_chars: int = Field(default=6, ge=1)
    """Chinese characters in one token at most, so that a small corpus does not turn its sentences
    into tokens. Source: not given."""
    max_train_chars: int = Field(default=30_000_000, ge=1)
    """Train on a sample of the documents of about this size. Source: not given; BPE merges of
    6 000 are stable far below it."""
    within_words: bool = False
    """Merges stay within words, found with `terms.dictionaries` and jieba. Source: [EMR-LLM 1.2]
    for word segmentation; off, because on 0.8 MB of an encyclopaedia it made 6 % more tokens, while
    the share of dictionary terms that begin and end with a token rose from 0.84 to 0.97."""
    pad_token: str = "<|endoftext|>"
    start_token: str = "<|im_start|>"
    eos_token: str = "<|im_end|>"
    chat_template: str = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    """ChatML."""


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> "PreTrainedTokenizerFast":
    """Trains on `texts`; the same texts give the same tokenizer."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size - len(ROLES),
        min_frequency=2,
        special_tokens=[config.pad_token, config.start_token, config.eos_token],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=BYTES_PER_HAN * config.max_token_chars,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(role, normalized=False) for role in ROLES])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=config.pad_token,
        eos_token=config.eos_token,
        additional_special_tokens=[config.start_token],
        chat_template=config.chat_template,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def trained_tokenizer(corpus: Path) -> "PreTrainedTokenizerFast":
    """Reads the tokenizer that the corpus job trained. Its class is known: transformers, asked to
    find it, would import torch, which the job needs for nothing else."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(corpus / "tokenizer", local_files_only=True)


def load_tokenizer(path: Path) -> "PreTrainedTokenizerFast":
    """Reads a tokenizer directory, from the disk only.

    Raises:
        CheckpointError: if there is none, it is not a fast one, or it has no end-of-text token.
    """
    from transformers import AutoTokenizer

    if not path.is_dir():
        raise CheckpointError(f"no model directory at {path}; set the model's path")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} holds no tokenizer that can be read ({type(error).__name__}); put "
            "tokenizer.json and tokenizer_config.json of the model there"
        ) from None
    if not tokenizer.is_fast:
        raise CheckpointError(f"the tokenizer in {path} is not a fast one; convert it to "
                              "tokenizer.json")  # fmt: skip
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"the tokenizer in {path} has no eos_token; set it in "
                              "tokenizer_config.json")  # fmt: skip
    return tokenizer


def plain_encoder(tokenizer: "PreTrainedTokenizerFast") -> "Tokenizer":
    """The tokenizer as workers use it: adds no special token and sees none in a document's text."""
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    encoder.encode_special_tokens = True
    encoder.no_padding()
    encoder.no_truncation()
    return encoder
