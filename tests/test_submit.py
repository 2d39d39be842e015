"""`medray submit` against a Ray head of this test's own, started and ended by process id."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from medray.common.manifest import read_manifest

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parent.parent
AUTH = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}


def free_ports(count: int) -> list[int]:
    """Ports below those that Ray hands to workers and Linux to clients."""
    found = []
    for port in range(9100 + os.getpid() % 500, 10000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The dashboard of a head with two cores."""
    ports = free_ports(5)
    names = (
        "port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port",
        "metrics-export-port",
    )  # fmt: skip
    options = [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        head = subprocess.Popen(
            [
                sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
                "--num-cpus=2", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1",
                f"--temp-dir={directory}", *options,
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            # As with an activated environment: jobs start with `python`.
            env=os.environ | AUTH | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )  # fmt: skip
        url = f"http://127.0.0.1:{ports[1]}"
        try:
            wait_for(url, head)
            yield url
        finally:
            head.terminate()  # --block ends the head's other processes too
            try:
                head.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)


def wait_for(url: str, head: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert head.poll() is None, f"ray start ended with {head.returncode}"
        try:
            urllib.request.urlopen(f"{url}/api/gcs_healthz", timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise AssertionError(f"{url} does not answer")


def submit(*args: str, auth: dict[str, str] = AUTH) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medray.cli", "submit", *args],
        capture_output=True, text=True, cwd=ROOT, timeout=600,
        env=os.environ | auth,
    )  # fmt: skip


def test_a_submitted_job_ends_and_its_artefact_is_where_the_profile_says(
    address: str, tmp_path: Path
) -> None:
    result = submit(
        "generate_sample", "--address", address,
        f"storage.root={tmp_path}", "sample.num_records=100",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "succeeded" in result.stdout
    (manifest,) = tmp_path.glob("sample/*/manifest.json")
    assert read_manifest(manifest.parent).step == "sample"


def test_a_mistake_in_a_setting_comes_back_with_its_message_and_code(
    address: str, tmp_path: Path
) -> None:
    result = submit(
        "generate_sample", "--address", address, f"storage.root={tmp_path}", "sample.nix=1"
    )
    assert result.returncode == 2
    assert "sample.nix: unknown key" in result.stdout
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_wait_prints_the_id(address: str, tmp_path: Path) -> None:
    result = submit(
        "generate_sample", "--address", address, "--no-wait", "--dry-run",
        f"storage.root={tmp_path}",
    )  # fmt: skip
    assert result.returncode == 0
    assert result.stdout.startswith("submitted raysubmit_")


def test_a_wrong_token_is_one_message(address: str, tmp_path: Path) -> None:
    wrong = AUTH | {"RAY_AUTH_TOKEN": "wrong"}
    result = submit("generate_sample", "--address", address, f"storage.root={tmp_path}", auth=wrong)
    assert result.returncode == 2
    assert "RAY_AUTH_TOKEN" in result.stderr
    assert "Traceback" not in result.stderr
