"""What of the engine on vLLM can be tested without it; with it, `test_streams` is its contract."""

import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from medray.common.errors import ConfigError
from medray.generation.batching import BatchingConfig
from medray.generation.engine import HFEngine
from medray.generation.engine_process import EngineProcess
from medray.generation.plain import PlainStreams
from medray.generation.prompts import RECORD, Numbered
from medray.generation.sampling import Sampling, Token
from medray.generation.vllm_streams import AnswerChoice, _token


class Logprob(NamedTuple):
    """As vLLM has it."""

    logprob: float
    rank: int


@pytest.mark.skipif(find_spec("vllm") is not None, reason="it is installed")
def test_without_vllm_one_is_told_what_to_do(model_dir: Path) -> None:
    with pytest.raises(ConfigError, match="pip install vllm"):
        EngineProcess(model_dir, BatchingConfig(engine="vllm"))
    with pytest.raises(ConfigError, match="pip install vllm"):
        BatchingConfig(engine="vllm").check_installed()
    BatchingConfig().check_installed()


@pytest.mark.parametrize("guided", [False, True])
def test_choices_are_those_of_other_engines_begun_anew_or_not(
    engine: HFEngine, guided: bool
) -> None:
    """Asked as vLLM asks: lists of tokens and a row of logits, and after tokens that were done."""
    sampling = Sampling(max_new_tokens=12, temperature=20.0 if guided else 1.0, seed=3)
    citable = {RECORD: Numbered("", "咳嗽三天。")} if guided else {}
    prompt = engine.encode("肺炎三天。")
    streams = PlainStreams(engine, 1)

    async def whole() -> list[int]:
        batches = streams.tokens(prompt, sampling, citable)
        return [token.id async for tokens in batches for token in tokens]

    expected = asyncio.run(whole())
    streams.close()
    asked = AnswerChoice.asked(sampling, citable, len(prompt))
    for num_done, anew in ((0, 99), (0, 5), (4, 6)):
        given, output = [*prompt, *expected[:num_done]], []
        choice = AnswerChoice(engine.tokenizer, engine.model.device, asked)
        while num_done + len(output) < len(expected):
            if len(output) == anew:
                choice = AnswerChoice(engine.tokenizer, engine.model.device, asked)
            with torch.inference_mode():
                logits_V = engine.model(torch.tensor([[*given, *output]])).logits[0, -1]
            output.append(int(choice(given, output, logits_V.clone()).argmax()))
        assert expected[:num_done] + output == expected


def test_log_probabilities_as_vllm_tells_them() -> None:
    """The token that was taken, and the likeliest, among which it need not be."""
    likely = {7: Logprob(-3.0, 9), 2: Logprob(-0.5, 1), 4: Logprob(-1.5, 2)}
    assert _token(7, likely, 2) == Token(7, -3.0, ((2, -0.5), (4, -1.5)))
    assert _token(2, {2: Logprob(-0.5, 1)}, 0) == Token(2, -0.5)
    assert _token(2, {}, 0) == Token(2)
