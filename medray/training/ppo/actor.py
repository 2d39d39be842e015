"""The part of PPO that acts: answers to prompts, their scores and log-probabilities.

In: prompts. Out: `Experience`, but for the advantages. Source: [EMR-LLM 1.4]; DESIGN.md 3.
"""

from collections.abc import Sequence
from typing import Any

import torch

from medray.generation.engine import HFEngine
from medray.generation.sampling import Sampling
from medray.training.ppo.config import PpoConfig
from medray.training.ppo.policy import Experience, lay_out, merged_adapters
from medray.training.reward.model import RewardModel
from medray.training.supervised import chunks


class Actor:
    """The policy as it answers, with the reward model that scores it."""

    def __init__(
        self, config: PpoConfig, policy: Any, tokenizer: Any, reward_model: RewardModel, engine: Any
    ) -> None:
        """Args:
        engine: DeepSpeed's, around the `PolicyWithValue` of `policy`.
        """
        self.config, self.policy, self.engine, self.reward_model = (
            config, policy, engine, reward_model,
        )  # fmt: skip
        reward_model.model.to(engine.device)
        self.generator = HFEngine.wrap(policy, tokenizer, config.rollouts)
        self.pad = int(tokenizer.pad_token_id)

    @torch.no_grad()
    def roll_out(self, texts: list[str], seed: int, order: Sequence[int]) -> Experience:
        """Answers to prompts, their scores, and log-probabilities under policy and reference.

        Args:
            order: the answers in the order of the first pass, whose ratios are then exactly 1:
                its micro-batches are those that log-probabilities are taken in.
        """
        config = self.config
        self.engine.eval()
        encoded = [
            self.generator.encode(self.generator.prompt([{"role": "user", "content": text}]))
            for text in texts
        ]
        sampling = Sampling(
            max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=seed
        )
        with merged_adapters(self.policy):
            answers = self.generator.generate_ids(encoded, sampling)
        decoded = self.generator.tokenizer.batch_decode(answers, skip_special_tokens=True)
        scores_B = torch.tensor(self.reward_model.score(texts, decoded))
        tokens_BT, attention_BT, places_BA, mask_BA = lay_out(encoded, answers, self.pad)
        experience = Experience(
            tokens_BT, attention_BT, places_BA, mask_BA, scores_B,
            *(torch.zeros_like(mask_BA) for _ in range(5)),
        )  # fmt: skip
        for part in chunks(order, config.micro_batch_size):
            micro = experience.rows(part)
            A = micro.mask_BA.shape[1]
            inputs = [
                tensor.to(self.engine.device)
                for tensor in (micro.tokens_BT, micro.attention_BT, micro.places_BA)
            ]
            logprobs_BA, values_BA = self.engine.module(*inputs)
            with self.policy.disable_adapter():
                reference_BA, _ = self.engine.module.read(*inputs)
            experience.logprobs_BA[part, :A] = logprobs_BA.cpu()
            experience.values_BA[part, :A] = values_BA.cpu()
            experience.reference_BA[part, :A] = reference_BA.cpu()
        return experience
