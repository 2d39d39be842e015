"""Whether the served graph holds: questions arrive for minutes, faster than it answers.

Counts errors that are not a 429 with Retry-After, per million; tells throughput, seconds to the
first text, and the memory of all its processes, which must not grow. --root DIR is a finished
pipeline. Source: DESIGN.md 3, serving graph.
"""

import asyncio
import logging
import statistics
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from frame import argument_parser, print_result
from load import lost, open_loop

from medray.serving import up

PORT = 8124
STREAMS = 64
CONFIG = Path(__file__).parents[1] / "serve_configs" / "laptop.yaml"
QUESTIONS = [
    f"{disease}{asked}"
    for disease in ("肺炎", "哮喘", "胃炎", "心力衰竭", "心房颤动", "糖尿病", "高血压", "贫血")
    for asked in ("如何治疗？", "有哪些症状？", "应做哪些检查？", "首选什么药物？")
]


def served_memory_gb() -> float:
    """Of the replicas with the processes of their engines, of proxies and controller of this
    process's own Ray."""
    counted: set[psutil.Process] = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "Serve" in "".join(process.cmdline()[:1]):
                counted.update([process, *process.children()])
    total = 0
    for process in counted:
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total / 1e9


class MemoryOverTime(threading.Thread):
    """Samples the memory until it is told to stop."""

    def __init__(self, every_s: float) -> None:
        super().__init__(daemon=True)
        self.samples: list[float] = []
        self._every_s, self._ended = every_s, threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        while not self._ended.wait(self._every_s):
            self.samples.append(served_memory_gb())

    def stop(self) -> list[float]:
        """All samples."""
        self._ended.set()
        self.join()
        return self.samples


def quantile(values: list[float], share: float) -> float | None:
    """Rounded; None of nothing."""
    if not values:
        return None
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 3)


def main() -> int:
    """Prints the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--root", required=True, help="a finished pipeline")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=12.0, help="questions a second (12)")
    parser.add_argument("--quick", action="store_true", help="half a minute")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    seconds = 30.0 if arguments.quick else arguments.minutes * 60
    overrides = [
        f"storage_root={arguments.root}", f"gateway.max_in_flight={STREAMS}",
        f"batching.max_requests={STREAMS}",
    ]  # fmt: skip
    with up.start(CONFIG, overrides, port=PORT) as running:
        load: dict[str, Any] = {"rate_per_s": arguments.rate, "max_tokens": 64}
        asyncio.run(open_loop(running.url, QUESTIONS, seconds=5, **load))  # to warm up
        memory = MemoryOverTime(seconds / 40)
        memory.start()
        replies = asyncio.run(open_loop(running.url, QUESTIONS, seconds=seconds, **load))
        samples = memory.stop()
    answered = [reply for reply in replies if reply.status == 200]
    bad = [reply for reply in replies if lost(reply)]
    waits = [reply.first - reply.began for reply in answered if reply.first is not None]
    early, late = samples[: len(samples) // 4], samples[-len(samples) // 4 :]
    print_result(
        "serve_load",
        round(len(bad) / len(replies) * 1e6, 1),
        unit="requests of a million that failed otherwise than by 429 with Retry-After",
        goal="0, and memory flat",
        ours={
            "seconds": seconds,
            "requests": len(replies),
            "answered": len(answered),
            "refused_429": sum(reply.status == 429 for reply in replies),
            "errors": sorted({f"{reply.status} {reply.error}" for reply in bad}),
            "answers_per_s": round(len(answered) / seconds, 2),
            "tokens_per_s": round(sum(reply.num_tokens for reply in answered) / seconds, 1),
            "first_text_s": {"p50": quantile(waits, 0.5), "p95": quantile(waits, 0.95)},
            "memory_gb": {
                "first_quarter": round(statistics.median(early), 3) if early else None,
                "last_quarter": round(statistics.median(late), 3) if late else None,
            },
        },
        other=None,
        n=len(replies),
    )
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
