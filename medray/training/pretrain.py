"""Continued pretraining on packed blocks. In: corpus, instructions. Out: model/.

A decoder that starts from nothing also reads the training instructions here, as plain text with
the loss on every token: it has no other place to learn to read and to quote, and the adapter of
fine-tuning is too small to teach that. An answer's few tokens may weigh more than the text around
them: with the loss on answers alone a small model learns them by heart, with equal weights it is
slow to tell a yes from a no.
Source: [EMR-LLM 1.2, 2.2]; Instruction Pre-Training (Cheng et al. 2024); prompt loss weight
(Huerta-Enochian and Ko 2024).
"""

from functools import partial
from pathlib import Path

from pydantic import Field

from medray.common.errors import DataError
from medray.common.manifest import Artefact
from medray.common.records import Instruction
from medray.common.rows import read_rows
from medray.training.alone import reader_of
from medray.training.chats import Packer
from medray.training.forgetting import write_forgetting
from medray.training.general import GENERAL, read_heldout
from medray.training.language_model import (
    DecoderConfig,
    LanguageModelLoss,
    build_decoder,
    check_length,
    load_tokenizer,
)
from medray.training.optimiser import OptimiserConfig
from medray.training.packed import PackedBlocks
from medray.training.supervised import Texts, headline, train_language_model
from medray.training.trainer import Inputs, fit
from medray.training.workers import WorkersConfig


class PretrainConfig(OptimiserConfig):
    """Settings of pretraining; the defaults are the published ones [EMR-LLM 2.2]."""

    with_instructions: bool = False
    """Also read the training instructions. Source: not in [EMR-LLM]; for decoders made here."""
    answer_weight: float = Field(default=1.0, ge=1)
    """Weight of an answer's tokens in the loss, beside 1 for all others."""


def pretrain(
    config: PretrainConfig,
    decoder: DecoderConfig,
    workers: WorkersConfig,
    corpus: tuple[str, str],
    instructions: tuple[str, str],
    artefact: Artefact,
) -> None:
    """Trains; the model comes to `artefact`. The pairs are the (step, key) of artefacts."""
    train = partial(_train, decoder)
    rows = fit(train, config, workers, artefact, corpus=corpus, instructions=instructions)
    artefact.metrics |= headline(rows) | write_forgetting(rows, artefact.dir)


def _train(decoder: DecoderConfig, inputs: Inputs[PretrainConfig]) -> None:
    config, corpus = inputs.config, inputs.fetch("corpus")
    tokenizer = load_tokenizer(decoder, corpus / "tokenizer")
    train, heldout = read_splits(corpus / "blocks")
    if config.with_instructions:
        directory = inputs.fetch("instructions") / "sft"
        rows = (row for row in read_rows(directory, Instruction) if row.split == "train")
        chats = Packer(tokenizer, train.block_tokens).pack(rows, "train")
        train = train.join(chats.whole(config.answer_weight))
    model = build_decoder(decoder, tokenizer, train, config.seed)
    check_length(model, train.block_tokens, "corpus.block_tokens")
    read = reader_of(model)
    train_language_model(
        "pretrain",
        inputs,
        config,
        LanguageModelLoss(model),
        tokenizer,
        Texts(read(train), {of: read(each) for of, each in heldout.items()}, aside=GENERAL),
        {"title": "Pretrained decoder", "base": decoder.path or "new, Qwen3"},
    )


def read_splits(blocks: Path) -> tuple[PackedBlocks, dict[str, PackedBlocks]]:
    """Training blocks, and held-out ones by source.

    Raises:
        DataError: if a split is empty; general text alone, which is no part of the held-out loss,
        does not fill it.
    """
    train, heldout = PackedBlocks.open(blocks, "train"), read_heldout(blocks)
    held_out = sum(len(found) for of, found in heldout.items() if of != GENERAL)
    if not len(train) or not held_out:
        raise DataError(
            f"pretraining needs text in both splits, found {len(train)} train and {held_out} "
            f"held-out blocks in {blocks}; look at the counts of the corpus artefact, raise "
            "corpus.dev_fraction or add sources with pretrain: true"
        )
    return train, heldout
