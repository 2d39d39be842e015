"""One worker's part of PPO: roll out, score, advantages, clipped updates, adaptive β.

    reward   r(x, y) − β · log(π_RL / π_SFT)          KL in the reward  [ClinicalGPT 2.4]
    loss     −min(ρA, clip(ρ, 1−ε, 1+ε)A)             clipped policy    [EMR-LLM 1.4]
             + β · KL(π_θ ‖ π_old)                    KL in the loss    [EMR-LLM 1.4], by setting
             + γ · L_sft                              replay
    A_t      s_t + γ V(s_{t+1}) − V(s_t)              λ = 0; GAE by setting
    β        adaptive, from 0.1

Differs: [EMR-LLM] prints the KL in the loss with its sign slipped; it is a penalty here.
"""

import copy
import math
from pathlib import Path
from typing import Any

import ray.train
import torch

from medray.common.records import Scenario
from medray.training import losses
from medray.training.alone import reader_of
from medray.training.language_model import add_lora
from medray.training.optimiser import initialise, set_learning_rate
from medray.training.ppo.actor import Actor
from medray.training.ppo.config import PpoConfig
from medray.training.ppo.guards import length_guard, repetition_guard
from medray.training.ppo.policy import Experience, PolicyWithValue
from medray.training.ppo.prompts import fitting_prompts
from medray.training.ppo.replay import Replay
from medray.training.ppo.samples import describe
from medray.training.reward.model import RewardModel
from medray.training.sampler import IndexSampler, seed_of
from medray.training.supervised import all_reduce_sum, chunks

STATE = ("beta", "score_mean", "score_sd", "first_length")


class PpoLearner:
    """One worker's part of PPO."""

    def __init__(
        self,
        config: PpoConfig,
        model: Any,
        tokenizer: Any,
        reward_model: RewardModel,
        prompts: list[Scenario],
        instructions: Path,
    ) -> None:
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.config = config
        read = reader_of(model) if config.replay.coefficient else None
        critic = None
        if config.critic == "separate":
            critic = add_lora(copy.deepcopy(model), config.lora, config.seed + 1)
        self.policy = add_lora(model, config.lora, config.seed)
        module = PolicyWithValue(self.policy, model.config.hidden_size, critic)
        self.engine = initialise(module, config, self.world_size)
        self.actor = Actor(config, self.policy, tokenizer, reward_model, self.engine)
        self.prompts, self.heldout = fitting_prompts(prompts, self.actor.generator, config)
        self.sampler = IndexSampler(len(self.prompts), config.rollouts, config.seed)
        self.replay: Replay | None = None
        if read is not None:
            self.replay = Replay(
                config.replay, instructions, self.policy, tokenizer, read, config.seed
            )
        self.beta = config.kl_coefficient
        self.score_mean: float | None = None  # set by the first evaluation
        self.score_sd = 1.0
        self.first_length = 0.0
        self._last: tuple[list[str], Experience, torch.Tensor] | None = None

    def round(self, step: int) -> dict[str, float]:
        """One round of PPO, from prompts to updated weights."""
        config = self.config
        set_learning_rate(self.engine, config, step)
        # 1. roll out, 2. score
        mine = self.sampler.share(step, self.rank, self.world_size)
        asked = [self.prompts[i] for i in mine]
        orders = [self._order(step, epoch, len(asked)) for epoch in range(config.epochs)]
        seed = seed_of(config.seed, step, "roll out", self.rank)
        experience = self.actor.roll_out([row.prompt for row in asked], seed, orders[0])
        # 3. rewards and advantages
        kl_BA = self._estimate_kl(experience) * experience.mask_BA
        self._set_advantages(experience, kl_BA)
        # 4. passes of mini-batches
        self.engine.train()
        figures, kl_old = torch.zeros(4), 0.0
        share = config.batch_size // self.world_size
        update = step * config.epochs * (config.rollouts // config.batch_size)
        for order in orders:
            before = figures[3].item()
            for minibatch in chunks(order, share):
                figures += self._update(experience.rows(minibatch), update)
                update += 1
            kl_old = figures[3].item() - before  # per token, of the last pass
        # 5. β for the next round
        length_B = experience.mask_BA.sum(-1)
        sums = torch.stack(
            [experience.scores_B.sum(), kl_BA.sum(), length_B.sum(), torch.tensor(len(experience))]
        )
        score, kl, length, num = all_reduce_sum(sums, self.engine).tolist()
        beta = self.beta
        if config.kl_controller == "adaptive":
            steered = kl_old * length / num if config.kl == "loss_old" else kl / num
            self.beta = losses.adapt_kl_coefficient(
                beta, steered, config.kl_target, rate=config.kl_rate
            )
        self._last = [row.id for row in asked], experience, kl_BA
        policy_loss, value_loss, clipped, _ = (figures / config.epochs).tolist()
        return {
            "ppo/reward": score / num,
            "ppo/kl": kl / num,
            "ppo/kl_old": kl_old * length / num,
            "ppo/beta": beta,
            "ppo/length": length / num,
            "ppo/policy_loss": policy_loss,
            "ppo/value_loss": value_loss,
            "ppo/clip_fraction": clipped,
        }

    def _order(self, step: int, epoch: int, num: int) -> list[int]:
        """The order of a pass over a round's answers, the same on every worker."""
        generator = torch.Generator().manual_seed(seed_of(self.config.seed, step, "epoch", epoch))
        return torch.randperm(num, generator=generator).tolist()

    def evaluate(self) -> dict[str, float]:
        """Reward, KL to the reference and length of sampled answers to held-out prompts."""
        mine = [row.prompt for row in self.heldout[self.rank :: self.world_size]]
        figures = torch.zeros(5, dtype=torch.float64)
        if mine:
            seed = seed_of(self.config.seed, "held out", self.rank)
            experience = self.actor.roll_out(mine, seed, range(len(mine)))
            kl_B = (
                losses.kl_k1(experience.logprobs_BA, experience.reference_BA) * experience.mask_BA
            ).sum(-1)
            scores_B = experience.scores_B.double()
            figures = torch.stack(
                [
                    scores_B.sum(),
                    (scores_B**2).sum(),
                    kl_B.sum().double(),
                    experience.mask_BA.sum().double(),
                    torch.tensor(float(len(mine)), dtype=torch.float64),
                ]
            )
        total, squares, kl, tokens, num = all_reduce_sum(figures, self.engine).tolist()
        mean = total / num
        spread = math.sqrt(max(0.0, squares / num - mean**2))
        if self.score_mean is None:
            self.score_mean, self.score_sd = mean, spread or 1.0
            self.first_length = tokens / num
        return {
            "reward": mean,
            "reward_sd": spread,
            "kl": kl / num,
            "length": tokens / num,
            "num": num,
        }

    def samples(self, num: int) -> list[dict[str, Any]]:
        """Numbers about `num` answers of the last round, see `describe`."""
        return describe(*self._last, self.config, num) if self._last else []

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the engine."""
        return {name: getattr(self, name) for name in STATE}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes back what `get_state` gave."""
        for name in STATE:
            setattr(self, name, state[name])

    def _estimate_kl(self, experience: Experience) -> torch.Tensor:
        estimate = losses.kl_k1 if self.config.kl_estimator == "k1" else losses.kl_k3
        return estimate(experience.logprobs_BA, experience.reference_BA)

    def _set_advantages(self, experience: Experience, kl_BA: torch.Tensor) -> None:
        """Rewards per token (−β·KL, the score on the last one), then advantages, whitened over
        all workers."""
        config, mask_BA = self.config, experience.mask_BA
        rewards_BA = -self.beta * kl_BA * (config.kl != "loss_old")
        assert self.score_mean is not None
        normal_B = (experience.scores_B - self.score_mean) / self.score_sd
        last_B = mask_BA.sum(-1).long() - 1
        rewards_BA[torch.arange(len(last_B)), last_B] += normal_B.clamp(
            -config.reward_clip, config.reward_clip
        ) + self._guard(experience)
        experience.advantages_BA, experience.returns_BA = losses.gae(
            rewards_BA, experience.values_BA, mask_BA, gamma=config.gamma, lam=config.lam
        )
        if config.whiten:
            advantages_BA = experience.advantages_BA
            sums = torch.stack([advantages_BA.sum(), (advantages_BA**2).sum(), mask_BA.sum()])
            total, squares, num = all_reduce_sum(sums.double(), self.engine)
            mean, variance = total / num, squares / num - (total / num) ** 2
            experience.advantages_BA = losses.whiten(
                advantages_BA, mask_BA, mean.float(), variance.float()
            )

    def _guard(self, experience: Experience) -> torch.Tensor:
        """What length and repetition add to the normalised scores. [B]"""
        config, lengths_B = self.config.guards, experience.mask_BA.sum(-1)
        sums = torch.stack([lengths_B.sum(), (lengths_B**2).sum(), torch.tensor(len(experience))])
        total, squares, num = all_reduce_sum(sums.double(), self.engine).tolist()
        spread = math.sqrt(max(0.0, squares / num - (total / num) ** 2))
        answers = [
            tokens_T[places_A[mask_A > 0]].tolist()
            for tokens_T, places_A, mask_A in zip(
                experience.tokens_BT, experience.places_BA, experience.mask_BA, strict=True
            )
        ]
        length_B = length_guard(lengths_B, total / num, spread, self.first_length, config)
        return length_B + repetition_guard(answers, config)

    def _update(self, batch: Experience, update: int) -> torch.Tensor:
        """Optimiser step number `update`; returns its share of the round's policy loss, value loss,
        clip fraction and KL against the policy that rolled out, each per token."""
        config = self.config
        num_tokens = all_reduce_sum(batch.mask_BA.sum(), self.engine)
        figures = torch.zeros(4)
        for part in chunks(range(len(batch)), config.micro_batch_size):
            micro = batch.rows(part)
            micro = Experience(**{k: v.to(self.engine.device) for k, v in vars(micro).items()})
            logprobs_BA, values_BA = self.engine(
                micro.tokens_BT, micro.attention_BT, micro.places_BA
            )
            policy, clipped = losses.ppo_policy_loss(
                logprobs_BA, micro.logprobs_BA, micro.advantages_BA, micro.mask_BA,
                clip=config.clip,
            )  # fmt: skip
            value = losses.value_loss(
                values_BA, micro.values_BA, micro.returns_BA, micro.mask_BA, clip=config.value_clip
            )
            # DeepSpeed averages over workers and micro-batches; undo that, divide by tokens.
            averaged = self.world_size * config.accumulation(self.world_size)
            kl_old = (losses.kl_of_ratio(logprobs_BA, micro.logprobs_BA) * micro.mask_BA).sum()
            loss = (policy + config.value_coefficient * value) / num_tokens.item()
            if config.kl != "reward_sft":
                loss = loss + self.beta * kl_old / num_tokens.item()
            if self.replay is not None and part[0] == 0:  # once an update, in one backward pass
                loss = loss + self.replay.loss(update, self.rank, self.world_size, self.engine)
            self.engine.backward(loss * averaged)
            self.engine.step()
            parts = (policy.detach(), value.detach(), clipped, kl_old.detach())
            figures += torch.stack(parts).cpu()
        updates = config.rollouts // config.batch_size
        return all_reduce_sum(figures, self.engine) / num_tokens / updates
