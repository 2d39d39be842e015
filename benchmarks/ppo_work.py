"""A round of PPO for both sides of ppo_round.py: size, models, lengths of the answers, a clock.

Imports nothing that only one of the two environments has, but where it is used.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

RANK, ALPHA = 8, 32
MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
HELD_OUT = 8
QUANTILES = 0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1
CHARACTERS = 50, 50, 66, 106, 133, 165, 199, 215
"""Of cMedQA2's answers at these quantiles; the ends are its 5 % and 95 %."""


@dataclass(frozen=True)
class Work:
    """A round, and the shape of the models. Source: [EMR-LLM 2.2], batch and passes."""

    rollouts: int = 64
    batch: int = 8
    """Answers of an update, and of a forward pass in it."""
    passes: int = 4
    answer_tokens: int = 64
    """Of the longest answer."""
    same_length: bool = False
    width: int = 192
    layers: int = 4
    vocabulary: int = 6000

    def lengths(self) -> list[int]:
        """Tokens of the answers, in a mixed order."""
        if self.same_length:
            return [self.answer_tokens] * self.rollouts
        at = (np.arange(self.rollouts) + 0.5) / self.rollouts
        shares = np.interp(at, QUANTILES, CHARACTERS) / CHARACTERS[-1]
        lengths = np.ceil(shares * self.answer_tokens).astype(int)
        return np.random.default_rng(0).permutation(lengths).tolist()


QUICK = Work(rollouts=16, passes=2, answer_tokens=32, width=64, layers=2, vocabulary=1000)


class EndAt(LogitsProcessor):
    """Ends each row of a batch after the tokens given for it."""

    def __init__(self, lengths: list[int], end: int) -> None:
        self.lengths, self.end, self.step = torch.tensor(lengths), end, 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.step += 1
        last_B1 = (self.lengths[: len(scores)] == self.step)[:, None]
        only_end_BV = torch.full_like(scores, -torch.inf)
        only_end_BV[:, self.end] = 0
        return torch.where(last_B1, only_end_BV, scores)  # pyright: ignore[reportReturnType]


def ending(model: Any, work: Work) -> None:
    """Makes `model` end its answers at the lengths of `work`."""
    generate, end = model.generate, model.generation_config.eos_token_id

    def ended(*given: Any, logits_processor: Any = (), **more: Any) -> Any:
        processors = LogitsProcessorList([EndAt(work.lengths(), end), *logits_processor])
        return generate(*given, logits_processor=processors, **more)

    model.generate = ended


def make_models(work: Work, directory: Path) -> None:
    """policy/, reward/ and prompts.json."""
    from near_duplicates import sample_texts
    from transformers import Qwen3Config
    from transformers.models.qwen3 import Qwen3ForCausalLM, Qwen3ForSequenceClassification

    from medray.corpus.tokenizer import TokenizerConfig, train_tokenizer
    from medray.sample.consult import scenario
    from medray.sample.model import shipped_model

    hospital = shipped_model()
    prompts = [scenario(hospital, f"ppo {k}").text for k in range(work.rollouts + HELD_OUT)]
    texts = [*sample_texts(work.vocabulary // 5), *prompts]
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=work.vocabulary), texts)
    end: Any = tokenizer.eos_token_id
    pad: Any = tokenizer.pad_token_id
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=work.width, num_hidden_layers=work.layers,
        num_attention_heads=work.width // 64, num_key_value_heads=work.width // 64, head_dim=64,
        intermediate_size=work.width * 8 // 3, max_position_embeddings=1024,
        tie_word_embeddings=True, eos_token_id=end, pad_token_id=pad,
    )  # fmt: skip
    config.num_labels = 1  # of the reward model
    torch.manual_seed(0)
    policy = Qwen3ForCausalLM(config)
    assert policy.generation_config is not None
    policy.generation_config.suppress_tokens = [end, pad]  # but where `ending` asks for the end
    for name, model in ("policy", policy), ("reward", Qwen3ForSequenceClassification(config)):
        model.save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)
    (directory / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")


class Clock:
    """Seconds of the processor since it was made; of the wall beside them."""

    def __init__(self) -> None:
        self._started = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        cpu, wall = self._started
        return {"seconds": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
