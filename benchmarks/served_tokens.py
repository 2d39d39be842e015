"""Streams of one model, over HTTP and of the engine called directly, for benchmarks of serving."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from medray.generation.continuous import ContinuousEngine
from medray.generation.engine import HFEngine
from medray.generation.sampling import Sampling

SHAPE: dict[str, Any] = {
    "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4,
    "head_dim": 64, "intermediate_size": 1536,
}  # fmt: skip
"""28 M parameters."""


def build_model(target: Path, tokenizer_dir: Path, shape: dict[str, Any]) -> None:
    """A Qwen3 with random weights that never ends an answer."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), max_position_embeddings=2048, eos_token_id=None,
        bos_token_id=None, pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True, **shape,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():  # the end of a turn is never the likeliest
        model.model.embed_tokens.weight[tokenizer.eos_token_id] = 0
        model.model.embed_tokens.weight[tokenizer.pad_token_id] = 0
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def question(k: int) -> str:
    """Of about the length of a clinician's, all different."""
    return f"患者{k}，男性，{40 + k}岁，咳嗽、发热{k % 7 + 1}天，右下肺闻及湿啰音，应做哪些检查？"


async def direct(streams: ContinuousEngine, engine: HFEngine, num: int, length: int) -> int:
    """Tokens of `num` streams of the engine."""
    sampling = Sampling(max_new_tokens=length)

    async def one(k: int) -> int:
        prompt = engine.encode(engine.prompt([{"role": "user", "content": question(k)}]))
        return sum([len(tokens) async for tokens in streams.tokens(prompt, sampling, {})])

    return sum(await asyncio.gather(*map(one, range(num))))


async def over_http(url: str, num: int, length: int) -> int:
    """Tokens of `num` streamed chats."""

    async def one(client: aiohttp.ClientSession, k: int) -> int:
        body = {
            "model": "medray", "stream": True, "retrieval": False, "max_tokens": length,
            "messages": [{"role": "user", "content": question(k)}],
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        usage = 0
        async with client.post(f"{url}/v1/chat/completions", json=body) as response:
            async for line in response.content:
                if b'"usage"' in line:
                    usage = json.loads(line[6:])["usage"]["completion_tokens"]
        return usage

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600)) as client:
        return sum(await asyncio.gather(*(one(client, k) for k in range(num))))


def speed(run: Callable[[], Any]) -> float:
    """Tokens a second."""
    began = time.perf_counter()
    return asyncio.run(run()) / (time.perf_counter() - began)
