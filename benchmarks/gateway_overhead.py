"""What the served graph costs over its parts: latency of one token, tokens a second of 32 streams.

Latency: a chat of one token through the gateway, less the same token from the engine called
directly, less a Serve ingress that reads the same request and answers at once; the three in turn,
and the median of the differences. Throughput: 32 chats at a time over
HTTP against 32 streams of the same engine in this process, in turns. The model has random weights
and 28 M parameters; answers have no end token, so that both sides write as many tokens.

--root DIR is a finished pipeline (its encoder and index are served beside the model); retrieval is
off in what is timed. Source: DESIGN.md 4, row 7.
"""

import asyncio
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import requests
from fastapi import FastAPI
from frame import argument_parser, print_result
from ray import serve
from served_tokens import SHAPE, build_model, direct, over_http, question, speed

from medray.generation.batching import BatchingConfig
from medray.generation.continuous import ContinuousEngine
from medray.generation.engine import HFEngine
from medray.serving import up
from medray.serving.artefacts import newest
from medray.serving.up import check_port

STREAMS = 32
PORT = 8123
CONFIG = Path(__file__).parents[1] / "serve_configs" / "laptop.yaml"
BATCHING = BatchingConfig(max_requests=STREAMS)
null_app = FastAPI()


@serve.ingress(null_app)
class Null:
    """An ingress that does nothing."""

    @null_app.post("/")
    async def answer(self, body: dict[str, Any]) -> dict[str, bool]:
        """At once."""
        return {"ok": True}


def times_ms(runs: list[Callable[[], Any]], repeats: int) -> np.ndarray:
    """Of each call, one after the other: [repeats, runs]. A few before are not counted."""
    times = []
    for _ in range(repeats + 5):
        row = []
        for run in runs:
            began = time.perf_counter()
            run()
            row.append((time.perf_counter() - began) * 1000)
        times.append(row)
    return np.array(times[5:])


def main() -> None:
    """Prints the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--root", required=True, help="a finished pipeline")
    parser.add_argument("--quick", action="store_true", help="one round of few tokens")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    rounds, length, repeats = (1, 16, 20) if arguments.quick else (7, 64, 100)
    check_port("127.0.0.1", PORT)
    model = newest(arguments.root, ("ppo", "sft"), part="model")
    with tempfile.TemporaryDirectory() as scratch:
        build_model(Path(scratch), Path(model.fetch()), SHAPE)
        overrides = [
            f"storage_root={arguments.root}", f"model_dir={scratch}",
            f"batching.max_requests={STREAMS}", f"gateway.max_in_flight={STREAMS}",
        ]  # fmt: skip
        engine = HFEngine(scratch)
        streams = ContinuousEngine(engine, BATCHING)
        with up.start(CONFIG, overrides, port=PORT) as running:
            serve.run(serve.deployment(Null).bind(), name="null", route_prefix="/null")
            ours, other = [], []
            for _ in range(rounds):
                other.append(speed(lambda: direct(streams, engine, STREAMS, length)))
                ours.append(speed(lambda: over_http(running.url, STREAMS, length)))
            with requests.Session() as client:
                body = {
                    "model": "medray", "retrieval": False, "max_tokens": 1,
                    "messages": [{"role": "user", "content": question(0)}],
                }  # fmt: skip
                times_RC = times_ms(
                    [
                        lambda: client.post(f"{running.url}/v1/chat/completions", json=body),
                        lambda: client.post(f"{running.url}/null/", json=body),
                        lambda: asyncio.run(direct(streams, engine, 1, 1)),
                    ],
                    repeats,
                )
            chat_ms, null_ms, token_ms = np.median(times_RC, axis=0)
            added_ms = np.median(times_RC @ [1, -1, -1])
        streams.close()
    print_result(
        "gateway_overhead",
        # Of each turn by itself: the machine is faster in one than in another.
        round(statistics.median(one / two for one, two in zip(ours, other, strict=True)), 3),
        unit="tokens a second of 32 streams over HTTP / of the engine called directly",
        goal="0.9, and 10 ms added at the median",
        ours={
            "tokens_per_s": round(statistics.median(ours), 1),
            "chat_of_one_token_ms": round(float(chat_ms), 1),
            "added_ms": round(float(added_ms), 1),
        },
        other={
            "tokens_per_s": round(statistics.median(other), 1),
            "null_ingress_ms": round(float(null_ms), 1),
            "engine_one_token_ms": round(float(token_ms), 1),
        },
        n=rounds,
    )


if __name__ == "__main__":
    main()
