"""The encoder's tokenizer. In: corpus text. Out: a Hugging Face tokenizer directory.

BERT's WordPiece: every Chinese character is a token, Latin words fall into pieces, digits stand
alone, so that 120/80 and 130/85 share tokens. Source: [BERT 3], for the digits: not given;
chosen because labs and doses are otherwise one rare token each.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import WordPieceTrainer
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_tokens: int, target: Path) -> None:
    """Trains WordPiece on `texts` and writes it to `target`, for `AutoTokenizer`.

    Args:
        vocab_size: pieces to learn; every character seen is kept even beyond it.
        max_tokens: what the tokenizer truncates to, [CLS] and [SEP] counted.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # pyright: ignore[reportCallIssue]
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.WordPiece()
    trainer = WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
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
