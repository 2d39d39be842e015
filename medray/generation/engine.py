"""The engine for everything that generates or scores text: plain transformers, batched.

In: prompts or chats. Out: text, streams of text, log-probabilities. One place loads a causal
language model for inference; quality control, evaluation, roll-outs and serving are handed one.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
)

from medray.generation.chat import chat_prompt, encode, with_chat_template
from medray.generation.directory import check_servable, load_options, quantisation
from medray.generation.drawing import drawing
from medray.generation.prompts import Numbered
from medray.generation.quoting import GuidedQuotes
from medray.generation.sampling import Chat, Generation, Sampling, Token, quotable
from medray.generation.scoring import option_scores, text_scores

SCORE_TOKENS = 4096
"""Tokens that `score_texts` reads at a time: each has logits as wide as the vocabulary."""


class HFEngine:
    """Batched generation and scoring with a Hugging Face directory."""

    def __init__(self, model_dir: Path | str, batch_size: int = 32) -> None:
        """Loads the model on the GPU if there is one. Of an adapter's directory, its base with the
        adapter merged.

        Raises:
            CheckpointError: if the directory lacks a config, weights or a tokenizer.
        """
        directory, adapter = check_servable(Path(model_dir))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype: Any = torch.bfloat16 if device == "cuda" else torch.float32
        quantised = bool(quantisation(directory))
        if quantised:
            # Another type than the directory's would reach the biases only, not the embeddings.
            dtype = "auto"
            # It warns in every layer, for every token, that it computes in float16.
            logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        model: Any = AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, use_safetensors=True, **load_options()
        )
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        tokenizer = AutoTokenizer.from_pretrained(directory, padding_side="left", **load_options())
        with_chat_template(tokenizer)
        self._set(model.to(torch.device(device)).eval(), tokenizer, batch_size)
        if quantised:
            # Its first pass packs the weights, which must not happen in two threads at once.
            with torch.no_grad():
                self.model(torch.zeros(1, 1, dtype=torch.long, device=device))

    @classmethod
    def wrap(cls, model: Any, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> "HFEngine":
        """An engine around a model that is already loaded (a model in training)."""
        engine = cls.__new__(cls)
        engine._set(model, tokenizer, batch_size)
        return engine

    def _set(self, model: Any, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        eos: Any = model.generation_config.eos_token_id
        ends = [tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])]
        self.eos_ids: set[int] = {i for i in ends if i is not None}
        self.max_tokens = int(getattr(model.config, "max_position_embeddings", 2048))

    def prompt(self, messages: Chat) -> str:
        """The text that the model continues with the assistant's next turn."""
        return chat_prompt(self.tokenizer, messages)

    def count_tokens(self, text: str) -> int:
        """How many tokens `text` is, special tokens in it parsed."""
        return len(self.encode(text))

    def chat(self, conversations: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        """Answers each conversation."""
        encoded = [self.encode(self.prompt(messages)) for messages in conversations]
        citable = [quotable(messages, sampling) for messages in conversations]
        answers = self.generate_ids(encoded, sampling, citable)
        return [self._finish(ids, len(encoded[i])) for i, ids in enumerate(answers)]

    def chat_score(
        self, conversations: Sequence[Chat], options: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """Log-probability (nats) of each option as the assistant's next words."""
        return self.score([self.prompt(messages) for messages in conversations], options)

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Generation]:
        """Continues each prompt; results in the order given."""
        encoded = [self.encode(prompt) for prompt in prompts]
        answers = self.generate_ids(encoded, sampling)
        return [self._finish(ids, len(encoded[i])) for i, ids in enumerate(answers)]

    @torch.inference_mode()
    def generate_ids(
        self,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        citable: Sequence[dict[int, Numbered]] = (),
    ) -> list[list[int]]:
        """Continues token sequences; an answer that ended has its end token as the last.

        Batches are sorted by length, and the random state is set once, so that the answers
        depend on the prompts, the seed and the batch size alone.

        Args:
            citable: for each prompt the texts that its answer may quote, see `GuidedQuotes`.
        """
        answers: list[list[int]] = [[] for _ in prompts]
        if sampling.temperature > 0:
            torch.manual_seed(sampling.seed)
        for batch in by_length([len(ids) for ids in prompts], self.batch_size):
            inputs = self.pad([prompts[i] for i in batch])
            output = self.model.generate(
                **inputs,
                logits_processor=self._processors(
                    sampling,
                    [citable[i] for i in batch] if citable else [],
                    inputs["input_ids"].shape[1],
                ),
                **self.arguments(sampling),
            )
            for row, i in enumerate(batch):
                answer = output[row, inputs["input_ids"].shape[1] :].tolist()
                ends = [k for k, token in enumerate(answer) if token in self.eos_ids]
                answers[i] = answer[: ends[0] + 1] if ends else answer
        return answers

    def score(self, prompts: Sequence[str], options: Sequence[Sequence[str]]) -> list[list[float]]:
        """Sum of log-probabilities (nats) of each option as the continuation of its prompt.

        Tokens are scored, never characters; a prompt must end so that options start a new token
        (`答案：` without a blank), and hold at least one. Source: EVALUATION.md 2.
        """
        encoded = [self.encode(prompt) for prompt in prompts]
        scores: list[list[float]] = [[] for _ in prompts]
        size = max(1, self.batch_size // max([1, *map(len, options)]))  # options fill a batch
        for batch in by_length([len(ids) for ids in encoded], size):
            rows = [(b, self.encode(option)) for b, i in enumerate(batch) for option in options[i]]
            values = option_scores(self.model, self.pad([encoded[i] for i in batch]), rows)
            for (b, _), value in zip(rows, values, strict=True):
                scores[batch[b]].append(value)
        return scores

    def score_texts(self, texts: Sequence[list[int]], num_top: int = 0) -> list[list[Token]]:
        """Every token of each text with its log-probability, and the `num_top` likeliest there."""
        scores: list[list[Token]] = [[] for _ in texts]
        lengths = [len(ids) for ids in texts]
        size = max(1, min(self.batch_size, SCORE_TOKENS // max([1, *lengths])))
        for batch in by_length(lengths, size):
            rows = text_scores(self.model, self.pad([texts[i] for i in batch]), num_top)
            for i, row in zip(batch, rows, strict=True):
                scores[i] = row
        return scores

    def encode(self, text: str) -> list[int]:
        """Tokens of a prompt; special tokens written in it are parsed."""
        return encode(self.tokenizer, text)

    def _processors(
        self, sampling: Sampling, citable: Sequence[dict[int, Numbered]], num_prompt_tokens: int
    ) -> LogitsProcessorList:
        """What shapes the logits of each token, in their order."""
        draws = drawing(sampling.temperature, sampling.top_p)
        if not any(citable):
            return draws
        guide = GuidedQuotes(self.tokenizer, citable, num_prompt_tokens)
        return LogitsProcessorList([guide, *draws])

    def arguments(self, sampling: Sampling) -> dict[str, Any]:
        """What `generate` is told; see `drawing` for how tokens are drawn."""
        return {
            "max_new_tokens": sampling.max_new_tokens,
            "do_sample": False,
            "pad_token_id": self.tokenizer.pad_token_id,
            "eos_token_id": sorted(self.eos_ids),
        }

    def pad(self, rows: list[list[int]]) -> dict[str, torch.Tensor]:
        """Rows of tokens as `input_ids` and `attention_mask`, padded on the left."""
        batch = self.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        return {name: batch[name].to(self.model.device) for name in ("input_ids", "attention_mask")}

    def _finish(self, answer: list[int], num_prompt_tokens: int) -> Generation:
        ended = bool(answer) and answer[-1] in self.eos_ids
        text = str(self.tokenizer.decode(answer, skip_special_tokens=True))
        reason = "stop" if ended else "length"
        return Generation(text, reason, num_prompt_tokens, len(answer) - ended)


def by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Indices in batches of up to `size`, shortest first."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for start in range(0, len(order), size):
        yield order[start : start + size]
