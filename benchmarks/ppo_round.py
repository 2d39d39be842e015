"""Seconds of a PPO round, from prompts to updated weights: ours against TRL's PPOTrainer.

The value is the ratio, TRL's seconds by ours as it is by default: a value head on the policy, which
TRL does not have. `ours.separate` is the same with a critic of its own, as TRL's is. TRL dropped
PPO after 1.12, so it runs in an environment of its own: `python -m venv DIR && DIR/bin/pip install
'trl==1.12.*' peft torch`, then --other-python DIR/bin/python; without one only our side is
measured. Both sides take turns, one thread each; a ratio is the median over the turns. Seconds are
the processor's, which other work on the machine changes less; wall_s stands beside them.

Alike: policy and reward model (Qwen3 of one shape, random weights, one tokenizer; so are TRL's
critic and our separate one), LoRA on
the same matrices of policy and critic, prompts, answers of the same number of tokens (ending one is
forbidden on both sides), passes, updates (counted) and answers of a forward pass.
Differs: TRL takes an answer's log-probabilities from its generation, ours from a forward pass more;
TRL does not clip gradients, and logs an entropy; our reward model is given text, which it encodes
anew; our worker keeps freed memory, as the workers of a run do. TRL would update once a pass
whatever its `num_mini_batches`; it updates after each mini-batch because its data set holds the
prompts of one round only.
Source: DESIGN.md 4, row 4.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# What only one of the two environments has is imported where it is used.
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

OURS = ("separate", "trunk")  # settings of the critic
RANK, ALPHA = 8, 32
MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
HELD_OUT = 8


@dataclass(frozen=True)
class Work:
    """A round, and the shape of the models. Source: [EMR-LLM 2.2], batch and passes."""

    rollouts: int = 64
    batch: int = 8
    """Answers of an update, and of a forward pass in it."""
    passes: int = 4
    answer_tokens: int = 64
    width: int = 192
    layers: int = 4
    vocabulary: int = 6000


QUICK = Work(rollouts=16, passes=2, answer_tokens=32, width=64, layers=2, vocabulary=1000)


def make_models(work: Work, directory: Path) -> None:
    """policy/, reward/ and prompts.json."""
    from near_duplicates import sample_texts
    from transformers import Qwen3Config
    from transformers.models.qwen3 import Qwen3ForCausalLM, Qwen3ForSequenceClassification

    from medray.corpus.tokenizer import TokenizerConfig, train_tokenizer
    from medray.sample.consult import scenario
    from medray.sample.model import shipped_model

    hospital = shipped_model()
    prompts = [scenario(hospital, f"ppo {k}").text for k in range(work.rollouts + HELD_OUT)]
    texts = [*sample_texts(work.vocabulary // 5), *prompts]
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=work.vocabulary), texts)
    end: Any = tokenizer.eos_token_id
    pad: Any = tokenizer.pad_token_id
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=work.width, num_hidden_layers=work.layers,
        num_attention_heads=work.width // 64, num_key_value_heads=work.width // 64, head_dim=64,
        intermediate_size=work.width * 8 // 3, max_position_embeddings=1024,
        tie_word_embeddings=True, eos_token_id=end, pad_token_id=pad,
    )  # fmt: skip
    config.num_labels = 1  # of the reward model
    torch.manual_seed(0)
    policy = Qwen3ForCausalLM(config)
    assert policy.generation_config is not None
    policy.generation_config.suppress_tokens = [end, pad]  # so that no answer is shorter
    for name, model in ("policy", policy), ("reward", Qwen3ForSequenceClassification(config)):
        model.save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)
    (directory / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")


Turn = Callable[[], dict[str, float]]


class Clock:
    """Seconds of the processor since it was made; of the wall beside them."""

    def __init__(self) -> None:
        self._started = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        cpu, wall = self._started
        return {"seconds": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


def our_turn(work: Work, directory: Path, critic: Any) -> Turn:
    """A round of `PpoLearner`: seconds of it, of its parts, and what was done."""
    from medray.common.records import Scenario
    from medray.training.language_model import LoraConfig, load_decoder
    from medray.training.ppo.config import PpoConfig
    from medray.training.ppo.learner import PpoLearner
    from medray.training.reward.model import RewardModel

    config = PpoConfig(
        rollouts=work.rollouts, batch_size=work.batch, micro_batch_size=work.batch,
        epochs=work.passes, max_new_tokens=work.answer_tokens, critic=critic,
        lora=LoraConfig(rank=RANK, alpha=ALPHA, target_modules=MATRICES),
    )  # fmt: skip
    prompts = json.loads((directory / "prompts.json").read_text(encoding="utf-8"))
    rows = [
        Scenario(id=f"{k}", prompt=prompt, split="train" if k < work.rollouts else "dev")
        for k, prompt in enumerate(prompts)
    ]
    model, tokenizer = load_decoder(directory / "policy")
    reward = RewardModel(directory / "reward")
    learner: Any = PpoLearner(config, model, tokenizer, reward, rows, directory)
    learner.evaluate()  # as a run begins; sets what scores are normalised by
    roll_out, engine, steps = learner.actor.roll_out, learner.engine, count()
    roll_out_s = 0.0

    def timed_roll_out(*given: Any) -> Any:
        nonlocal roll_out_s
        started = time.process_time()
        experience = roll_out(*given)
        roll_out_s = time.process_time() - started
        return experience

    learner.actor.roll_out = timed_roll_out

    def turn() -> dict[str, float]:
        updates, clock = engine.global_steps, Clock()
        figures = learner.round(next(steps))
        times = clock.read()
        assert figures["ppo/length"] == work.answer_tokens
        learning = {"roll_out_s": roll_out_s, "learn_s": times["seconds"] - roll_out_s}
        return {**times, **learning, "updates": engine.global_steps - updates}

    return turn


def trl_side(work: Work, directory: Path) -> None:
    """Runs in the other environment: a line on stdin starts a round, a line on stdout ends it."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the Trainer prints
    import peft
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer  # pyright: ignore

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(directory / "policy", padding_side="left")
    prompts = json.loads((directory / "prompts.json").read_text(encoding="utf-8"))
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    encoded = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
    lora: dict[str, Any] = {"r": RANK, "lora_alpha": ALPHA, "target_modules": MATRICES}
    critic = AutoModelForSequenceClassification.from_pretrained(directory / "policy", num_labels=1)
    critic = peft.inject_adapter_in_model(peft.LoraConfig(**lora), critic)
    critic.score.requires_grad_(True)

    class Turns(TrainerCallback):
        """Waits for its turn before each round."""

        def wait(self) -> None:
            if not sys.stdin.readline():
                sys.exit(0)
            self.updates, self.clock = 0, Clock()

        def count(self, *_: Any) -> None:
            self.updates += 1

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.wait()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            found = self.clock.read() | {"updates": self.updates}
            # The log holds how many answers ended; none may.
            assert state.log_history[-1]["val/num_eos_tokens"] == 0
            answers.write(json.dumps(found) + "\n")
            self.wait()

    turns = Turns()
    trainer = PPOTrainer(
        PPOConfig(
            output_dir=str(directory / "out"), use_cpu=True, bf16=False, report_to=[],
            gradient_checkpointing=False, disable_tqdm=True, save_strategy="no",
            learning_rate=1e-5, vf_coef=0.5, temperature=1.0, num_sample_generations=0,
            total_episodes=work.rollouts * 10_000,  # until stdin closes
            per_device_train_batch_size=work.batch,
            gradient_accumulation_steps=work.rollouts // work.batch,
            num_mini_batches=work.rollouts // work.batch, num_ppo_epochs=work.passes,
            local_rollout_forward_batch_size=work.rollouts, response_length=work.answer_tokens,
        ),
        tokenizer,
        model=AutoModelForCausalLM.from_pretrained(directory / "policy"),
        ref_model=None,  # the policy without its adapter
        reward_model=AutoModelForSequenceClassification.from_pretrained(directory / "reward"),
        train_dataset=Dataset.from_dict({"input_ids": encoded[: work.rollouts]}),
        value_model=critic,
        callbacks=[turns],
        peft_config=peft.LoraConfig(**lora, task_type="CAUSAL_LM"),
    )  # fmt: skip

    trainer.optimizer.optimizer.register_step_post_hook(turns.count)
    trainer.train()


def trl_turn(python: str, work: Work, directory: Path) -> Turn:
    """A round of TRL. Its process ends when its stdin closes."""
    log = directory / "trl.log"
    kept = ("PATH", "HOME", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM")
    with log.open("wb") as errors:
        child = subprocess.Popen(
            [python, __file__, "--trl-side", str(directory), json.dumps(asdict(work))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1,
            # Of the worker's RANK and MASTER_PORT accelerate would make a process group.
            env={name: os.environ[name] for name in kept if name in os.environ},
        )  # fmt: skip

    def turn() -> dict[str, float]:
        assert child.stdin and child.stdout
        child.stdin.write("round\n")
        if not (line := child.stdout.readline()):
            raise RuntimeError(f"TRL's side ended: {log.read_text(encoding='utf-8')[-2000:]}")
        return json.loads(line)

    return turn


def take_turns(given: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """The rounds of each side but the first, a warm-up. On a worker of Ray Train, which
    `PpoLearner` needs."""
    torch.set_num_threads(1)
    work, directory = Work(**given["work"]), Path(given["directory"])
    sides: dict[str, Turn] = {critic: our_turn(work, directory, critic) for critic in OURS}
    if given["python"]:
        sides["trl"] = trl_turn(given["python"], work, directory)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for turn in range(given["turns"] + 1):
        for name in sorted(sides, reverse=bool(turn % 2)):
            rounds[name].append(sides[name]())
            print(name, rounds[name][-1], flush=True)
    return {name: found[1:] for name, found in rounds.items()}


def run(work: Work, turns: int, python: str | None) -> Any:
    """What `take_turns` returns, on a Ray of one CPU."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from medray.training.workers import WorkersConfig, worker_environment

    ray.init(address="local", num_cpus=1, include_dashboard=False)
    with tempfile.TemporaryDirectory() as scratch:
        make_models(work, Path(scratch))
        given = {"work": asdict(work), "directory": scratch, "turns": turns, "python": python}
        trainer = TorchTrainer(
            take_turns,
            train_loop_config=given,
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(
                storage_path=f"{scratch}/ray",
                worker_runtime_env={"env_vars": worker_environment(WorkersConfig(use_gpu=False))},
            ),
        )
        found = trainer.fit().return_value
    ray.shutdown()
    return found


def figures_of(rounds: list[dict[str, float]], work: Work) -> dict[str, float]:
    """Medians over the rounds; of ours also the tokens of answers that a second rolls out (with
    scores and log-probabilities) and learns from, each pass counted."""
    figures = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
    tokens = work.rollouts * work.answer_tokens
    if "learn_s" in figures:
        figures["rolled_out_tokens_per_s"] = tokens / figures["roll_out_s"]
        figures["learned_tokens_per_s"] = tokens * work.passes / figures["learn_s"]
    return {name: round(value, 2) for name, value in figures.items()}


def main() -> int:
    """Prints the result line."""
    from frame import print_result

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--other-python", metavar="PATH", help="interpreter that has TRL 1.12")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="a round of 16 answers, 3 turns")
    arguments = parser.parse_args()
    work, turns = (QUICK, 3) if arguments.quick else (Work(), arguments.turns)
    rounds = run(work, turns, arguments.other_python)
    ours: dict[str, Any] = {name: figures_of(rounds[name], work) for name in OURS}
    other = None
    if "trl" in rounds:
        other = figures_of(rounds["trl"], work)
        for name, figures in ours.items():
            assert figures["updates"] == other["updates"]
            pairs = list(zip(rounds[name], rounds["trl"], strict=True))
            for ratios, clock in ("ratios", "seconds"), ("wall_ratios", "wall_s"):
                figures[ratios] = [round(trl[clock] / found[clock], 2) for found, trl in pairs]
            figures["ratio"] = statistics.median(figures["ratios"])
    print_result(
        "ppo_round",
        ours["trunk"].get("ratio"),
        unit="ratio of speed, ours with its value head on the policy",
        goal=">= 2",
        ours=ours | {"work": asdict(work)},
        other=other,
        n=turns,
    )
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trl-side"]:
        trl_side(Work(**json.loads(sys.argv[3])), Path(sys.argv[2]))
    else:
        sys.exit(main())
