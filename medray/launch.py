"""Runs a job: reads its arguments and profile, starts or joins Ray, makes artefacts, and turns
errors the user can mend into one message and exit code 2.

A job's script is `python jobs/VERB_NOUN.py --profile laptop [--data DIR] [section.key=value …]`.
"""

import argparse
import errno
import importlib.util
import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medray.common.config import Config
from medray.common.errors import DataError, MedrayError, ServiceError, StorageError
from medray.common.manifest import (
    Artefact,
    artefact_key,
    fingerprint_directory,
    read_manifest,
    stored_manifest,
)
from medray.common.storage import Storage
from medray.generation.directory import TRUST
from medray.project import find_profile, jobs_directory
from medray.training.card import complete_card

logger = logging.getLogger("medray")

# What each step is made from, and which sections of the profile shape it.
PARENTS: Mapping[str, tuple[str, ...]] = {
    "sample": (),
    "corpus": ("sample",),
    "instructions": ("sample", "corpus"),
    "pretrain": ("corpus", "instructions"),
    "encoder": ("corpus", "instructions"),
    "sft": ("pretrain", "instructions"),
    "reward": ("encoder", "instructions"),
    "ppo": ("sft", "reward", "instructions"),
    "preference": ("sft", "reward", "instructions"),
    "samples": ("ppo", "reward", "instructions"),
    "index": ("encoder", "corpus", "instructions"),
    "quality": ("ppo", "index", "instructions"),
    "evaluation": ("corpus", "instructions", "pretrain", "sft", "reward", "ppo", "index"),
}
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "pretrain": ("pretrain", "decoder", "workers"),
    "sft": ("sft", "workers"),
    "reward": ("reward", "workers"),
    "ppo": ("ppo", "workers"),
    "preference": ("preference", "workers"),
}
# What may change a result, in the last digits; patience, logs and checkpoints do not, so that a run
# can go on with other ones.
OF_WORKERS = ("num_workers", "use_gpu", "cpus_per_worker", "threads_per_worker")
# Checkpoints and working files inside an artefact in the making; they go when it is published.
SCRATCH = ("train", "encoder_data", "encoder_train")
JOBS: Mapping[str, str] = {
    "sample": "generate_sample",
    "corpus": "prepare_corpus",
    "instructions": "build_instructions",
    "pretrain": "run_pretrain",
    "encoder": "run_encoder",
    "sft": "run_sft",
    "reward": "run_reward",
    "ppo": "run_ppo",
    "preference": "run_preference",
    "samples": "sample_responses",
    "index": "build_index",
    "quality": "check_quality",
    "evaluation": "run_eval",
}
# Made by their own jobs only: another way than reward and PPO, and answers for physicians to rate.
ASIDE = ("preference", "samples")
PIPELINE = tuple(step for step in JOBS if step not in ASIDE)


class Sections(Config):
    """The part of a profile that shapes one step: what its key and its config.yaml hold."""

    sections: dict[str, Any]

    def to_yaml(self) -> str:
        """As the profile writes it."""
        import yaml

        return yaml.safe_dump(self.sections, allow_unicode=True, sort_keys=False)


class Job:
    """A profile with its storage: finds artefacts, makes missing ones, knows what was reused."""

    def __init__(self, profile: Any) -> None:
        self.profile = profile
        self.storage = Storage(profile.storage)
        self.data: Path | None = None
        self.fingerprint = ""
        self.done: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, str] = {}
        if "://" in profile.data:
            self.data = self.storage.fetch_export(profile.data)
        elif profile.data:
            self.data = Path(profile.data).expanduser()
            if not self.data.is_dir():
                raise DataError(f"no data directory at {profile.data}; check --data")
        if self.data is not None:
            self.fingerprint = fingerprint_directory(self.data)

    def use_all_threads(self) -> None:
        """Gives a model that runs in this process the cores that training's workers have."""
        import torch

        workers = self.profile.workers
        if not workers.use_gpu:
            threads = workers.most_workers * workers.threads_per_worker
            torch.set_num_threads(min(threads, os.cpu_count() or 1))

    def parents(self, step: str) -> list[str]:
        """The steps that `step` is made from; with outside data there is no sample hospital. A
        reward model that ranks starts from the fine-tuned decoder; either policy may be sampled."""
        names = PARENTS[step]
        if step in ("reward", "samples"):
            first = self.profile.reward.parent if step == "reward" else self.profile.samples.policy
            names = (first, *names[1:])
        if step == "sft" and self.profile.sft.replays:
            names = (*names, "corpus")
        if step == "preference" and not self.profile.preference.needs_reward:
            names = tuple(name for name in names if name != "reward")
        return [parent for parent in names if parent != "sample" or self.data is None]

    def uses_data(self, step: str) -> bool:
        """True if the step reads the outside data directly."""
        return self.data is not None and "sample" in PARENTS[step]

    def sections(self, step: str) -> Sections:
        """The sections of the profile that shape `step`."""
        names = SECTIONS.get(step, (step,))
        values = self.profile.model_dump(mode="json")
        values["workers"] = {name: values["workers"][name] for name in OF_WORKERS}
        return Sections(sections={name: values[name] for name in names})

    def key(self, step: str) -> str:
        """The key of a step's artefact: known before it is made."""
        if step not in self._keys:
            parents = {parent: self.key(parent) for parent in self.parents(step)}
            fingerprint = self.fingerprint if self.uses_data(step) else ""
            self._keys[step] = artefact_key(step, self.sections(step), parents, fingerprint)
        return self._keys[step]

    def artefact(self, step: str) -> tuple[str, str]:
        """(step, key) of a finished artefact, as workers want it.

        Raises:
            DataError: if it has not been made, naming the job that makes it.
        """
        if not self.storage.exists(step, self.key(step)):
            raise DataError(
                f"{self.storage.location(step, self.key(step))} has not been made yet: run "
                f"{JOBS[step]} first with the same profile and settings, or run_pipeline"
            )
        return step, self.key(step)

    def path(self, step: str) -> Path:
        """Local directory of a finished artefact."""
        return self.storage.fetch(*self.artefact(step))

    def hospital(self) -> Path:
        """The directory that the sources of the profile are relative to."""
        return self.data if self.data is not None else self.path("sample")

    def outdated(self, step: str) -> bool:
        """True if the step's artefact is there, and made of other files than its parents hold now,
        as after an erasure. A parent that is not there counts as unchanged."""
        if not self.storage.exists(step, self.key(step)):
            return False
        made_of = stored_manifest(self.storage, step, self.key(step)).parents
        return any(
            self.storage.exists(parent, self.key(parent))
            and stored_manifest(self.storage, parent, self.key(parent)).content != content
            for parent, content in made_of.items()
        )

    def make(self, step: str, work: Callable[[Artefact], None]) -> Path:
        """Makes the artefact of `step` unless it is there; returns its local directory."""
        key = self.key(step)
        location = self.storage.location(step, key)
        if self.outdated(step):
            logger.info("%s: its parents have changed since; made again", step)
            self.storage.remove(step, key)
        if self.storage.exists(step, key):
            path = self.storage.fetch(step, key)
            seconds = read_manifest(path).duration_s
            logger.info("%s: reused, nothing has changed (%s)", step, location)
        else:
            parents = {parent: self.path(parent) for parent in self.parents(step)}
            fingerprint = self.fingerprint if self.uses_data(step) else ""
            logger.info("%s: started", step)
            artefact = Artefact(
                self.storage,
                step,
                self.sections(step),
                parents=parents,
                key=key,
                fingerprint=fingerprint,
            )
            work(artefact)
            complete_card(artefact)
            path = artefact.publish(drop=SCRATCH)
            manifest = read_manifest(path)
            seconds = manifest.duration_s
            for operator, counts in manifest.counts.items():
                if counts.rejected:
                    logger.info(
                        "%s/%s: %d rows in, %d out, rejected %s",
                        step, operator, counts.rows_in, counts.rows_out, counts.rejected,
                    )  # fmt: skip
            logger.info("%s: done in %.0f s (%s)", step, seconds, location)
            self.done[step] = {"reused": False}
        self.done.setdefault(step, {"reused": True})
        self.done[step] |= {"path": str(path), "key": key, "seconds": seconds}
        return path


def main(run: Callable[[Job], Any], *, steps: tuple[str, ...]) -> None:
    """The body of a job's script.

    Args:
        run: does the job.
        steps: the steps it makes, for the dry run.
    """
    sys.exit(run_job(run, steps, sys.argv[1:]))


def run_job(run: Callable[[Job], Any], steps: tuple[str, ...], argv: list[str]) -> int:
    """Runs a job with arguments; returns its exit code: 0, or 2 for what the user can mend."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # names every variant it tries
    set_environment()
    try:
        arguments = _parse(argv)
        job = Job(load_profile(arguments.profile, arguments.overrides, arguments.data))
        job.storage.check_writable()
        if arguments.dry_run:
            _dry_run(job, steps)
            return 0
        check_disk(job)
        started = time.monotonic()
        os.environ.pop(TRUST, None)
        if job.profile.trust_remote_code:
            os.environ[TRUST] = "1"
        join_ray(job.profile.ray)
        try:
            run(job)
        finally:
            import ray

            ray.shutdown()
        logger.info("finished in %.0f s", time.monotonic() - started)
    except MedrayError as error:
        # An error of a Ray task is also an error of its cause's type, with a traceback as its text.
        sys.stderr.write(f"error: {getattr(error, 'cause', None) or error}\n")
        return 2
    except OSError as error:
        if error.errno == errno.ENOSPC:
            sys.stderr.write(
                f"error: no space left on the disk ({error.filename or 'storage root'}); free some "
                "and run the same command again, which goes on where it stopped\n"
            )
            return 2
        raise
    return 0


def load_profile(name: str, overrides: list[str], data: str | None = None) -> Any:
    """The profile by name (jobs/profiles/NAME.yaml) or path, with overrides."""
    from medray.profile import Profile

    if data is not None:
        place = data if "://" in data else str(Path(data).expanduser().resolve())
        overrides = [*overrides, f"data={place}"]
    return Profile.load(find_profile(name), overrides)


def set_environment() -> None:
    """Settings that libraries read when they are imported; what the user set stays."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault(
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5"
    )  # of 2: checkpoints wait for it
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "0")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    if not (shutil.which("nvidia-smi") or os.environ.get("CUDA_VISIBLE_DEVICES")):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def join_ray(config: Any) -> None:
    """Joins the cluster at `config.address` or in RAY_ADDRESS, else starts a local one.

    Raises:
        ServiceError: if no cluster answers at the address.
    """
    import ray
    import ray.exceptions

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # what it could download
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    address = config.address or os.environ.get("RAY_ADDRESS")
    _check_listens(address or "")
    options: dict[str, Any] = {"log_to_driver": config.log_to_driver, "logging_level": "warning"}
    if TRUST in os.environ:  # a cluster's workers do not inherit this process' environment
        options["runtime_env"] = {"env_vars": {TRUST: os.environ[TRUST]}}
    if not address:
        # A process more at the start of each stage, which on one machine has nothing to watch.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # "local": without it Ray would join a cluster that happens to run on this machine.
        ray.init(address="local", num_cpus=config.num_cpus, include_dashboard=False, **options)
        return
    try:
        ray.init(address=address, **options)
    except (
        ConnectionError,
        ValueError,
        RuntimeError,
        ray.exceptions.AuthenticationError,
    ) as error:
        raise ServiceError(_NO_CLUSTER.format(address, type(error).__name__)) from None


def _check_listens(address: str) -> None:
    """Raises ServiceError if nothing listens at `[ray://]host:port`: Ray itself would try for
    minutes. Other addresses, such as `auto`, are left to Ray."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ServiceError(_NO_CLUSTER.format(address, type(error).__name__)) from None


_NO_CLUSTER = (
    "no Ray cluster answers at {} ({}); start one with `ray start --head`, mend ray.address, or "
    "leave it empty to run on this machine"
)


def check_disk(job: Job) -> None:
    """Raises StorageError if the storage root's disk has less room than the profile asks for."""
    free = shutil.disk_usage(job.storage.local_root).free / 2**30
    if free < job.profile.min_free_disk_gb:
        raise StorageError(
            f"{job.storage.local_root} has {free:.1f} GiB free, the profile asks for "
            f"{job.profile.min_free_disk_gb} GiB (min_free_disk_gb); free some or move storage.root"
        )


def import_job(name: str) -> Any:
    """A job's script as a module, for run_pipeline."""
    path = jobs_directory() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"medray_job_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _dry_run(job: Job, steps: tuple[str, ...]) -> None:
    """Says what would be made and reused, after checking profile, storage and sources."""
    if job.data is not None:
        from medray.corpus.prepare import check_sources as check_corpus
        from medray.instructions.build import check_sources as check_instructions

        if "corpus" in steps:
            check_corpus(job.profile.corpus, job.data)
        if "instructions" in steps:
            check_instructions(job.profile.instructions, job.data)
    for step in steps:
        if step == "sample" and job.data is not None:
            continue
        exists = job.storage.exists(step, job.key(step)) and not job.outdated(step)
        state = "reused" if exists else "made"
        sys.stdout.write(f"{step}: would be {state}: {job.storage.location(step, job.key(step))}\n")
        for parent in job.parents(step):
            if parent not in steps and not job.storage.exists(parent, job.key(parent)):
                sys.stdout.write(f"  needs {parent}, not made yet: run {JOBS[parent]} first\n")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A medray job; see the script's first lines.")
    parser.add_argument("--profile", default="laptop", help="a name in jobs/profiles, or a path")
    parser.add_argument("--data", help="directory or URI of the hospital's exports, not the sample")
    parser.add_argument("--dry-run", action="store_true", help="check everything, make nothing")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    return parser.parse_intermixed_args(argv)
