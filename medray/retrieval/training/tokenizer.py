"""The encoder's tokenizer. In: corpus text. Out: a Hugging Face tokenizer directory.

BERT's WordPiece: every Chinese character is a token, Latin words fall into pieces, digits stand
alone, so that 120/80 and 130/85 share tokens. Source: [BERT 3], for the digits: not given;
chosen because labs and doses are otherwise one rare token each.
Differs: the pieces are all characters and the most frequent Latin words, counted here. The
trainer of `tokenizers` numbers pieces by the order of a hash map: two runs over the same text
gave two vocabularies, and so two encoders.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORD = re.compile(r"[^\W\d_]{2,}")
"""A word of several letters; the normalizer has put spaces around each Chinese character."""


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_tokens: int, target: Path) -> None:
    """Counts the pieces of `texts` and writes a tokenizer to `target`, for `AutoTokenizer`.

    Args:
        vocab_size: pieces to keep; every character seen is kept even beyond it.
        max_tokens: what the tokenizer truncates to, [CLS] and [SEP] counted.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    vocabulary = count_pieces((normalizer.normalize_str(text) for text in texts), vocab_size)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # pyright: ignore[reportCallIssue]
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_tokens,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        # Kept explicit: without it a second segment would be numbered like the first.
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(target)


def count_pieces(texts: Iterable[str], vocab_size: int) -> dict[str, int]:
    """Returns piece → id: special tokens, characters, letters within a word, frequent words.

    Args:
        texts: normalised, lower-case.
    """
    characters: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for text in texts:
        characters.update(text)
        words.update(WORD.findall(text))
    letters = sorted({letter for word in words for letter in word})
    pieces = [*SPECIAL_TOKENS, *sorted(c for c in characters if not c.isspace())]
    pieces += [f"##{letter}" for letter in letters]
    frequent = sorted(words, key=lambda word: (-words[word], word))
    pieces += [word for word in frequent if words[word] > 1][: max(0, vocab_size - len(pieces))]
    return {piece: i for i, piece in enumerate(pieces)}
