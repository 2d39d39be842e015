"""An engine in another process: how it begins, and how either of the two ends."""

import asyncio
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from medray.common.errors import CheckpointError, GenerationError
from medray.generation.batching import BatchingConfig
from medray.generation.engine import HFEngine
from medray.generation.engine_process import EngineProcess
from medray.generation.sampling import EngineLoad, Sampling, Token

SMALL = BatchingConfig(max_requests=4, cache_tokens=256, page_tokens=16, batch_tokens=16)
LONG = Sampling(max_new_tokens=100)
STARTS_AND_IS_KILLED = """
import os, signal, sys
from medray.generation.batching import BatchingConfig
from medray.generation.engine_process import EngineProcess
engine = EngineProcess(sys.argv[1], BatchingConfig(max_requests=1))
print(engine._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


async def whole(engine: EngineProcess, prompt: list[int]) -> list[Token]:
    return [token async for tokens in engine.tokens(prompt, LONG, {}) for token in tokens]


def test_scores_and_tokens_are_those_of_the_model(model_dir: Path, engine: HFEngine) -> None:
    process = EngineProcess(model_dir, SMALL)
    texts = [engine.encode("咳嗽三天。"), engine.encode("肺炎")]
    scored = asyncio.run(process.score_texts(texts, 2))
    assert scored == engine.score_texts(texts, 2)
    chat = [{"role": "user", "content": "咳嗽"}]
    assert process.encode(process.prompt(chat)) == engine.encode(engine.prompt(chat))
    assert (process.eos_ids, process.max_tokens) == (engine.eos_ids, engine.max_tokens)
    assert process.num_embeddings == len(engine.model.get_input_embeddings().weight)
    process.close()
    with pytest.raises(GenerationError, match="has ended"):
        asyncio.run(whole(process, texts[0]))


def test_what_there_is_to_do_is_told(model_dir: Path) -> None:
    told: queue.Queue[EngineLoad] = queue.Queue()
    process = EngineProcess(model_dir, SMALL, on_load=told.put)
    assert told.get(timeout=60) == (0, 0, 0) == process.load()
    process.close()


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        EngineProcess(tmp_path, SMALL)


def test_a_killed_process_ends_its_streams(model_dir: Path, engine: HFEngine) -> None:
    ended = threading.Event()
    process = EngineProcess(model_dir, SMALL, on_end=ended.set)
    prompt = engine.encode("咳嗽")

    async def cut() -> None:
        answers = [process.tokens(prompt, LONG, {}) for _ in range(3)]
        await asyncio.gather(*map(anext, answers))
        os.kill(process._process.pid, signal.SIGKILL)
        rest = [[tokens async for tokens in answer] for answer in answers]
        raise AssertionError(f"{len(rest)} streams ended as if nothing had happened")

    with pytest.raises(GenerationError, match="has ended"):
        asyncio.run(cut())
    assert ended.is_set()  # before the streams are told: a replica that ends hands them on
    with pytest.raises(GenerationError, match="has ended"):
        process.check()
    process.close()


def test_it_ends_with_its_caller(model_dir: Path) -> None:
    """However that ends: here by kill -9."""
    run = subprocess.run(
        [sys.executable, "-c", STARTS_AND_IS_KILLED, str(model_dir)],
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert run.returncode == -signal.SIGKILL
    with pytest.raises(psutil.NoSuchProcess):  # or it is waited for, and has gone
        psutil.Process(int(run.stdout)).wait(timeout=10)
        raise psutil.NoSuchProcess(int(run.stdout))
