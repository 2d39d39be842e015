"""Tokens a second of a served model on one GPU, at 1, 16, 64 and 256 streams, against its engine.

One command on a machine with a GPU: `python benchmarks/gpu_serve.py --root DIR`, DIR a finished
pipeline, whose encoder and index are served beside the model (on CPUs) and whose tokenizer it has.
The model has 0.5 B shape and random weights, in bf16; answers have no end token, so that both sides
write as many tokens. The bare engine is the same continuous batching, in this process and without
Serve; it runs first and gives the GPU back. The value is the ratio at the most streams. --quick
runs a tiny shape at 1 and 4 streams, on a CPU too: it shows that the script works.
Source: DESIGN.md 4, row 7.
"""

import gc
import logging
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from frame import argument_parser, print_result
from served_tokens import build_model, direct, over_http, speed

from medray.generation.batching import BatchingConfig
from medray.generation.continuous import ContinuousEngine
from medray.generation.engine import HFEngine
from medray.serving import up
from medray.serving.artefacts import newest
from medray.serving.up import check_port

PORT = 8126
CONFIG = Path(__file__).parents[1] / "serve_configs" / "laptop.yaml"
SHAPE = {
    "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072,
}  # fmt: skip
"""Qwen3-0.6B's, but for its vocabulary."""
TINY = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 32, "intermediate_size": 128,
}  # fmt: skip
CACHE_TOKENS = 2**18


def main() -> None:
    """Prints the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--root", required=True, help="a finished pipeline")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--quick", action="store_true", help="a tiny shape, few streams")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if not (arguments.quick or torch.cuda.is_available()):
        parser.error("there is no GPU here; --quick runs without one")
    counts = [1, 4] if arguments.quick else arguments.streams
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    rounds, length = (1, 8) if arguments.quick else (3, 256)
    check_port("127.0.0.1", PORT)
    most = max(counts)
    batching = BatchingConfig(max_requests=most)
    if not arguments.quick:
        batching = batching.model_copy(update={"cache_tokens": CACHE_TOKENS})
    tokenizer = newest(arguments.root, ("ppo", "sft"), part="model").fetch()
    ours: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        build_model(Path(scratch), tokenizer, TINY if arguments.quick else SHAPE)
        other = alone(Path(scratch), batching, counts, rounds, length)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        overrides = [
            f"storage_root={arguments.root}", f"model_dir={scratch}",
            f"batching.max_requests={most}", f"batching.cache_tokens={batching.cache_tokens}",
            f"gateway.max_in_flight={most}",
            f"policy_replicas.num_gpus={int(torch.cuda.is_available())}",
        ]  # fmt: skip
        with up.start(CONFIG, overrides, port=PORT, timeout_s=600) as running:
            for num in counts:
                ours[str(num)] = median(rounds, partial(over_http, running.url, num, length))
    print_result(
        "gpu_serve",
        round(ours[str(most)] / other[str(most)], 3),
        unit="tokens a second over HTTP / of the engine called directly, at the most streams",
        goal="0.9",
        ours={"tokens_per_s": ours, "device": device},
        other={"tokens_per_s": other},
        n=rounds,
    )


def alone(
    model: Path, batching: BatchingConfig, counts: list[int], rounds: int, length: int
) -> dict[str, float]:
    """Tokens a second of the engine in this process."""
    engine = HFEngine(model)
    streams = ContinuousEngine(engine, batching)

    def run(num: int) -> Any:
        return direct(streams, engine, num, length)

    try:
        return {str(num): median(rounds, partial(run, num)) for num in counts}
    finally:
        streams.close()


def median(rounds: int, run: Any) -> float:
    """Tokens a second, after a round to warm up."""
    speed(run)
    return round(statistics.median(speed(run) for _ in range(rounds)), 1)


if __name__ == "__main__":
    main()
