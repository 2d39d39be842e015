"""Seconds of a PPO round, from prompts to updated weights: ours against TRL's PPOTrainer.

The value is the ratio, TRL's seconds by ours, with a critic of its own on both sides
(`critic: separate`); `ours.trunk` is the same for our default, a value head on the policy, which
TRL does not have. TRL dropped PPO after 1.12, so it runs in an environment of its own:
`python -m venv DIR && DIR/bin/pip install 'trl==1.12.*' peft torch`, then --other-python
DIR/bin/python; without one only our side is measured. Both sides take turns, one thread each; a
ratio is the median over the turns.

Alike: policy, critic and reward model (Qwen3 of one shape, random weights, one tokenizer), LoRA on
the same matrices of policy and critic, prompts, answers of the same number of tokens (ending one is
forbidden on both sides), passes, updates (counted) and answers of a forward pass.
Differs: TRL takes an answer's log-probabilities from its generation, ours from a forward pass more;
TRL does not clip gradients, and logs an entropy; our reward model is given text, which it encodes
anew. TRL would update once a pass whatever its `num_mini_batches`; it updates after each
mini-batch because its data set holds the prompts of one round only.
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
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# What only one of the two environments has is imported where it is used.
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

RANK, ALPHA = 8, 32
MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
HELD_OUT = 8
GAMMA, LAM, CLIP, VALUE_COEFFICIENT, LEARNING_RATE = 1.0, 0.95, 0.2, 0.5, 1e-5


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


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The same function; what each call took is added to `seconds`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = function(*args, **kwargs)
        seconds.append(time.perf_counter() - started)
        return result

    return call


def make_models(work: Work, directory: Path) -> None:
    """policy/, reward/, prompts.json (the text and the ids of each) and work.json."""
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
    chats: list[Any] = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        for prompt in prompts
    ]
    ids = tokenizer(chats, add_special_tokens=False)["input_ids"]
    (directory / "prompts.json").write_text(json.dumps([prompts, ids]), encoding="utf-8")
    (directory / "work.json").write_text(json.dumps(asdict(work)), encoding="utf-8")


Turn = Callable[[], dict[str, Any]]


def our_turn(work: Work, directory: Path, critic: Any) -> Turn:
    """A round of `PpoLearner`: seconds of it, of its parts, and what was done."""
    from medray.common.records import Scenario
    from medray.training.language_model import LoraConfig, load_decoder
    from medray.training.ppo.config import PpoConfig
    from medray.training.ppo.learner import PpoLearner
    from medray.training.reward.model import RewardModel

    config = PpoConfig(
        learning_rate=LEARNING_RATE, rollouts=work.rollouts, batch_size=work.batch,
        micro_batch_size=work.batch, epochs=work.passes, max_new_tokens=work.answer_tokens,
        gamma=GAMMA, lam=LAM, clip=CLIP, value_clip=CLIP, value_coefficient=VALUE_COEFFICIENT,
        critic=critic, lora=LoraConfig(rank=RANK, alpha=ALPHA, target_modules=MATRICES),
    )  # fmt: skip
    prompts, _ = json.loads((directory / "prompts.json").read_text(encoding="utf-8"))
    rows = [
        Scenario(id=f"{k}", prompt=prompt, split="train" if k < work.rollouts else "dev")
        for k, prompt in enumerate(prompts)
    ]
    model, tokenizer = load_decoder(directory / "policy")
    reward = RewardModel(directory / "reward")
    learner: Any = PpoLearner(config, model, tokenizer, reward, rows, directory)
    learner.evaluate()  # as a run begins; sets what scores are normalised by
    generating: list[float] = []
    rolling_out: list[float] = []
    learner.generator.generate_ids = timed(learner.generator.generate_ids, generating)
    learner.roll_out = timed(learner.roll_out, rolling_out)
    step = 0

    def turn() -> dict[str, Any]:
        nonlocal step
        updates = learner.engine.global_steps
        started, cpu = time.perf_counter(), time.process_time()
        figures = learner.round(step)
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
        step += 1
        assert figures["ppo/length"] == work.answer_tokens
        return {
            "seconds": seconds,
            "cpu_s": cpu_s,
            "generate_s": generating[-1],
            "roll_out_s": rolling_out[-1],
            "updates": learner.engine.global_steps - updates,
        }

    return turn


def trl_side(directory: Path) -> None:
    """Runs in the other environment: a line on stdin starts a round, a line on stdout ends it."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the Trainer prints
    import peft
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.experimental.ppo import (  # pyright: ignore[reportMissingImports]
        PPOConfig,
        PPOTrainer,
        ppo_trainer,
    )

    torch.set_num_threads(1)
    work = Work(**json.loads((directory / "work.json").read_text(encoding="utf-8")))
    _, ids = json.loads((directory / "prompts.json").read_text(encoding="utf-8"))
    lora: dict[str, Any] = {"r": RANK, "lora_alpha": ALPHA, "target_modules": MATRICES}
    critic = AutoModelForSequenceClassification.from_pretrained(directory / "policy", num_labels=1)
    critic = peft.inject_adapter_in_model(peft.LoraConfig(**lora), critic)
    critic.score.requires_grad_(True)
    generating: list[float] = []
    ppo_trainer.batch_generation = timed(ppo_trainer.batch_generation, generating)

    class Clock(TrainerCallback):
        """Waits for its turn before each round."""

        def wait(self) -> None:
            if not sys.stdin.readline():
                sys.exit(0)
            self.updates, self.started, self.cpu = 0, time.perf_counter(), time.process_time()

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.wait()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            found: dict[str, Any] = {
                "seconds": time.perf_counter() - self.started,
                "cpu_s": time.process_time() - self.cpu,
                "generate_s": generating[-1],
                "updates": self.updates,
            }
            # The log holds how many answers ended; none may.
            assert state.log_history[-1]["val/num_eos_tokens"] == 0
            answers.write(json.dumps(found) + "\n")
            self.wait()

    clock = Clock()
    trainer = PPOTrainer(
        PPOConfig(
            output_dir=str(directory / "out"), use_cpu=True, bf16=False, report_to=[],
            gradient_checkpointing=False, disable_tqdm=True, save_strategy="no",
            learning_rate=LEARNING_RATE, lr_scheduler_type="constant",
            total_episodes=work.rollouts * 10_000, num_sample_generations=0,
            per_device_train_batch_size=work.batch,
            gradient_accumulation_steps=work.rollouts // work.batch,
            num_mini_batches=work.rollouts // work.batch, num_ppo_epochs=work.passes,
            local_rollout_forward_batch_size=work.rollouts, response_length=work.answer_tokens,
            temperature=1.0, gamma=GAMMA, lam=LAM, cliprange=CLIP, cliprange_value=CLIP,
            vf_coef=VALUE_COEFFICIENT,
        ),
        AutoTokenizer.from_pretrained(directory / "policy", padding_side="left"),
        model=AutoModelForCausalLM.from_pretrained(directory / "policy"),
        ref_model=None,  # the policy without its adapter
        reward_model=AutoModelForSequenceClassification.from_pretrained(directory / "reward"),
        train_dataset=Dataset.from_dict({"input_ids": ids[: work.rollouts]}),
        eval_dataset=Dataset.from_dict({"input_ids": ids[work.rollouts :]}),
        value_model=critic,
        callbacks=[clock],
        peft_config=peft.LoraConfig(**lora, task_type="CAUSAL_LM"),
    )  # fmt: skip

    def count(*_: Any) -> None:
        clock.updates += 1

    trainer.optimizer.optimizer.register_step_post_hook(count)
    trainer.train()


def trl_turn(python: str, directory: Path) -> Turn:
    """A round of TRL. Its process ends when its stdin closes."""
    log = directory / "trl.log"
    kept = ("PATH", "HOME", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM")
    with log.open("wb") as errors:
        child = subprocess.Popen(
            [python, __file__, "--trl-side", str(directory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1,
            # Of the worker's RANK and MASTER_PORT accelerate would make a process group.
            env={name: os.environ[name] for name in kept if name in os.environ},
        )  # fmt: skip

    def turn() -> dict[str, Any]:
        assert child.stdin and child.stdout
        child.stdin.write("round\n")
        if not (line := child.stdout.readline()):
            raise RuntimeError(f"TRL's side ended: {log.read_text(encoding='utf-8')[-2000:]}")
        return json.loads(line)

    return turn


def take_turns(given: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rounds of each side but the first, a warm-up. On a worker of Ray Train, which
    `PpoLearner` needs."""
    torch.set_num_threads(1)
    work, directory = Work(**given["work"]), Path(given["directory"])
    sides: dict[str, Turn] = {c: our_turn(work, directory, c) for c in ("separate", "trunk")}
    if given["python"]:
        sides["trl"] = trl_turn(given["python"], directory)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
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

    ray.init(address="local", num_cpus=1, include_dashboard=False)
    with tempfile.TemporaryDirectory() as scratch:
        make_models(work, Path(scratch))
        given = {"work": asdict(work), "directory": scratch, "turns": turns, "python": python}
        trainer = TorchTrainer(
            take_turns,
            train_loop_config=given,
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(storage_path=f"{scratch}/ray"),
        )
        found = trainer.fit().return_value
    ray.shutdown()
    return found


def figures_of(rounds: list[dict[str, Any]], work: Work) -> dict[str, Any]:
    """Medians: seconds of a round, tokens of answers generated and, of ours, learned from a
    second."""

    def median(figure: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(figure(found) for found in rounds)

    tokens = work.rollouts * work.answer_tokens
    figures: dict[str, Any] = {
        "seconds": round(median(lambda r: r["seconds"]), 2),
        "cpu_s": round(median(lambda r: r["cpu_s"]), 2),
        "generated_per_s": round(tokens / median(lambda r: r["generate_s"])),
        "updates": rounds[-1]["updates"],
    }
    if "roll_out_s" in rounds[-1]:
        learning_s = median(lambda r: r["seconds"] - r["roll_out_s"])
        figures["scoring_s"] = round(median(lambda r: r["roll_out_s"] - r["generate_s"]), 2)
        figures["learned_per_s"] = round(tokens * work.passes / learning_s)
    return figures


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
    ours = {name: figures_of(rounds[name], work) for name in ("separate", "trunk")}
    other = None
    if "trl" in rounds:
        other = figures_of(rounds["trl"], work)
        for name, figures in ours.items():
            assert figures["updates"] == other["updates"]
            for ratio, clock in ("ratio", "seconds"), ("cpu_ratio", "cpu_s"):
                pairs = zip(rounds[name], rounds["trl"], strict=True)
                ratios = [trl[clock] / found[clock] for found, trl in pairs]
                figures[ratio] = round(statistics.median(ratios), 3)
                figures[f"{ratio}s"] = [round(value, 2) for value in ratios]
    print_result(
        "ppo_round",
        ours["separate"].get("ratio"),
        unit="ratio of speed, both with a critic of their own",
        goal=">= 2",
        ours=ours | {"work": asdict(work)},
        other=other,
        n=turns,
    )
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trl-side"]:
        trl_side(Path(sys.argv[2]))
    else:
        sys.exit(main())
