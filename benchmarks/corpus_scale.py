"""How the corpus chain's time and memory grow with the records, on all cores.

The value is how far the time of one more record at the largest sizes is from that at the smallest:
0 is linear growth. `ours` has seconds and peak memory by number of records, and the slope of
log(time) against log(records), which lies below 1 by what every run takes whatever its size (Ray's
workers, the tokenizer's training); `other` is empty, for the chain is compared with itself. Memory
is the largest of the driver and of a worker; `private` leaves out file pages and Ray's shared
memory, which the system can take back. corpus_throughput.py compares the speed.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from corpus_throughput import SHARDS, chain, make_hospital, size_bytes, write_literature
from frame import argument_parser, print_result

from medray.launch import set_environment
from medray.sample.hospital import SampleConfig

SHARES = (0.1, 0.3, 1.0)
SAMPLE_S = 0.2
"""Seconds between two looks at the memory."""


def make_hospitals(directory: Path, max_records: int) -> dict[int, Path]:
    """Records → the export with so many; each has the files of the smaller ones."""
    whole = directory / "whole"
    make_hospital(whole, max_records)
    files, exports = sorted((whole / "records").iterdir()), {}
    for share in SHARES:
        count = round(share * max_records)
        export = exports[count] = directory / str(count)
        (export / "records").mkdir(parents=True)
        for path in files[: round(SHARDS * share)]:
            (export / "records" / path.name).symlink_to(path)
        write_literature(export, SampleConfig().seed, count)
    return exports


def watch_memory(stop: threading.Event, peaks: dict[str, float]) -> None:
    """Notes the largest memory of the driver and of one worker, until told to stop."""
    driver = psutil.Process()
    while not stop.wait(SAMPLE_S):
        for process in [driver, *driver.children(recursive=True)]:
            try:
                is_worker = process.name().startswith("ray::")
                memory = process.memory_info()
            except psutil.Error:
                continue  # it ended meanwhile
            if process is not driver and not is_worker:
                continue
            role = "worker" if is_worker else "driver"
            for kind, size in (("rss", memory.rss), ("private", memory.rss - memory.shared)):
                name = f"{role}_{kind}_mb"
                peaks[name] = max(peaks.get(name, 0), round(size / 2**20))


def run_chain(export: Path) -> dict[str, Any]:
    """Seconds of the chain and peak memory in MiB."""
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    stop, peaks = threading.Event(), {}
    watcher = threading.Thread(target=watch_memory, args=(stop, peaks))
    watcher.start()
    with tempfile.TemporaryDirectory() as directory:
        started = time.monotonic()
        made = chain(export, Path(directory))
        seconds = time.monotonic() - started
    stop.set()
    watcher.join()
    return {"seconds": round(seconds, 1), **peaks, "made": made}


def measure(export: Path) -> dict[str, Any]:
    """Runs the chain in a process of its own."""
    command = [sys.executable, __file__, "--export", str(export)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    print(f"{export.name} records: {result}", flush=True)
    return result | {"mb": round(size_bytes(export) / 1e6, 1)}


def main() -> int:
    """Prints what was measured, then the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--max-records", type=int, default=50_000, help="100 at least")
    parser.add_argument("--quick", action="store_true", help="1 000 records")
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    set_environment()
    if arguments.export:
        print(json.dumps(run_chain(arguments.export)))
        return 0
    max_records = 1_000 if arguments.quick else arguments.max_records
    with tempfile.TemporaryDirectory() as directory:
        exports = make_hospitals(Path(directory), max_records)
        grown = {count: measure(export) for count, export in exports.items()}
    times = [figures["seconds"] for figures in grown.values()]
    slope = float(np.polyfit(np.log(list(grown)), np.log(times), 1)[0])
    first, *_, last = np.diff(times) / np.diff(list(grown))
    print_result(
        "corpus_scale",
        round(abs(last / first - 1), 3),
        unit="change of the time a record takes, from the smallest to the largest sizes",
        goal="<= 0.15, with flat memory",
        ours={
            "ms_a_record": [round(float(1000 * rate), 3) for rate in (first, last)],
            "log_slope": round(slope, 3),
            "cores": len(os.sched_getaffinity(0)),
            "by_records": grown,
        },
        other=None,
        n=max_records,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
