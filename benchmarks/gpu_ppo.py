"""Tokens a second of a PPO round on one GPU, roll-out and learning apart, 0.5, 1.5 and 7 B shapes.

One command on a machine with a GPU: `python benchmarks/gpu_ppo.py`. It needs torch, transformers
and peft beside this checkout, neither Ray nor DeepSpeed. A round is that of `medray.training.ppo`:
every prompt is answered with LoRA merged into the weights, log-probabilities are taken under policy
and reference, and each pass updates LoRA and value head on mini-batches, in bf16 with fused AdamW.
What is left out: the reward model's score, here a number drawn at random, and replay. All answers
have the same length, for the end of text is never drawn.

The value is the tokens that a second of a whole round of the 7 B shape rolls out. What does not fit
is named. --quick runs a tiny shape, on a CPU too: it shows that the script works.
Source: DESIGN.md 4, rows 3 and 4.
"""

import statistics
import sys
import time
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from frame import argument_parser, print_result
from gpu_train import DECODERS, LORA, TINY
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig

from medray.training import losses
from medray.training.language_model import add_lora
from medray.training.ppo.policy import Experience, PolicyWithValue, lay_out, merged_adapters


class Round(NamedTuple):
    """What a round does. Source: [EMR-LLM 2.2] for batch and passes."""

    answers: int = 64
    prompt_tokens: int = 256
    answer_tokens: int = 256
    batch: int = 8
    passes: int = 4


QUICK = Round(8, 16, 8, 4, 2)


def measure(shape: PretrainedConfig, work: Round, rounds: int, device: str) -> dict[str, Any]:
    """Seconds of the parts of a round, medians; raises torch.OutOfMemoryError."""
    torch.manual_seed(0)
    with torch.device(device):
        base: Any = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
    policy = add_lora(base, LORA, 0).to(torch.bfloat16)
    module = PolicyWithValue(policy, shape.hidden_size).to(device, torch.bfloat16).eval()
    trained = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-5, fused=device == "cuda")
    parts = ("roll_out", "log_probs", "learn")
    seconds: dict[str, list[float]] = {part: [] for part in parts}
    for _ in range(rounds + 1):  # the first is a warm-up
        prompts_BP = torch.randint(3, shape.vocab_size, (work.answers, work.prompt_tokens))
        clock = [now(device)]
        answers = roll_out(policy, prompts_BP.to(device), work)
        clock.append(now(device))
        experience = observe(module, policy, prompts_BP, answers, work)
        clock.append(now(device))
        learn(module, optimiser, trained, experience, work)
        clock.append(now(device))
        for part, (start, end) in zip(parts, pairwise(clock), strict=True):
            seconds[part].append(end - start)
    typical = {part: statistics.median(found[1:]) for part, found in seconds.items()}
    tokens = work.answers * work.answer_tokens
    return {
        "rolled_out_tokens_per_s": round(tokens / typical["roll_out"]),
        "learned_tokens_per_s": round(tokens * work.passes / typical["learn"]),
        "round_tokens_per_s": round(tokens / sum(typical.values()), 1),
        **{f"{part}_s": round(value, 3) for part, value in typical.items()},
        "memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1)
        if device == "cuda"
        else None,
    }


def now(device: str) -> float:
    """Seconds, once the GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@torch.inference_mode()
def roll_out(policy: Any, prompts_BP: Tensor, work: Round) -> list[list[int]]:
    """Sampled answers."""
    with merged_adapters(policy):
        output_BT = policy.generate(
            input_ids=prompts_BP, attention_mask=torch.ones_like(prompts_BP), do_sample=True,
            max_new_tokens=work.answer_tokens, min_new_tokens=work.answer_tokens, pad_token_id=0,
        )  # fmt: skip
    return output_BT[:, prompts_BP.shape[1] :].tolist()


@torch.no_grad()
def observe(
    module: Any, policy: Any, prompts_BP: Tensor, answers: list[list[int]], work: Round
) -> Experience:
    """Log-probabilities under policy and reference, values, and advantages of scores drawn."""
    device = module.value_head.weight.device
    tokens_BT, attention_BT, places_BA, mask_BA = (
        tensor.to(device) for tensor in lay_out(prompts_BP.tolist(), answers, 0)
    )
    experience = Experience(
        tokens_BT, attention_BT, places_BA, mask_BA, torch.randn(len(answers), device=device),
        *(torch.zeros_like(mask_BA) for _ in range(5)),
    )  # fmt: skip
    for start in range(0, work.answers, work.batch):
        part = range(start, start + work.batch)
        micro = experience.rows(part)
        inputs = micro.tokens_BT, micro.attention_BT, micro.places_BA
        experience.logprobs_BA[part], experience.values_BA[part] = module(*inputs)
        with policy.disable_adapter():
            experience.reference_BA[part], _ = module.read(*inputs)
    rewards_BA = -0.1 * losses.kl_k1(experience.logprobs_BA, experience.reference_BA)
    rewards_BA[:, -1] += experience.scores_B
    experience.advantages_BA, experience.returns_BA = losses.gae(
        rewards_BA, experience.values_BA, experience.mask_BA, gamma=1.0, lam=0.95
    )
    return experience


def learn(
    module: Any,
    optimiser: torch.optim.Optimizer,
    trained: list[Any],
    experience: Experience,
    work: Round,
) -> None:
    """All passes over the round's answers."""
    for _ in range(work.passes):
        for part in torch.randperm(work.answers).split(work.batch):
            micro = experience.rows(part.tolist())
            logprobs_BA, values_BA = module(micro.tokens_BT, micro.attention_BT, micro.places_BA)
            policy_loss, _ = losses.ppo_policy_loss(
                logprobs_BA, micro.logprobs_BA, micro.advantages_BA, micro.mask_BA, clip=0.2
            )
            value = losses.value_loss(
                values_BA, micro.values_BA, micro.returns_BA, micro.mask_BA, clip=0.2
            )
            ((policy_loss + 0.5 * value) / micro.mask_BA.sum()).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)


def main() -> int:
    """Prints the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tiny shape")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.quick:
        sys.stderr.write("no GPU here; --quick tries the script on a CPU\n")
        return 2
    shapes = {"tiny": TINY} if arguments.quick else DECODERS
    work = QUICK if arguments.quick else Round()
    found: dict[str, Any] = {}
    for name, shape in shapes.items():
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            found[name] = measure(shape, work, arguments.rounds, device)
        except torch.OutOfMemoryError:
            found[name] = "does not fit"
        sys.stderr.write(f"{name}: {found[name]}\n")
    largest = found.get("7B")
    print_result(
        "gpu_ppo",
        largest["round_tokens_per_s"] if isinstance(largest, dict) else None,
        unit="tokens rolled out in a second of a whole round, 7 B shape",
        goal="none; on a CPU ppo_round compares with TRL",
        ours=found
        | {
            "work": work._asdict(),
            "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        },
        other=None,
        n=arguments.rounds,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
