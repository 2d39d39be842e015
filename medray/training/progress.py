"""A progress bar on the driver, moved by the first worker through a queue.

Worker output is not forwarded to a laptop's terminal (it is Ray's and DeepSpeed's own chatter), so
progress travels by itself. The queue lies on the driver's machine: a run that goes on when another
machine is lost would end because its queue was lost.
"""

import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tqdm import tqdm


@contextmanager
def progress(name: str) -> Iterator[Queue]:
    """Shows a bar while the body runs; yields the queue that workers put (step, total, figures)
    in."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    updates = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    ended = threading.Event()
    thread = threading.Thread(target=_show, args=(name, updates, ended), daemon=True)
    thread.start()
    try:
        yield updates
    finally:
        ended.set()
        thread.join()
        updates.shutdown()


def _show(name: str, updates: Any, ended: threading.Event) -> None:
    seconds = 0.5 if sys.stderr.isatty() else 10.0
    with tqdm(desc=name, unit="step", mininterval=seconds) as bar:
        while not (ended.is_set() and updates.empty()):
            try:
                step, total, figures = updates.get(timeout=0.5)
            except queue.Empty:
                continue
            bar.total = total
            bar.set_postfix(figures, refresh=False)
            bar.update(step - bar.n)
