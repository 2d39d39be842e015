"""Settings of the reward model."""

from typing import Literal

from pydantic import Field, model_validator

from medray.training.language_model import LoraConfig
from medray.training.optimiser import OptimiserConfig


class RewardConfig(OptimiserConfig):
    """Settings of the reward model; learning rate 1e-5 [EMR-LLM 2.2], for ranking 2e-5
    [ClinicalGPT 3.1]."""

    objective: Literal["regression", "ranking"] = "regression"
    head: Literal["state", "likelihood"] = "state"
    """"state" reads the score off one token's state, as published; "likelihood", of a decoder only,
    off the probabilities of the answer's tokens too (likelihood.py)."""
    base: str = ""
    """A Hugging Face directory. Empty: the encoder of run_encoder for regression with the head
    "state", the fine-tuned decoder for all else, as published."""
    lora: LoraConfig | None = None
    """None trains every weight."""
    max_tokens: int = Field(default=512, ge=8)
    """Of a scenario with its response, in training and wherever the model is used."""

    @model_validator(mode="after")
    def _check_reward(self) -> "RewardConfig":
        if self.lora is not None and self.muon_learning_rate:
            raise ValueError("reward.muon_learning_rate learns whole matrices; set reward.lora off")
        return self

    @property
    def parent(self) -> str:
        """The step whose model it starts from."""
        return "encoder" if (self.objective, self.head) == ("regression", "state") else "sft"
