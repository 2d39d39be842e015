"""Settings of PPO, with the published values as defaults. Source: [EMR-LLM], [ClinicalGPT]."""

from typing import Literal

from pydantic import model_validator

from medray.training.language_model import LoraConfig
from medray.training.optimiser import OptimiserConfig
from medray.training.ppo.guards import GuardConfig
from medray.training.ppo.replay import ReplayConfig


class PpoConfig(OptimiserConfig):
    """Settings of PPO; `total_steps` counts rounds, `batch_size` answers of one update."""

    learning_rate: float = 1e-5
    """[ClinicalGPT 2.4]."""
    total_steps: int = 4000
    """[ClinicalGPT 2.4]."""
    warmup_steps: int = 0
    batch_size: int = 8
    """[EMR-LLM 2.2]."""
    rollouts: int = 64
    """Answers per round, over all workers. Source: not given."""
    epochs: int = 4
    """Passes over a round's answers [EMR-LLM 2.2]."""
    clip: float = 0.2
    """ε [EMR-LLM 2.2]."""
    value_clip: float = 0.2
    value_coefficient: float = 0.5
    """Source: not given; the usual one."""
    gamma: float = 1.0
    lam: float = 0.95
    """λ of GAE; 0 gives the published one-step advantage [EMR-LLM 1.4]."""
    whiten: bool = True
    kl: Literal["reward_sft", "loss_old", "both"] = "reward_sft"
    """Where β·KL stands: against the SFT policy in the reward [ClinicalGPT 2.4], of the new policy
    against the one that rolled out in the loss [EMR-LLM 1.4], or both with the same β."""
    kl_coefficient: float = 0.1
    """β₀ [EMR-LLM 2.2]."""
    kl_controller: Literal["adaptive", "fixed"] = "adaptive"
    """[EMR-LLM 1.4]; fixed keeps β₀."""
    kl_target: float = 4.0
    """KL per answer, in nats, that an adaptive β steers to: that against the SFT policy, for
    `kl: loss_old` that of a round's last pass against the policy that rolled out."""
    kl_rate: float = 0.1
    """How fast β adapts in a round."""
    kl_estimator: Literal["k1", "k3"] = "k1"
    """Of the KL in the reward."""
    critic: Literal["trunk", "separate"] = "trunk"
    """What the value head reads: the policy's hidden states, or those of a copy of the SFT model
    with adapters of its own. Source: not given; separate costs a second frozen model."""
    reward_clip: float = 5.0
    """Scores are normalised by the spread at the start and clipped to ± this."""
    guards: GuardConfig = GuardConfig()
    lora: LoraConfig = LoraConfig()
    max_new_tokens: int = 256
    temperature: float = 1.0
    replay: ReplayConfig = ReplayConfig()
    num_heldout: int = 200
    """Held-out prompts that reward and KL are measured on, before and after."""

    @model_validator(mode="after")
    def _check_ppo(self) -> "PpoConfig":
        if self.zero_stage > 2:
            raise ValueError("ppo.zero_stage must be 0, 1 or 2: the policy also generates")
        if self.lora.dropout:
            raise ValueError("ppo.lora.dropout must be 0, or the ratio of equal policies is not 1")
        if self.rollouts % self.batch_size:
            raise ValueError("ppo.rollouts must be a multiple of ppo.batch_size")
        return self
