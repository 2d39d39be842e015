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

from medray.common.manifest import Artefact
from medray.common.records import Instruction
from medray.common.rows import read_rows
from medray.training.alone import reader_of
from medray.training.chats import Packer
from medray.training.forgetting import write_forgetting
from medray.training.language_model import (
    DecoderConfig,
    build_decoder,
    check_length,
    load_tokenizer,
)
from medray.training.optimiser import OptimiserConfig
from medray.training.packed import PackedBlocks
from medray.training.supervised import headline, train_language_model
from medray.training.trainer import Inputs, fit
from medray.training.workers import WorkersConfig


class PretrainConfig(OptimiserConfig):
    """Settings of pretraining; the defaults are the published ones [EMR-LLM 2.2]."""

    with_instructions: bool = False
    """Also read the training instructions. Source: not in [EMR-LLM]; for decoders made here."""
    answer_weight: float = Field(default=1.0, ge=1)
    """Weight of an answer's tokens in the loss, beside 1 for all others."""
    seed: int = 0


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
    train = PackedBlocks.open(corpus / "blocks", "train")
    if config.with_instructions:
        directory = inputs.fetch("instructions") / "sft"
        rows = (row for row in read_rows(directory, Instruction) if row.split == "train")
        chats = Packer(tokenizer, train.block_tokens).pack(rows, "train")
        train = train.join(chats.whole(config.answer_weight))
    model = build_decoder(decoder, tokenizer, train, config.seed)
    check_length(model, train.block_tokens, "corpus.block_tokens")
    read = reader_of(model)
    heldout = read_heldout(corpus / "blocks")
    train_language_model(
        "pretrain",
        inputs,
        config,
        model,
        tokenizer,
        read(train),
        {source: read(blocks) for source, blocks in heldout.items()},
        config.seed,
        {"title": "Pretrained decoder", "base": decoder.path or "new, Qwen3"},
        aside=GENERAL,
    )


GENERAL = "general text"
"""What is kept aside against forgetting: its held-out loss is shown, and no part of `loss`."""


def read_heldout(blocks: Path) -> dict[str, PackedBlocks]:
    """Held-out blocks of each source, and of general text as GENERAL."""
    heldout = PackedBlocks.open_groups(blocks, "heldout")
    if (blocks / "heldout_general.npy").exists():
        general = PackedBlocks.open(blocks, "heldout_general")
        if len(general):
            heldout[GENERAL] = general
    return heldout
