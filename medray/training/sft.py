"""Supervised fine-tuning with LoRA, the loss on the answer only. In: a model, instructions.

    sequence = [q; sep; a], loss over a       (separators come from the chat template)

Source: [EMR-LLM 1.3], [ClinicalGPT 2.2, 3.1].
"""

from typing import Any

from pydantic import Field

from medray.common.manifest import Artefact
from medray.common.records import Instruction
from medray.common.rows import read_rows
from medray.common.storage import Storage
from medray.training.chats import pack_instructions
from medray.training.language_model import LoraConfig, add_lora, load_decoder
from medray.training.optimiser import OptimiserConfig
from medray.training.supervised import headline, train_language_model
from medray.training.trainer import WorkersConfig, fit


class SftConfig(OptimiserConfig):
    """Settings of fine-tuning."""

    learning_rate: float = 2e-4
    """[EMR-LLM 1.3]."""
    lora: LoraConfig | None = LoraConfig()
    """None fine-tunes every weight."""
    block_tokens: int = 1024
    """Longest example [ClinicalGPT 3.1]; also the size of a packed block."""
    max_rows: int | None = Field(default=None, ge=1)
    """Training examples to draw from, the first of the shuffled artefact; None: all. For runs of
    so few steps that to tokenise all takes longer than to learn."""
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
    train = [row for row in rows if row.split == "train"][: config.max_rows]
    heldout = [row for row in rows if row.split == "dev"][: config.num_heldout]
    train_language_model(
        "sft",
        model,
        tokenizer,
        pack_instructions(train, tokenizer, config.block_tokens, "train"),
        pack_instructions(heldout, tokenizer, config.block_tokens, "held-out"),
        config,
        arguments["workers"],
        config.seed,
        {"title": "Fine-tuned decoder", "base": f"{arguments['base'][0]}/{arguments['base'][1]}"},
        arguments["progress"],
    )
