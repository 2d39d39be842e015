"""Share of training runs that end as the undisturbed one did, although something was killed.

A run is a job of the laptop profile at a tiny size, on a local Ray cluster of two nodes (one at the
machine's address, one at 127.0.0.2), one worker on each. At a random checkpoint it loses, by kill
-9, a worker's process, the driver, or the raylet of the node on which driver and controller run;
after the latter two the node comes back and the same command is given again. A run counts if its
model is the undisturbed run's to the last bit, the metrics hold each step once and alike, and no
more steps were computed twice than lie between two checkpoints, counted in the workers' logs (a
killed node may lose the end of one, so that this count is a lower bound). Drivers and workers are
forked from processes that have imported what a stage needs, which saves imports, not work.

--work DIR keeps what is done: a call that was ended goes on with the runs that are missing.
"""

import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import ray
from forked_workers import forking
from frame import argument_parser, print_result
from ray.cluster_utils import Cluster

from medray.common.metrics import MetricsLog
from medray.launch import import_job, run_job, set_environment

STAGES = ("pretrain", "sft", "reward", "ppo")
TROUBLES = ("worker", "node", "driver")
PARENTS = (
    "generate_sample", "prepare_corpus", "build_instructions", "run_pretrain", "run_encoder",
    "run_sft", "run_reward",
)  # fmt: skip
MODULES = (
    "medray.profile", "medray.training.pretrain", "medray.training.sft",
    "medray.training.reward.stage", "medray.training.ppo.stage",
)  # fmt: skip
WORKER_MODULES = (
    "deepspeed", "pandas", "pyarrow.parquet", "requests", "torch._dynamo",
    "transformers.generation.utils", "transformers.models.auto.modeling_auto",
    "transformers.models.qwen3.modeling_qwen3",
)  # fmt: skip
SECOND = "127.0.0.2"
NODE_CPUS = 2
"""A node starts as many processes at a time. A worker takes all, so that there is one on each."""
STEPS, INTERVAL = 12, 2
RUN_S = 180
_TINY = """
sample.num_records=120 corpus.tokenizer.vocab_size=600 corpus.block_tokens=128
decoder.hidden_size=32 decoder.num_layers=2 decoder.num_heads=1 decoder.head_dim=32
decoder.intermediate_size=64 decoder.max_tokens=512
encoder.mlm.steps=4 encoder.contrastive.steps=4
sft.block_tokens=256 sft.num_heldout=20 sft.max_rows=400 pretrain.warmup_steps=1
sft.warmup_steps=1 reward.warmup_steps=1 reward.batch_size=8 reward.micro_batch_size=4
ppo.rollouts=8 ppo.batch_size=4 ppo.micro_batch_size=2 ppo.max_new_tokens=8 ppo.num_heldout=4
ppo.replay.block_tokens=256 ppo.replay.max_rows=100 min_free_disk_gb=0.5
"""
TINY = _TINY.split()
SAME = [f"{stage}.total_steps={STEPS}" for stage in STAGES]
WORKERS = [
    f"workers.checkpoint_steps={INTERVAL}", "workers.log_steps=1", "workers.watch.progress=false",
    f"workers.cpus_per_worker={NODE_CPUS}",
]  # fmt: skip


class Outcome(NamedTuple):
    """What became of a run."""

    digest: str
    """sha256 of the exported weights."""
    rows: list[dict[str, Any]]
    """The metrics without times."""
    executed: int
    """Steps computed, those that were computed again included."""
    seconds: float


def drive(job: str, ip: str, argv: list[str], log: Path) -> None:
    """The driver: a job's script, but for the node that it connects to."""
    os.setsid()
    with log.open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    connect = ray.init
    ray.init = lambda **options: connect(**options, _node_ip_address=ip)  # type: ignore[assignment]
    sys.exit(run_job(import_job(job).run, (), argv))


class Machine:
    """The two-node cluster, and the runs on it."""

    def __init__(self, work: Path, setup_worker_path: str) -> None:
        self.work, self.base = work, work / "base"
        self.drivers = multiprocessing.get_context("forkserver")
        self.drivers.set_forkserver_preload(["__main__", *MODULES])
        self.node = {
            "num_cpus": NODE_CPUS,
            "include_log_monitor": False,
            "setup_worker_path": setup_worker_path,
        }
        self.cluster = Cluster(
            initialize_head=True, head_node_args=self.node | {"include_dashboard": False}
        )
        self.second = self.add_second()
        head: Any = self.cluster.head_node
        self.logs = Path(head.get_logs_dir_path())

    def add_second(self) -> Any:
        """The node that drivers run on."""
        node = self.cluster.add_node(**self.node, node_ip_address=SECOND)
        self.cluster.wait_for_nodes()
        return node

    def start(self, stage: str, root: Path) -> ForkServerProcess:
        """Gives the job's command."""
        arguments = [
            "--profile", "laptop", f"storage.root={root}", f"ray.num_cpus={2 * NODE_CPUS}",
            f"ray.address={self.cluster.address}", *TINY, *SAME, *WORKERS,
        ]  # fmt: skip
        log = root / "driver.log"
        driver = self.drivers.Process(target=drive, args=(f"run_{stage}", SECOND, arguments, log))
        driver.start()
        return driver

    def run(self, stage: str, name: str, trouble: str = "", after: int = 0) -> Outcome:
        """One run from the parents in `base`; `trouble` strikes once `after` checkpoints lie."""
        root = self.work / name
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.base, root, copy_function=os.link)
        shutil.rmtree(root / stage, ignore_errors=True)
        started = time.time()
        process = self.start(stage, root)
        try:
            if trouble:
                wait_for_checkpoints(root / stage, after, process)
                self.strike(trouble, process)
                if trouble == "node":
                    self.second = self.add_second()
                if trouble != "worker":
                    ended(process)
                    process = self.start(stage, root)
            if code := ended(process):
                text = (root / "driver.log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"{name} ended with {code}:\n{text[-3000:]}")
        finally:
            if process.is_alive():
                process.kill()
        (made,) = (root / stage).glob("[!.]*")
        weights = (made / "model" / "model.safetensors").read_bytes()
        rows = [
            {key: value for key, value in row.items() if not key.startswith("time/")}
            for row in MetricsLog(made / "metrics.jsonl").read()
        ]
        digest = hashlib.sha256(weights).hexdigest()
        executed = self.executed(stage, started)
        shutil.rmtree(root)
        return Outcome(digest, rows, executed, round(time.time() - started, 1))

    def strike(self, trouble: str, driver: ForkServerProcess) -> None:
        """kill -9."""
        if trouble == "driver":
            assert driver.pid is not None
            os.killpg(driver.pid, signal.SIGKILL)
        elif trouble == "node":
            self.cluster.remove_node(self.second, allow_graceful=False)
        else:
            os.kill(random.choice(worker_pids()), signal.SIGKILL)

    def executed(self, stage: str, since: float) -> int:
        """Steps that first workers computed since then, from their logs."""
        pattern = re.compile(rf"^{stage} (\d+)/\d+ ", re.MULTILINE)
        return sum(
            len(pattern.findall(path.read_text(encoding="utf-8", errors="replace")))
            for path in self.logs.glob("worker-*.err")
            if path.stat().st_mtime >= since
        )


def ended(driver: ForkServerProcess) -> int:
    """The exit code, once it has ended."""
    driver.join(RUN_S)
    if driver.exitcode is None:
        raise RuntimeError(f"a driver did not end within {RUN_S} s")
    return driver.exitcode


def wait_for_checkpoints(stage: Path, count: int, driver: ForkServerProcess) -> None:
    """Until a run has made `count` checkpoints; their numbers go on as old ones are deleted."""
    deadline, seen = time.monotonic() + RUN_S, set()
    while time.monotonic() < deadline and driver.is_alive():
        seen |= {path.name for path in stage.glob(".*/train/*/checkpoint_2*")}
        if len(seen) >= count:
            return
        time.sleep(0.02)
    raise RuntimeError(f"{stage} made no {count} checkpoints")


def worker_pids() -> list[int]:
    """The training workers of this cluster."""
    pids = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in "".join(process.cmdline()):
                pids.append(process.pid)
        except psutil.Error:
            continue
    return pids


def prepare(base: Path) -> None:
    """All artefacts, made once on a cluster of their own."""
    if not (base / "ready").exists():
        base.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, __file__, "--prepare", "--profile", "laptop", f"storage.root={base}",
             *TINY, *SAME, *WORKERS],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        (base / "ready").touch()


def make_parents(argv: list[str]) -> int:
    """What the four stages start from."""

    def run(job: Any) -> None:
        for name in PARENTS:
            import_job(name).run(job)

    return run_job(run, (), argv)


def main() -> int:
    """Prints the result line."""
    if "--prepare" in sys.argv[1:2]:
        return make_parents(sys.argv[2:])
    parser = argument_parser(__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--work", type=Path, help="keeps what is done")
    parser.add_argument("--quick", action="store_true", help="3 runs, all of pretraining")
    arguments = parser.parse_args()
    set_environment()
    # A process more for each run; nothing is announced here.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    num_runs = 3 if arguments.quick else arguments.runs
    stages = STAGES[:1] if arguments.quick else STAGES
    with tempfile.TemporaryDirectory() as scratch, forking(WORKER_MODULES) as setup:
        work = (arguments.work or Path(scratch)).resolve()
        prepare(work / "base")
        done = work / "outcomes.jsonl"
        outcomes: dict[str, dict[str, Any]] = {}
        if done.exists():
            for line in done.read_text(encoding="utf-8").splitlines():
                outcomes[json.loads(line)["name"]] = json.loads(line)
        machine = Machine(work, setup)
        try:
            plan = [(f"straight-{stage}", stage, "") for stage in stages] + [
                (f"run-{n}", stages[n % len(stages)], TROUBLES[n // len(stages) % len(TROUBLES)])
                for n in range(num_runs)
            ]
            for name, stage, trouble in plan:
                if name in outcomes:
                    continue
                after = random.Random(name).randint(1, STEPS // INTERVAL - 2)
                outcome = machine.run(stage, name, trouble, after)
                row = {"name": name, "stage": stage, "trouble": trouble, "after": after}
                outcomes[name] = row | outcome._asdict()
                with done.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(outcomes[name]) + "\n")
                sys.stderr.write(f"{name} {stage} {trouble} {outcome.seconds} s\n")
        finally:
            machine.cluster.shutdown()
    runs = [outcomes[name] for name, _, trouble in plan if trouble]
    same, once, few = [], [], []
    for run in runs:
        straight = outcomes[f"straight-{run['stage']}"]
        same.append(run["digest"] == straight["digest"])
        once.append(run["rows"] == straight["rows"])
        few.append(run["executed"] <= STEPS + INTERVAL)
    good = [all(three) for three in zip(same, once, few, strict=True)]
    print_result(
        "chaos_training",
        round(sum(good) / len(good), 4),
        unit="share of disturbed runs that end as the undisturbed one",
        goal="1",
        ours={
            "bit_identical": sum(same),
            "metrics_alike": sum(once),
            "one_interval_repeated_at_most": sum(few),
            "steps_repeated": [run["executed"] - STEPS for run in runs],
            "by_trouble": {t: sum(r["trouble"] == t for r in runs) for t in TROUBLES},
            "seconds": sum(run["seconds"] for run in outcomes.values()),
        },
        other=None,
        n=len(runs),
    )
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
