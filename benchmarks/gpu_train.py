"""Model FLOP utilisation of a training step on one GPU, for decoders of 0.5, 1.5 and 7 B shape.

One command on a machine with a GPU: `python benchmarks/gpu_train.py`. It needs torch, transformers
and peft beside this checkout, neither Ray nor DeepSpeed. A step is the one of pretraining: packed
blocks of several documents with their mask, bf16 weights, the loss of `LanguageModelLoss`, fused
AdamW; with LoRA and of all weights. What does not fit is tried with recomputed activations, then
left out and named. The value is the MFU of the 7 B shape, the better of both ways.

MFU = FLOP of the step (6 or, with frozen weights, 4 a weight and token, and attention's; nothing
for recomputing) / seconds / the GPU's bf16 peak. --quick runs a tiny shape, on a CPU too, without
an MFU: it shows that the script works.
Source: DESIGN.md 4, row 3; PaLM (Chowdhery et al. 2022, appendix B).
"""

import statistics
import sys
import time
from typing import Any

import numpy as np
import torch
from frame import argument_parser, print_result
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config

from medray.training.estimate import flops_per_token, peak_flops
from medray.training.language_model import LanguageModelLoss, LoraConfig, add_lora
from medray.training.optimiser import checkpoint_activations
from medray.training.packed import PackedBlocks
from medray.training.shapes import SHAPES

DECODERS: dict[str, PretrainedConfig] = {
    "0.5B": Qwen2Config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
        num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True,
    ),
    "1.5B": Qwen2Config(
        vocab_size=151_936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28,
        num_attention_heads=12, num_key_value_heads=2, tie_word_embeddings=True,
    ),
    "7B": SHAPES["baichuan2-7b"],
}  # fmt: skip
TINY = LlamaConfig(
    vocab_size=500, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=2,
)  # fmt: skip
LORA = LoraConfig()
DOCUMENTS = 4  # in a block


def make_blocks(num: int, length: int, vocab_size: int) -> PackedBlocks:
    """Blocks of `DOCUMENTS` documents of random tokens."""
    tokens_NT = np.random.default_rng(0).integers(3, vocab_size, (num, length)).astype(np.int32)
    segments_T = np.arange(length) * DOCUMENTS // length + 1
    segments_NT = np.broadcast_to(segments_T, tokens_NT.shape)
    return PackedBlocks(tokens_NT, segments_NT, np.ones(tokens_NT.shape, np.float32))


def measure(
    shape: PretrainedConfig, lora: LoraConfig | None, length: int, micro: int, steps: int,
    recompute: bool, device: str,
) -> dict[str, Any]:  # fmt: skip
    """Seconds and memory of a step; raises torch.OutOfMemoryError."""
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
    if lora is not None:
        model = add_lora(model, lora, 0).to(torch.bfloat16)
    module = LanguageModelLoss(model.train())
    if recompute:
        checkpoint_activations(module)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-5, fused=device == "cuda")
    blocks = make_blocks(2 * micro, length, shape.vocab_size)
    batches = [
        {name: value.to(device) for name, value in blocks.collate(rows).items()}
        for rows in (range(micro), range(micro, 2 * micro))
    ]
    seconds: list[float] = []
    for step in range(steps + 2):  # two to warm up
        started = time.perf_counter()
        loss = module(**batches[step % 2])
        (loss / (micro * length)).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        loss.item()  # waits for the GPU
        if step >= 2:
            seconds.append(time.perf_counter() - started)
    typical = statistics.median(seconds)
    flops = micro * length * flops_per_token(model, shape, lora is not None, False, length)
    peak = peak_flops()
    return {
        "tokens_per_s": round(micro * length / typical),
        "step_s": round(typical, 4),
        "mfu": None if peak is None else round(flops / typical / peak, 3),
        "memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1)
        if device == "cuda"
        else None,
        "recomputed": recompute,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def main() -> int:
    """Prints the result line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--micro", type=int, default=2, help="blocks of a pass")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="a tiny shape, 2 steps")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.quick:
        sys.stderr.write("no GPU here; --quick tries the script on a CPU\n")
        return 2
    shapes = {"tiny": TINY} if arguments.quick else DECODERS
    length, steps = (128, 2) if arguments.quick else (arguments.length, arguments.steps)
    found: dict[str, Any] = {}
    for name, shape in shapes.items():
        for way, lora in (("full", None), ("lora", LORA)):
            for recompute in (False, True):
                if device == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                try:
                    found[f"{name} {way}"] = measure(
                        shape, lora, length, arguments.micro, steps, recompute, device
                    )
                    break
                except torch.OutOfMemoryError:
                    found[f"{name} {way}"] = "does not fit"
            sys.stderr.write(f"{name} {way}: {found[f'{name} {way}']}\n")
    rows = [row for key, row in found.items() if key.startswith("7B") and isinstance(row, dict)]
    largest = [row["mfu"] for row in rows if row["mfu"]]
    print_result(
        "gpu_train",
        max(largest, default=None),
        unit="MFU of the 7 B shape",
        goal=">= 0.5",
        ours=found
        | {"gpu": torch.cuda.get_device_name() if device == "cuda" else None, "length": length},
        other="the GPU's bf16 peak",
        n=steps,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
