"""Seconds of a PPO round, from prompts to updated weights: ours against TRL's PPOTrainer.

The value is the ratio, TRL's seconds by ours as it is by default: a value head on the policy, which
TRL does not have. `ours.separate` is the same with a critic of its own, as TRL's is. TRL dropped
PPO after 1.12, so it runs in an environment of its own: `python -m venv DIR && DIR/bin/pip install
'trl==1.12.*' peft torch`, then --other-python DIR/bin/python; without one only our side is
measured. Both sides take turns, one thread each; a ratio is the median over the turns. Seconds are
the processor's, which other work on the machine changes less; wall_s stands beside them.

Alike: policy and reward model (Qwen3 of one shape, random weights, one tokenizer; so are TRL's
critic and our separate one), LoRA on the same matrices of policy and critic, prompts, lengths of
the answers, passes, updates (counted) and answers of a forward pass. Random weights do not know
when to end, so each answer is ended at a length of its own: the lengths spread as those of
cMedQA2's answers do. --same-length lets all run to the longest.
Differs: TRL takes an answer's log-probabilities from its generation, ours from a forward pass more;
TRL computes all answers at the length of a round's longest; it does not clip gradients, and logs an
entropy; our reward model is given text, which it encodes anew; our worker keeps freed memory, as
the workers of a run do. TRL would update once a pass whatever its `num_mini_batches`; it updates
after each mini-batch because its data set holds the prompts of one round only.
Source: DESIGN.md 4, row 4.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from ppo_work import ALPHA, MATRICES, QUICK, RANK, Clock, Work, ending, make_models

TRL_SIDE = Path(__file__).with_name("ppo_round_trl.py")
OURS = ("separate", "trunk")  # settings of the critic
Turn = Callable[[], dict[str, float]]


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
    ending(model, work)
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
        assert round(figures["ppo/length"] * work.rollouts) == sum(work.lengths())
        learning = {"roll_out_s": roll_out_s, "learn_s": times["seconds"] - roll_out_s}
        return {**times, **learning, "updates": engine.global_steps - updates}

    return turn


def trl_turn(python: str, work: Work, directory: Path) -> Turn:
    """A round of TRL. Its process ends when its stdin closes."""
    log = directory / "trl.log"
    kept = ("PATH", "HOME", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM")
    with log.open("wb") as errors:
        child = subprocess.Popen(
            [python, str(TRL_SIDE), str(directory), json.dumps(asdict(work))],
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
    tokens = sum(work.lengths())
    if "learn_s" in figures:
        figures["rolled_out_tokens_per_s"] = tokens / figures["roll_out_s"]
        figures["learned_tokens_per_s"] = tokens * work.passes / figures["learn_s"]
    return {name: round(value, 2) for name, value in figures.items()}


def main() -> int:
    """Prints the result line."""
    from frame import argument_parser, print_result

    parser = argument_parser(__doc__)
    parser.add_argument("--other-python", metavar="PATH", help="interpreter that has TRL 1.12")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="a round of 16 answers, 3 turns")
    parser.add_argument("--same-length", action="store_true", help="all answers are the longest")
    arguments = parser.parse_args()
    work, turns = (QUICK, 3) if arguments.quick else (Work(), arguments.turns)
    work = replace(work, same_length=arguments.same_length)
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
    sys.exit(main())
