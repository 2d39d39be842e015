"""What a round of PPO will need, before it runs. In: shapes, settings. Out: as for other stages.

    roll-out    A tokens of N answers; each token reads all weights, and the keys and values before
    forward     prompts once; prompts and answers under policy, reference and a critic of its own;
                what the reward model reads of them
    updates     epochs × N answers, 4 FLOP a weight and token, for what is no adapter is frozen

Prompts are taken to be as long as answers, and all answers to be as long as they may. Logits are
reckoned for prompts too, which need none: a few per cent too much.
Source: `actor.Actor.roll_out` and `learner.PpoLearner.round`, part by part.
"""

from typing import Any, cast

from torch import Tensor
from transformers import PretrainedConfig

from medray.training.activations import make
from medray.training.estimate import (
    FORWARD,
    Estimate,
    Passes,
    RollOut,
    bytes_of,
    cache_bytes,
    estimate,
    flops_of,
)
from medray.training.ppo.config import PpoConfig


def estimate_round(
    config: PpoConfig,
    shape: PretrainedConfig,
    reward: PretrainedConfig | None,
    reward_size: int,
    reward_tokens: int,
    workers: int,
) -> Estimate:
    """Memory and work of a round; a step is a round.

    Args:
        shape: of the policy.
        reward: of the reward model, whose weights have `reward_size` bytes and which reads
            `reward_tokens` at most; None counts none.
    """
    new = config.max_new_tokens
    length = 2 * new
    one = estimate(shape, config, config.lora, length, workers)
    models = 2 if config.critic == "separate" else 1
    head = shape.hidden_size + 1  # of the values
    policy = make(shape, config.lora)
    learning = Passes.of(adapted=True, recomputed=config.activation_checkpointing)
    flops = config.rollouts * (
        (length - new) * flops_of(policy, shape, FORWARD, length - new)
        + length * (1 + models) * flops_of(policy, shape, FORWARD, length)
        + length * config.epochs * models * flops_of(policy, shape, learning, length)
    )
    beside = 0
    if reward is not None:
        scorer, read = make(reward, None, "SEQ_CLS"), min(length, reward_tokens)
        flops += config.rollouts * read * flops_of(scorer, reward, FORWARD, read)
        beside = reward_size * sum(p.numel() for p in scorer.parameters())
    if config.replay.coefficient:
        updates = config.epochs * config.rollouts // config.batch_size
        tokens = config.replay.batch_size * config.replay.block_tokens
        flops += updates * tokens * flops_of(policy, shape, learning, config.replay.block_tokens)
    trained = models * one.trained + head
    share = trained / one.trained
    return one._replace(
        parameters=models * one.parameters + head,
        trained=trained,
        weights=models * one.weights + bytes_of(config) * head,
        gradients=share * one.gradients,
        optimiser=share * one.optimiser,
        update=share * one.update,
        activations=models * one.activations,
        tokens_per_step=config.rollouts * length,
        flops_per_step=flops,
        beside=beside,
        roll_out=roll_out(config, shape, policy, workers),
    )


def roll_out(config: PpoConfig, shape: PretrainedConfig, policy: Any, workers: int) -> RollOut:
    """What one GPU holds and reads as its share of the answers is generated."""
    from peft.tuners.lora import LoraLayer

    size, new, answers = bytes_of(config), config.max_new_tokens, config.rollouts // workers
    layers = [layer for layer in policy.modules() if isinstance(layer, LoraLayer)]
    merged = (
        0
        if config.lora.dora
        else sum(cast(Tensor, x.get_base_layer().weight).numel() for x in layers)
    )
    weights = size * sum(p.numel() for p in policy.parameters())
    token = answers * cache_bytes(shape, size)
    return RollOut(
        merged=size * merged,
        cache=token * 2 * new,
        flops=answers * new * flops_of(policy, shape, FORWARD, 2 * new),
        # Before answer token k stand the prompt's tokens and k others.
        bytes_read=new * weights + token * (new * new + new * (new - 1) / 2),
    )
