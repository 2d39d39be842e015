"""Runs a job: reads its arguments and profile, starts or joins Ray, and turns errors the user can
mend into one message and exit code 2.

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medray.common.errors import MedrayError, ServiceError, StorageError
from medray.generation.directory import TRUST
from medray.job import JOBS, Job
from medray.project import find_profile, jobs_directory

logger = logging.getLogger("medray")


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
