"""Supervised fine-tuning with LoRA, the loss on the answer only. In: a model, instructions.

    sequence = [q; sep; a], loss over a       (separators come from the chat template)

Source: [EMR-LLM 1.3], [ClinicalGPT 2.2, 3.1].
"""

from functools import reduce

from pydantic import Field, model_validator

from medray.common.manifest import Artefact
from medray.common.records import Instruction
from medray.common.rows import read_rows
from medray.training.alone import reader_of
from medray.training.chats import Packer, Reduction
from medray.training.curriculum import CurriculumConfig, StagedSampler, rows_of_stage
from medray.training.forgetting import write_forgetting
from medray.training.language_model import LoraConfig, add_lora, check_length, load_decoder
from medray.training.optimiser import OptimiserConfig
from medray.training.packed import PackedBlocks
from medray.training.supervised import headline, train_language_model
from medray.training.trainer import Inputs, fit
from medray.training.workers import WorkersConfig


class SftConfig(OptimiserConfig):
    """Settings of fine-tuning."""

    learning_rate: float = 2e-4
    """[EMR-LLM 1.3]."""
    lora: LoraConfig | None = LoraConfig()
    """None fine-tunes every weight."""
    block_tokens: int = 1024
    """Longest example [ClinicalGPT 3.1]; also the size of a packed block."""
    reduction: Reduction = "token"
    """What weighs alike in the loss: answer tokens [EMR-LLM 1.3] or examples [ClinicalGPT 2.2]."""
    max_rows: int | None = Field(default=None, ge=1)
    """Training examples to draw from, the first of the shuffled artefact; None: all. For runs of
    so few steps that to tokenise all takes longer than to learn."""
    curriculum: CurriculumConfig | None = None
    """Stages in place of one mixture; `total_steps` must then be 0, for the stages' epochs say how
    many there are."""
    num_heldout: int = 2000
    """Held-out examples that the loss is measured on."""
    seed: int = 0

    @model_validator(mode="after")
    def _check_sft(self) -> "SftConfig":
        if (self.curriculum is None) != (self.total_steps > 0):
            raise ValueError(
                "sft takes its number of steps from total_steps or, with total_steps 0, from the "
                f"epochs of its curriculum; got total_steps {self.total_steps} and "
                f"{'no' if self.curriculum is None else 'a'} curriculum"
            )
        return self


def fine_tune(
    config: SftConfig,
    workers: WorkersConfig,
    base: tuple[str, str],
    instructions: tuple[str, str],
    artefact: Artefact,
) -> None:
    """Trains; the model comes to `artefact`. The pairs are the (step, key) of artefacts."""
    rows = fit(_train, config, workers, artefact, base=base, instructions=instructions)
    artefact.metrics |= headline(rows) | write_forgetting(rows, artefact.dir)


def _train(inputs: Inputs[SftConfig]) -> None:
    config = inputs.config
    model, tokenizer = load_decoder(inputs.fetch("base") / "model")
    check_length(model, config.block_tokens, "sft.block_tokens")
    if config.lora is not None:
        model = add_lora(model, config.lora, config.seed)
    directory = inputs.fetch("instructions") / "sft"
    rows = list(read_rows(directory, Instruction))
    train = [row for row in rows if row.split == "train"][: config.max_rows]
    heldout = [row for row in rows if row.split == "dev"][: config.num_heldout]
    packer = Packer(tokenizer, config.block_tokens, config.reduction)
    read = reader_of(model)
    sampler, milestones = None, {}
    if config.curriculum is None:
        blocks = read(packer.pack(train, "train"))
    else:
        stages = config.curriculum.all_stages
        packed = [packer.pack(rows_of_stage(stage, train), stage.name) for stage in stages]
        blocks = read(reduce(PackedBlocks.join, packed))
        sampler = StagedSampler(
            [len(read(part)) for part in packed],
            [stage.epochs for stage in stages],
            config.batch_size,
            config.seed,
        )
        milestones = sampler.milestones([stage.name for stage in stages])
        # How many rows make a block is known only now; the schedule needs the steps.
        config = config.model_copy(update={"total_steps": sampler.total_steps})
    train_language_model(
        "sft",
        inputs,
        config,
        model,
        tokenizer,
        blocks,
        {task: read(part) for task, part in packer.pack_by_task(heldout, "held-out").items()},
        config.seed,
        {"title": "Fine-tuned decoder", "base": inputs.name("base")},
        sampler,
        milestones,
    )
