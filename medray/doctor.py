"""Checks a machine before work starts on it. In: a profile. Out: one line a check, with the mend.

`fail` means that jobs of this profile will not run; `warn` that they run, but slowly, or that one
way of using medray is closed. Nothing is started, and nothing is written but one file that tests
the storage root and is deleted at once.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from medray.common.config import apply_overrides, read_yaml
from medray.common.errors import ConfigError, MedrayError, StorageError
from medray.generation.directory import check_model_directory, read_config
from medray.project import find_profile

GIB = 2**30
# Source: measured runs of `make demo` on two cores.
MIN_MEMORY_GIB, GOOD_MEMORY_GIB = 4, 8
MIN_DISK_GIB, GOOD_DISK_GIB = 2, 10
PACKAGES = ("ray", "torch", "deepspeed", "transformers", "peft", "FlagEmbedding", "pyarrow",
            "pymilvus", "milvus-lite")  # fmt: skip
PORTS = {8000: "medray serve; use --port", 8265: "a Ray head's dashboard", 6379: "a Ray head"}

Status = Literal["ok", "warn", "fail"]


class Check(NamedTuple):
    """One finding: what was looked at, what was found, and how to mend it (empty when ok)."""

    name: str
    status: Status
    found: str
    mend: str = ""


def examine(
    profile: str,
    overrides: Sequence[str] = (),
    *,
    address: str | None = None,
    models: Sequence[Path] | None = None,
    gpu: str = "a100",
) -> list[Check]:
    """All checks for jobs of `profile` on this machine.

    Args:
        address: a Ray cluster to reach; None: RAY_ADDRESS, if set.
        models: model directories beside those that the profile names.
        gpu: the kind of GPU that training is reckoned for, a key of `estimate.GPUS`.
    """
    checks = [check_python(), check_packages(), check_cores(), check_memory()]
    try:
        values = apply_overrides(read_yaml(find_profile(profile)), list(overrides))
        checks.append(Check("profile", "ok", profile))
    except ConfigError as error:
        values = {}
        checks.append(Check("profile", "fail", profile, str(error)))
    root = str(values.get("storage", {}).get("root", ""))
    if root:
        checks += [check_storage(root), check_disk("storage disk", root)]
    checks += [check_disk("temporary disk", tempfile.gettempdir()), check_gpu()]
    checks += [check_port(port, use) for port, use in PORTS.items()]
    checks.append(check_ray(address or os.environ.get("RAY_ADDRESS", "")))
    named = [*model_paths(values), *(models or [])]
    trusted = bool(values.get("trust_remote_code"))
    checks += [check_model(model, trusted=trusted) for model in dict.fromkeys(named)]
    if values.get("workers", {}).get("use_gpu"):
        checks += check_plan(profile, overrides, gpu)
    return checks


def check_plan(profile: str, overrides: Sequence[str], gpu: str) -> Iterator[Check]:
    """Whether the training stages fit into a GPU's memory, and how long they take."""
    from medray.launch import load_profile
    from medray.plan import training_plan

    try:
        lines = list(training_plan(load_profile(profile, list(overrides)), gpu))
    except MedrayError as error:
        yield Check("plan", "fail", profile, str(error))
        return
    for name, fits, text, mend in lines:
        yield Check(f"plan {name}", "ok" if fits else "warn", text, mend)


def check_python() -> Check:
    """Python 3.11 or 3.12: older ones lack features, newer ones lack wheels of dependencies."""
    found = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return Check("python", "ok", found)
    return Check("python", "fail", found, "make the environment with Python 3.11 or 3.12")


def check_packages() -> Check:
    """The packages that jobs need are installed."""
    versions, missing = [], []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        mend = "run `make install`, or pip install -c constraints.txt -e ."
        return Check("packages", "fail", f"missing: {', '.join(missing)}", mend)
    return Check("packages", "ok", ", ".join(versions[:3]))


def check_cores() -> Check:
    """Cores that this process may use: the affinity mask, cut by the container's quota."""
    cores = float(os.cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):
        cores = float(len(os.sched_getaffinity(0)))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores, int(quota) / int(period))  # quota "max": no limit, ValueError
    if cores < 2:
        return Check("cores", "warn", f"{cores:g}", "two training workers share one core: slow")
    return Check("cores", "ok", f"{cores:g}")


def check_memory() -> Check:
    """Memory that is free to this process: the machine's, cut by the container's limit."""
    free = free_memory_bytes() / GIB
    found = f"{free:.1f} GiB free"
    if free < MIN_MEMORY_GIB:
        mend = f"free memory up to {MIN_MEMORY_GIB} GiB, better {GOOD_MEMORY_GIB}"
        return Check("memory", "fail", found, mend)
    if free < GOOD_MEMORY_GIB:
        mend = f"the demonstration wants {GOOD_MEMORY_GIB} GiB; close what else runs"
        return Check("memory", "warn", found, mend)
    return Check("memory", "ok", found)


def free_memory_bytes() -> int:
    """Free memory; page cache counts as free, in the machine and in the container."""
    import psutil

    free = psutil.virtual_memory().available
    for limit, usage, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        group = Path("/sys/fs/cgroup")
        with contextlib.suppress(OSError, ValueError):
            most = int((group / limit).read_text(encoding="utf-8"))
            used = int((group / usage).read_text(encoding="utf-8"))
            lines = (group / stat).read_text(encoding="utf-8").splitlines()
            cached = [int(x.split()[1]) for x in lines if x.split()[0] == "inactive_file"]
            free = min(free, most - used + sum(cached))
    return max(0, free)


def check_storage(root: str) -> Check:
    """The storage root takes a file."""
    from medray.common.storage import Storage, StorageConfig

    try:
        Storage(StorageConfig(root=root)).check_writable()
    except StorageError as error:
        return Check("storage", "fail", root, str(error))
    return Check("storage", "ok", f"{root} is writable")


def check_disk(name: str, root: str) -> Check:
    """Space on the disk that holds `root`, or will hold it."""
    if "://" in root:
        return Check(name, "ok", f"{root} is remote")
    path = Path(root).expanduser().resolve()
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free / GIB
    found = f"{free:.1f} GiB free at {path}"
    if free < MIN_DISK_GIB:
        return Check(name, "fail", found, f"free {MIN_DISK_GIB} GiB, or set another storage.root")
    if free < GOOD_DISK_GIB:
        return Check(name, "warn", found, f"{GOOD_DISK_GIB} GiB leave room for checkpoints")
    return Check(name, "ok", found)


def check_gpu() -> Check:
    """GPUs that the driver sees, and whether the installed torch can use them."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return Check("gpu", "ok", "none; profile laptop runs on the CPU")
    gpus = [line.strip() for line in listed.stdout.splitlines() if line.strip()]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        torch = importlib.metadata.version("torch")
        if torch.endswith("+cpu"):
            mend = "install torch with CUDA: pip install --force-reinstall torch from PyPI"
            return Check("gpu", "warn", f"{len(gpus)}, but torch {torch} cannot use them", mend)
    return Check("gpu", "ok", f"{len(gpus)} × {gpus[0]}" if gpus else "none")


def check_port(port: int, use: str) -> Check:
    """Whether a server could listen on `port`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError as error:
            return Check(f"port {port}", "warn", error.strerror or "taken", f"needed by {use}")
    return Check(f"port {port}", "ok", "free")


def check_ray(address: str) -> Check:
    """Whether something listens at a Ray address: http(s)://, ray:// or HOST:PORT."""
    if address in ("", "auto", "local"):
        return Check("ray", "ok", "no address set: jobs start Ray on this machine")
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    mend = "start a head there (`ray start --head`), or unset RAY_ADDRESS to run on this machine"
    try:
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 10001)
        with socket.create_connection((parts.hostname or "", port), timeout=5):
            return Check("ray", "ok", f"{address} answers")
    except (OSError, ValueError) as error:
        return Check("ray", "fail", f"{address}: {error}", mend)


def model_paths(values: dict[str, Any]) -> Iterator[Path]:
    """Local model directories that a profile starts from."""
    for section, key in (("decoder", "path"), ("encoder", "base"), ("reranker", "base")):
        path = values.get(section, {}).get(key)
        if isinstance(path, str) and path:
            yield Path(path).expanduser()


def check_model(directory: Path, *, trusted: bool = False) -> Check:
    """A Hugging Face model directory has its configuration, tokenizer and all of its weights, and
    needs no code of its own that is not trusted. None of it is run here.

    Args:
        trusted: the profile lets models run code of their own.
    """
    name = f"model {directory.name}"
    if not directory.is_dir():
        mend = "give the directory of a downloaded model"
        return Check(name, "fail", f"{directory} is no directory", mend)
    missing = missing_parts(directory)
    try:
        if mend := conversion(directory):
            found = f"{directory} is Baichuan as published, which only runs with code of its own"
            lacks = f"; it lacks {'; '.join(missing)}" if missing else ""
            return Check(name, "fail", found + lacks, mend)
        if missing:
            mend = "copy them from its source; save_pretrained() of the tokenizer writes its files"
            return Check(name, "fail", f"{directory} lacks {'; '.join(missing)}", mend)
        if read_config(directory).get("auto_map"):
            if trusted:
                mend = "read it; trust_remote_code: false in the profile forbids it"
                return Check(name, "warn", f"{directory} runs Python code of its own", mend)
            check_model_directory(directory)
    except MedrayError as error:
        return Check(name, "fail", str(directory), str(error))
    return Check(name, "ok", str(directory))


def conversion(directory: Path) -> str:
    """What makes a Llama of a Baichuan directory; empty for any other model."""
    path = directory / "config.json"
    if not path.is_file() or "aichuan" not in path.read_text(encoding="utf-8", errors="replace"):
        return ""  # spares others the import of torch
    from medray.training.baichuan import is_baichuan

    if not is_baichuan(directory):
        return ""
    pickled = "" if any(directory.glob("*.safetensors")) else " --bin"
    target = directory.with_name(f"{directory.name}-llama")
    return (
        f"convert the weights first, `medray convert {directory} {target}{pickled}`, and name the "
        "new directory in the profile"
    )


def missing_parts(directory: Path) -> list[str]:
    """What a model directory lacks, in words."""
    missing = [] if (directory / "config.json").is_file() else ["config.json"]
    vocabularies = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model")
    if not any((directory / file).is_file() for file in vocabularies):
        missing.append(f"a tokenizer ({', '.join(vocabularies)})")
    indexes = sorted(directory.glob("*.index.json"))
    if indexes:
        try:
            shards = set(json.loads(indexes[0].read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError):
            return [*missing, f"a readable {indexes[0].name}"]
        lost = sorted(shard for shard in shards if not (directory / shard).is_file())
        missing += [f"weights {shard}" for shard in lost]
    elif not any(directory.glob("*.safetensors")) and not any(directory.glob("*.bin")):
        missing.append("weights (*.safetensors)")
    return missing


def to_table(checks: Sequence[Check]) -> str:
    """Lines for a terminal."""
    width = max(len(check.name) for check in checks)
    lines = []
    for name, status, found, mend in checks:
        lines.append(f"{status:<4}  {name:<{width}}  {found}")
        if mend:
            lines.append(f"      {'':<{width}}  → {mend}")
    failed = sum(check.status == "fail" for check in checks)
    warned = sum(check.status == "warn" for check in checks)
    lines.append(f"{failed} to mend, {warned} to know of, {len(checks)} checks")
    return "\n".join(lines) + "\n"


def to_json(checks: Sequence[Check]) -> str:
    """A JSON list, one object a check."""
    return json.dumps([check._asdict() for check in checks], ensure_ascii=False, indent=1) + "\n"
