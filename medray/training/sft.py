"""Supervised fine-tuning, the loss on the answer only. In: a model, instructions.

    sequence = [q; sep; a], loss over a       (separators come from the chat template)

Source: [EMR-LLM 1.3], [ClinicalGPT 2.2, 3.1].
"""

from collections.abc import Callable, Iterable
from functools import partial, reduce

from pydantic import Field, model_validator

from medray.common.errors import DataError
from medray.common.manifest import Artefact
from medray.common.records import Instruction
from medray.common.rows import read_rows
from medray.training.alone import Blocks, reader_of
from medray.training.chats import Packer, Reduction
from medray.training.curriculum import CurriculumConfig, StagedSampler, rows_of_stage
from medray.training.distil import DistilConfig, DistillationLoss, load_teacher
from medray.training.forgetting import write_forgetting
from medray.training.general import GENERAL, read_general, read_text, with_text
from medray.training.language_model import (
    LanguageModelLoss,
    LoraConfig,
    add_lora,
    check_length,
    load_decoder,
)
from medray.training.optimiser import OptimiserConfig
from medray.training.packed import PackedBlocks
from medray.training.soft_prompt import SoftPromptConfig, add_soft_prompt
from medray.training.supervised import Texts, headline, train_language_model
from medray.training.trainer import Inputs, fit
from medray.training.workers import WorkersConfig


class SftConfig(OptimiserConfig):
    """Settings of fine-tuning."""

    learning_rate: float = 2e-4
    """[EMR-LLM 1.3]."""
    lora: LoraConfig | None = LoraConfig()
    """None fine-tunes every weight, or the soft prompt alone."""
    soft_prompt: SoftPromptConfig | None = None
    """Prompt tuning, in place of LoRA."""
    distil: DistilConfig | None = None
    """Learn from a larger teacher too."""
    general_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of the blocks, and of the loss, that is general text of the corpus, replayed against
    forgetting. Source: not in the papers."""
    text_fraction: float = Field(default=0.0, ge=0, lt=1)
    """The same of the text that was pretrained on, which keeps what only it tells. Source: not in
    the papers; Ibrahim et al. 2024 (replay)."""
    block_tokens: int = 1024
    """Longest example [ClinicalGPT 3.1]; also the size of a packed block."""
    reduction: Reduction = "token"
    """What weighs alike in the loss: answer tokens [EMR-LLM 1.3] or examples [ClinicalGPT 2.2]."""
    prompt_weight: float = Field(default=0.0, ge=0, le=1)
    """Weight of a question's tokens in the loss, beside 1 for an answer's; held-out loss is of
    answers alone. A small model with the loss on answers alone learns them by heart, with equal
    weights it is slow to tell a yes from a no. Source: not in the papers; Huerta-Enochian and Ko
    2024 (prompt loss weight)."""
    max_rows: int | None = Field(default=None, ge=1)
    """Training examples to draw from, the first of the shuffled artefact; None: all. For runs of
    so few steps that to tokenise all takes longer than to learn."""
    curriculum: CurriculumConfig | None = None
    """Stages in place of one mixture; `total_steps` must then be 0, for the stages' epochs say how
    many there are."""
    num_heldout: int = Field(default=2000, ge=1)
    """Held-out examples that the loss is measured on."""

    @model_validator(mode="after")
    def _check_sft(self) -> "SftConfig":
        if (self.curriculum is None) != (self.total_steps > 0):
            raise ValueError(
                "sft takes its number of steps from total_steps or, with total_steps 0, from the "
                f"epochs of its curriculum; got total_steps {self.total_steps} and "
                f"{'no' if self.curriculum is None else 'a'} curriculum"
            )
        if self.text_fraction + self.general_fraction >= 1:
            raise ValueError("sft.text_fraction and sft.general_fraction leave nothing to learn")
        if self.lora is not None and self.soft_prompt is not None:
            raise ValueError("sft trains adapters or a soft prompt: set sft.lora to null for it")
        if self.soft_prompt is not None and self.zero_stage == 3:
            raise ValueError("sft.soft_prompt takes zero_stage 0, 1 or 2: word vectors stay whole")
        if self.soft_prompt is not None and self.distil is not None:
            raise ValueError("the teacher of sft.distil cannot read the tokens of a soft prompt")
        return self

    @property
    def replays(self) -> bool:
        """Whether it reads the corpus too."""
        return self.general_fraction > 0 or self.text_fraction > 0


def fine_tune(
    config: SftConfig,
    workers: WorkersConfig,
    base: tuple[str, str],
    instructions: tuple[str, str],
    artefact: Artefact,
    corpus: tuple[str, str] | None = None,
) -> None:
    """Trains; the model comes to `artefact`. The pairs are the (step, key) of artefacts; `corpus`
    is needed for general text only."""
    parents = {"base": base, "instructions": instructions}
    if corpus is not None:
        parents["corpus"] = corpus
    rows = fit(_train, config, workers, artefact, **parents)
    artefact.metrics |= headline(rows) | write_forgetting(rows, artefact.dir)


def _train(inputs: Inputs[SftConfig]) -> None:
    config = inputs.config
    model, tokenizer = load_decoder(inputs.fetch("base") / "model")
    check_length(model, config.block_tokens, "sft.block_tokens")
    wrap, models = LanguageModelLoss, [model]
    if config.distil is not None:
        teacher = load_teacher(config.distil, tokenizer)
        models.append(teacher)
        wrap = partial(
            DistillationLoss, teacher=teacher, num_tokens=len(tokenizer), config=config.distil
        )
    read = reader_of(*models)  # in fp32
    if config.lora is not None:
        model = add_lora(model, config.lora, config.seed)
    elif config.soft_prompt is not None:
        model = add_soft_prompt(model, tokenizer, config.soft_prompt, config.seed)
    packer = Packer(tokenizer, config.block_tokens, config.reduction)
    texts, total_steps = read_texts(inputs, packer, read)
    # How many rows make a block is known only now; the schedule needs the steps.
    config = config.model_copy(update={"total_steps": total_steps})
    card = {"title": "Fine-tuned decoder", "base": inputs.name("base")}
    if config.distil is not None:
        card["teacher"] = config.distil.path
    train_language_model("sft", inputs, config, wrap(model), tokenizer, texts, card)


def read_texts(
    inputs: Inputs[SftConfig], packer: Packer, read: Callable[[PackedBlocks], Blocks]
) -> tuple[Texts, int]:
    """The blocks to learn from and to be measured on, and the number of steps.

    Raises:
        DataError: if a split is empty, or none of its examples fits into a block.
    """
    config = inputs.config
    rows = list(read_rows(inputs.fetch("instructions") / "sft", Instruction))
    train = [row for row in rows if row.split == "train"][: config.max_rows]
    dev = [row for row in rows if row.split == "dev"][: config.num_heldout]
    if not train or not dev:
        raise DataError(
            f"sft needs instructions in both splits, found {len(train)} train and {len(dev)} dev; "
            "look at the counts of the instructions artefact"
        )
    heldout = packer.pack_by_task(dev, "held-out")
    replayed: list[tuple[PackedBlocks, float]] = []
    if config.replays:
        blocks = inputs.fetch("corpus") / "blocks"
        size = config.block_tokens, packer.pad
        if config.text_fraction:
            # Of all but the general text, which comes after, so that both have their shares.
            share = config.text_fraction / (1 - config.general_fraction)
            replayed.append((read_text(blocks, *size), share))
        if config.general_fraction:
            general, heldout[GENERAL] = read_general(blocks, *size)
            replayed.append((general, config.general_fraction))

    def pack(rows: Iterable[Instruction], what: str) -> PackedBlocks:
        packed = packer.pack(rows, what)
        if config.prompt_weight:
            packed = packed.whole(prompt_weight=config.prompt_weight)
        for text, fraction in replayed:
            packed = with_text(packed, text, fraction, config.seed)
        return packed

    held_out = {task: read(blocks) for task, blocks in heldout.items()}
    if config.curriculum is None:
        return Texts(read(pack(train, "train")), held_out, GENERAL), config.total_steps
    stages = config.curriculum.all_stages
    parts = [pack(rows_of_stage(stage, train), stage.name) for stage in stages]
    sampler = StagedSampler(
        [len(read(part)) for part in parts],
        [stage.epochs for stage in stages],
        config.batch_size,
        config.seed,
    )
    milestones = sampler.milestones([stage.name for stage in stages])
    whole = read(reduce(PackedBlocks.join, parts))
    return Texts(whole, held_out, GENERAL, sampler, milestones), sampler.total_steps
