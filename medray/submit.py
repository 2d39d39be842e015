"""Sends a job script to a Ray cluster and follows it.

In: a job and its options. Out: the job's id, its log, its exit code. The working directory (this
project without models, indexes and artefacts) is uploaded, so that the code that runs is this one.
"""

import asyncio
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from medray.common.config import apply_overrides, read_yaml
from medray.common.errors import ConfigError, ServiceError
from medray.project import find_profile

# Ray uploads at most 100 MiB; none of these is needed to run a job. Patterns as in .gitignore.
EXCLUDES = (
    "/.git/", "/.venv/", "/runs/", "/models/", "/indexes/", "/data/", "/dist/", "/tests/",
    "/benchmarks/", "__pycache__/", "*.partial/", "*.safetensors", "*.bin", "*.pt", "*.db",
    "*.parquet", "*.jsonl.gz",
)  # fmt: skip


def submit(
    jobs: Path,
    job: str,
    options: Sequence[str],
    address: str,
    *,
    profile: str,
    overrides: Sequence[str],
) -> tuple[JobSubmissionClient, str]:
    """Submits `jobs/<job>.py <options>` and returns the client and the job's id.

    Args:
        jobs: the directory of job scripts; its parent is uploaded when it is a checkout.
        address: the head's dashboard, `http://HOST:8265`.
    Raises:
        ConfigError: the profile would keep artefacts where the cluster loses them.
        ServiceError: no cluster at the address, or it refuses the token or the upload.
    """
    root = jobs.parent if jobs.name == "jobs" else jobs
    profile_path = find_profile(profile).resolve()
    if not profile_path.is_relative_to(root):
        raise ConfigError(f"profile {profile} is outside {root}, which is what is uploaded")
    there = profile_path.relative_to(root).as_posix()
    options = [there if option == profile else option for option in options]
    check_storage(apply_overrides(read_yaml(profile_path), list(overrides)), str(profile_path))
    logging.getLogger(JobSubmissionClient.__module__).setLevel(logging.WARNING)  # web sockets
    client = connect(address)
    script = (jobs / f"{job}.py").relative_to(root).as_posix()
    try:
        job_id = client.submit_job(
            entrypoint=shlex.join(["python", script, *options]),
            runtime_env={"working_dir": str(root), "excludes": list(EXCLUDES)},
            metadata={"name": job},
        )
    except (ValueError, RuntimeError) as error:
        raise ServiceError(
            f"{address} does not take the job: {error} What is uploaded is {root} without "
            "artefacts, and may have 100 MiB"
        ) from None
    return client, job_id


def check_storage(values: dict, source: str) -> None:
    """Raises ConfigError if the storage root would lie in the job's own working directory.

    Ray deletes that directory after the job, and with it the artefacts.
    """
    root = str(values.get("storage", {}).get("root", ""))
    if "://" not in root and not root.startswith(("/", "~")):
        raise ConfigError(
            f"storage.root is {root!r} in {source}, which on a cluster lies in the job's "
            "temporary working directory; add storage.root=/path/on/the/cluster or s3://…"
        )


def connect(address: str) -> JobSubmissionClient:
    """A client of the cluster at `address`; ServiceError if none answers there."""
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"--address must read http://HOST:8265 (the dashboard), got {address!r}")
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ServiceError(
            f"{address} refuses: {error.message.splitlines()[0]}. Set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN to the cluster's token (on the head: `ray get-auth-token`)"
        ) from None
    except (ConnectionError, RuntimeError) as error:
        raise ServiceError(
            f"no Ray cluster answers at {address}: {error} Start one with `ray start --head`, "
            "or give its dashboard with --address http://HOST:8265"
        ) from None


def follow(client: JobSubmissionClient, job_id: str) -> int:
    """Copies the job's log to standard output until the job ends; returns its exit code."""
    try:
        asyncio.run(_copy_log(client, job_id))
        while not (status := client.get_job_status(job_id)).is_terminal():
            time.sleep(0.5)
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{job_id} goes on; `ray job stop {job_id}` ends it\n")
        raise
    info = client.get_job_info(job_id)
    sys.stdout.write(f"{job_id}: {status.value.lower()}\n")
    if status == JobStatus.SUCCEEDED:
        return 0
    return max(info.driver_exit_code or 1, 1)  # negative: ended by a signal


async def _copy_log(client: JobSubmissionClient, job_id: str) -> None:
    async for lines in client.tail_job_logs(job_id):
        sys.stdout.write(lines)
        sys.stdout.flush()
