"""Requests that are lost while replicas die and are replaced, under load.

Questions arrive by themselves, more than are answered where --rate is 12; meanwhile a policy
replica, an embedding replica, the process of a policy replica's engine and a retrieval replica are
killed by kill -9, in turns, then the whole graph is updated to other settings while it answers. An
answer that was begun on a replica that dies goes on on another. A request counts as lost if it was
let in and not answered to its end, or answered otherwise than the same question was before.
--root DIR is a finished pipeline.
"""

import asyncio
import logging
import random
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from frame import argument_parser, print_result
from load import lost, open_loop
from ray import serve
from ray.serve.schema import ReplicaState  # pyright: ignore[reportPrivateImportUsage]

from medray.serving import up

PORT = 8125
CONFIG = Path(__file__).parents[1] / "serve_configs" / "laptop.yaml"
DEPLOYMENTS = ("policy", "embedding", "retrieval")
VICTIMS = ("policy", "embedding", "engine", "retrieval")
QUESTIONS = [
    f"{disease}{asked}"
    for disease in ("肺炎", "哮喘", "胃炎", "心力衰竭", "心房颤动")
    for asked in ("如何治疗？", "应做哪些检查？")
]


def processes(victim: str) -> list[psutil.Process]:
    """Those of a deployment's replicas, or of their engines, of this process's own Ray."""
    if victim == "engine":
        return [child for process in processes("policy") for child in process.children()]
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if f"ServeReplica:medray:{victim}" in "".join(process.cmdline()[:1]):
                found.append(process)
        except psutil.Error:
            continue
    return found


def until_replaced(deployment: str, num: int, ended: threading.Event) -> None:
    """Waits until Serve has noticed that a replica is missing, and so many run again."""
    noticed = False
    while not ended.wait(0.2):
        states = serve.status().applications["medray"].deployments[deployment].replica_states
        running = states.get(ReplicaState.RUNNING, 0)
        noticed = noticed or running < num
        if noticed and running >= num:
            return


def trouble(kills: int, overrides: list[str], ended: threading.Event, done: list[str]) -> None:
    """Kills replicas in turns, then updates the graph; all while questions arrive."""
    draw = random.Random(0)
    zero = time.monotonic()
    try:
        for k in range(kills):
            victim = VICTIMS[k % len(VICTIMS)]
            if ended.wait(draw.uniform(2, 5)):
                return
            process = draw.choice(processes(victim))
            process.kill()
            done.append(f"{time.monotonic() - zero:.0f} s: killed {victim}")
            until_replaced("policy" if victim == "engine" else victim, 2, ended)
        done.append(f"{time.monotonic() - zero:.0f} s: update")
        up.update(CONFIG, [*overrides, "gateway.answer.max_tokens=65"])
        done.append(f"{time.monotonic() - zero:.0f} s: updated")
    finally:
        ended.set()


async def load_until(url: str, rate: float, ended: threading.Event) -> list[Any]:
    """Rounds of questions until the trouble is over, and one more."""
    replies, last, zero = [], False, time.monotonic()
    while not last:
        last = ended.is_set()
        start = time.monotonic() - zero
        replies += [
            reply._replace(began=reply.began + start, ended=reply.ended + start)
            for reply in await open_loop(
                url, QUESTIONS, rate_per_s=rate, seconds=10, max_tokens=48, seed=len(replies)
            )
        ]
    return replies


def main() -> int:
    """Prints the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--root", required=True, help="a finished pipeline")
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--rate", type=float, default=4.0, help="questions a second (4)")
    parser.add_argument("--quick", action="store_true", help="4 kills")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    overrides = [
        f"storage_root={arguments.root}", "gateway.max_in_flight=64",
        *(f"{name}_replicas={{min: 2, max: 2, drain_timeout_s: 60}}" for name in DEPLOYMENTS),
        "gateway_replicas.drain_timeout_s=60",
    ]  # fmt: skip
    ended, done = threading.Event(), []
    with up.start(CONFIG, overrides, port=PORT, num_cpus=4, timeout_s=300) as running:
        first = asyncio.run(
            open_loop(running.url, QUESTIONS, rate_per_s=1, seconds=40, max_tokens=48)
        )
        before = {reply.question: reply.text for reply in first if not lost(reply)}
        kills = 4 if arguments.quick else arguments.kills
        thread = threading.Thread(target=trouble, args=(kills, overrides, ended, done))
        thread.start()
        try:
            replies = asyncio.run(load_until(running.url, arguments.rate, ended))
        finally:
            ended.set()
            thread.join()
    bad = [reply for reply in replies if lost(reply)]
    other = [
        reply
        for reply in replies
        if reply not in bad and reply.status == 200
        and reply.text != before.get(reply.question, reply.text)
    ]  # fmt: skip
    print_result(
        "chaos_serving",
        len(bad) + len(other),
        unit="requests lost or answered otherwise",
        goal="0",
        ours={
            "requests": len(replies),
            "refused_429": sum(reply.status == 429 for reply in replies),
            "lost": len(bad),
            "errors": [f"{r.began:.0f}-{r.ended:.0f} s: {r.status} {r.error}" for r in bad],
            "answered_otherwise": len(other),
            "trouble": done,
            "slowest_s": round(max(reply.ended - reply.began for reply in replies), 1),
        },
        other=None,
        n=len(replies),
    )
    return 1 if bad or other or not done[-1:] or not done[-1].endswith("updated") else 0


if __name__ == "__main__":
    raise SystemExit(main())
