"""The demonstration: records → trained models → a served, cited answer → a table.

In: nothing but the machine. Out: the laptop profile's artefacts, three answers and the results on
the terminal. Each part runs in a process of its own, so that none outlives this one, except the
server when it is kept on purpose.
"""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medray.common.config import apply_overrides, read_yaml
from medray.common.errors import DataError, ServiceError
from medray.project import find_profile, jobs_directory

INTRODUCTION = """\
medray demo: a sample hospital's records to a served, grounded answer, on this machine.
  time    about 15 minutes on two cores; a second run reuses what is finished
  memory  under 8 GB
  disk    about 1 GB under {root}
  network none: the models are trained here, from nothing
"""
FAREWELL = """
The models behind this are a small demonstration, trained for minutes on invented records.
They are not for clinical use.
"""
HEALTHY_S, STOP_S = 240, 60


def run(
    profile: str = "laptop", overrides: Sequence[str] = (), *, port: int = 8000, keep: bool = False
) -> int:
    """Runs the pipeline, serves it, asks three questions and prints the results.

    Returns:
        0, or the exit code of the pipeline if it failed.
    Raises:
        ServiceError: the port is taken, or the server does not come up.
    """
    from medray.serving.up import check_port

    values = apply_overrides(read_yaml(find_profile(profile)), list(overrides))
    root = Path(values["storage"]["root"]).expanduser()
    say(INTRODUCTION.format(root=root))
    check_port("127.0.0.1", port)  # told now, not after the training
    pipeline = jobs_directory() / "run_pipeline.py"
    command = [sys.executable, str(pipeline), "--profile", profile, *overrides]
    if code := subprocess.run(command).returncode:
        return code
    questions = sample_questions(root)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped
    with server(root, port, keep) as (url, process):
        for question in questions:
            show_answer(question, url)
    show_results(root)
    if keep:
        say(f"\nserving at {url} (web page and /v1); `kill {process.pid}` stops it\n")
    say(FAREWELL)
    return 0


def sample_questions(root: Path, count: int = 3) -> list[str]:
    """Held-out questions about the sample hospital's literature, evenly spaced.

    Raises:
        DataError: the pipeline left none.
    """
    import pyarrow.parquet as pq

    steps = json.loads((root / "pipeline.json").read_text(encoding="utf-8"))["steps"]
    directory = root / "instructions" / steps["instructions"]["key"] / "questions"
    rows = pq.read_table(directory, columns=["question", "split"]).to_pylist()
    held_out = [row["question"] for row in rows if row["split"] == "dev"]
    if len(held_out) < count:
        raise DataError(f"{directory} holds {len(held_out)} held-out questions, needs {count}")
    return held_out[:: len(held_out) // count][:count]


@contextmanager
def server(root: Path, port: int, keep: bool) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`medray serve` in a process of its own; stopped at the end unless it is to be kept."""
    url, log = f"http://127.0.0.1:{port}", root / "serve.log"
    say(f"\nstarting the server; its log is {log}\n")
    command = [sys.executable, "-m", "medray.cli", "serve", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"storage_root={root.resolve()}"],
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    healthy = False
    try:
        wait_until_healthy(url, process, log)
        yield url, process
        healthy = True
    finally:
        if not (keep and healthy):
            stop(process)


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns once `/healthz` answers; ServiceError if the server ends or takes too long."""
    deadline = time.monotonic() + HEALTHY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceError(f"the server ended with {process.returncode}; see {log}")
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    raise ServiceError(f"no answer from {url}/healthz after {HEALTHY_S} s; see {log}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Asks the server to stop, and ends it if it does not."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()  # its Ray processes notice and end
        process.wait()


def show_answer(question: str, url: str) -> None:
    """Asks one question and prints the answer with its citations."""
    from medray.serving.client import ask, sources

    say(f"\n问：{question}\n答：")
    for piece in ask(question, url):
        say(piece.text if piece.grounding is None else f"{sources(piece.grounding)}\n")


def show_results(root: Path) -> None:
    """Prints the table and where everything lies."""
    from medray.evaluation.table import format_table, read_table

    say(f"\n{format_table(read_table(root))}\neverything is under {root.resolve()}:\n")
    steps = json.loads((root / "pipeline.json").read_text(encoding="utf-8"))["steps"]
    for step, entry in steps.items():
        say(f"  {step:<12} {root / step / entry['key']}\n")


def say(text: str) -> None:
    """Writes to the terminal at once, between the lines of other processes."""
    sys.stdout.write(text)
    sys.stdout.flush()
