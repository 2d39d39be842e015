"""Settings of preference learning. Source of β: the methods' papers."""

from typing import Literal

from pydantic import Field, model_validator

from medray.training.language_model import LoraConfig
from medray.training.optimiser import OptimiserConfig

Method = Literal["dpo", "kto", "grpo", "rloo"]


class PreferenceConfig(OptimiserConfig):
    """Settings of one method; `batch_size` and `total_steps` count as in the other stages."""

    method: Method = "dpo"
    learning_rate: float = 1e-5
    """Source: not given; between the 1e-6 of whole models and the 1e-4 of small adapters."""
    warmup_steps: int = 50
    total_steps: int = 1000
    batch_size: int = 32
    """Pairs, single answers (KTO) or sampled answers of one update."""
    beta: float = Field(default=0.1, ge=0)
    """Strength of the pull to the SFT model."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """0 only: every worker holds whole weights. With LoRA, all that ZeRO would shard is small."""
    lora: LoraConfig | None = LoraConfig()
    max_tokens: int = Field(default=1024, ge=8)
    """Longest prompt with answer of a pair (DPO, KTO); longer ones are cut, or left out if nothing
    of the answer would be left. The log says how many."""
    num_generations: int = Field(default=8, ge=2)
    """Answers of a group, for GRPO and RLOO."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer that is drawn (GRPO, RLOO). Prompts to which it would pass the end of the
    model's context are left out."""
    temperature: float = 1.0
    num_heldout: int = 200
    """Held-out pairs, prompts or, for KTO, single answers that are measured before and after."""

    @property
    def needs_reward(self) -> bool:
        """Whether the method draws answers and has them scored."""
        return self.method in ("grpo", "rloo")

    @model_validator(mode="after")
    def _check_preference(self) -> "PreferenceConfig":
        if self.muon_learning_rate or self.offload != "none":
            raise ValueError(
                "preference learns by AdamW, without offload: set muon_learning_rate to 0 and "
                "offload to none"
            )
        if self.zero_stage:
            raise ValueError(
                f"preference.zero_stage must be 0, got {self.zero_stage}: every worker holds whole "
                "weights; for less memory take preference.lora, precision: bf16, "
                "activation_checkpointing: true or a smaller micro_batch_size"
            )
        if self.evaluate_steps:
            raise ValueError("preference measures before and after only: evaluate_steps must be 0")
        if self.needs_reward and self.batch_size % self.num_generations:
            raise ValueError("preference.batch_size must be a multiple of num_generations")
        if self.method == "kto" and self.micro_batch_size < 2:
            raise ValueError("kto sets each answer beside another's prompt: micro_batch_size >= 2")
        if self.lora is not None and self.lora.dropout:
            raise ValueError("preference.lora.dropout must be 0, for the reference is without it")
        return self
