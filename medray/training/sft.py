"""Supervised fine-tuning with LoRA, the loss on the answer only. In: a model, instructions.

    sequence = [q; sep; a], loss over a       (separators come from the chat template)

Source: [EMR-LLM 1.3], [ClinicalGPT 2.2, 3.1].
"""

import logging
from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase

from medray.common.errors import DataError
from medray.common.manifest import Artefact, Counts
from medray.common.records import Instruction, Message
from medray.common.rows import read_rows
from medray.common.storage import Storage
from medray.training.language_model import LoraConfig, add_lora, load_decoder
from medray.training.optimiser import OptimiserConfig
from medray.training.packed import PackedBlocks
from medray.training.supervised import headline, train_language_model
from medray.training.trainer import WorkersConfig, fit

logger = logging.getLogger(__name__)


class SftConfig(OptimiserConfig):
    """Settings of fine-tuning."""

    learning_rate: float = 2e-4
    """[EMR-LLM 1.3]."""
    lora: LoraConfig | None = LoraConfig()
    """None fine-tunes every weight."""
    block_tokens: int = 1024
    """Longest example [ClinicalGPT 3.1]; also the size of a packed block."""
    num_heldout: int = 2000
    """Held-out examples that the loss is measured on."""
    seed: int = 0


def fine_tune(
    config: SftConfig,
    workers: WorkersConfig,
    base: tuple[str, str],
    instructions: tuple[str, str],
    artefact: Artefact,
) -> None:
    """Trains; the model comes to `artefact`. The pairs are the (step, key) of artefacts."""
    arguments = {
        "config": config,
        "workers": workers,
        "storage": artefact.storage.config,
        "base": base,
        "instructions": instructions,
    }
    artefact.metrics |= headline(fit(_train, arguments, workers, artefact))


def _train(arguments: dict[str, Any]) -> None:
    config: SftConfig = arguments["config"]
    storage = Storage(arguments["storage"])
    base = storage.fetch(*arguments["base"])
    model, tokenizer = load_decoder(base / "model")
    if config.lora is not None:
        model = add_lora(model, config.lora, config.seed)
    directory = storage.fetch(*arguments["instructions"]) / "sft"
    rows = list(read_rows(directory, Instruction))
    train = pack_instructions(
        [row for row in rows if row.split == "train"], tokenizer, config.block_tokens, "train"
    )
    heldout = [row for row in rows if row.split == "dev"][: config.num_heldout]
    train_language_model(
        "sft",
        model,
        tokenizer,
        train,
        pack_instructions(heldout, tokenizer, config.block_tokens, "held-out"),
        config,
        arguments["workers"],
        config.seed,
        {"title": "Fine-tuned decoder", "base": f"{arguments['base'][0]}/{arguments['base'][1]}"},
        arguments["progress"],
    )


def pack_instructions(
    rows: Iterable[Instruction], tokenizer: PreTrainedTokenizerBase, block_tokens: int, what: str
) -> PackedBlocks:
    """Tokenises and packs; examples longer than a block are left out and counted."""
    counts, sequences = Counts(), []
    known: dict[str, tuple[list[int], list[bool]]] = {}  # a weight above 1 repeats rows
    for row in rows:
        counts.rows_in += 1
        chat = row.model_dump_json(include={"messages"})
        if chat not in known:
            known[chat] = tokenise_chat(row.messages, tokenizer)
        tokens, answers = known[chat]
        if len(tokens) > block_tokens:
            counts.reject("too_long")
        else:
            sequences.append((tokens, answers))
            counts.rows_out += 1
    if not sequences:
        raise DataError(
            f"no {what} instruction fits into {block_tokens} tokens ({counts.rows_in} read); "
            "raise sft.block_tokens or look at the instructions artefact"
        )
    logger.info("%s instructions: %s", what, counts)
    pad: Any = tokenizer.pad_token_id
    eos: Any = tokenizer.eos_token_id
    return PackedBlocks.pack(sequences, block_tokens, eos if pad is None else pad)


def tokenise_chat(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[bool]]:
    """Tokens of a chat, and which of them are the assistant's words (its end token included).

    The template is rendered turn by turn and the pieces are tokenised one by one, so that this
    works with any chat template whose rendering of a prefix is a prefix of the rendering.
    """
    chat = [message.model_dump() for message in messages]
    pieces: list[tuple[str, bool]] = []
    done = ""
    for k, message in enumerate(chat):
        if message["role"] != "assistant":
            continue
        prefix = _render(tokenizer, chat[:k], add_generation_prompt=True)
        whole = _render(tokenizer, chat[: k + 1], add_generation_prompt=False)
        if not (prefix.startswith(done) and whole.startswith(prefix)):
            raise DataError("this chat template rewrites earlier turns; give a plain ChatML one")
        answer = whole[len(prefix) :].rstrip("\n")
        pieces += [(prefix[len(done) :], False), (answer, True)]
        done = prefix + answer
    tokens: list[int] = []
    answers: list[bool] = []
    for text, is_answer in pieces:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens += ids
        answers += [is_answer] * len(ids)
    return tokens, answers


def _render(
    tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, Any]], *, add_generation_prompt: bool
) -> str:
    return str(
        tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    )
