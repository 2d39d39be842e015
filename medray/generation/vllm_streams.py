"""The contract of engines that stream, on vLLM. In: prompts as they arrive. Out: their tokens.

vLLM schedules, caches and computes; which token is taken stays with `TokenChoice`, which runs
inside its engine (`vllm_choice`), so that seeds, guided quotations and going on for another engine
mean the same as everywhere else. For one event loop, which `engine_answers` has.
Written to the interface of vLLM 0.15 and later, with its first model runner: the second hands
logits processors rows of another kind.
"""

import json
import os
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from medray.common.errors import CheckpointError, GenerationError
from medray.generation.batching import BatchingConfig
from medray.generation.chat import with_chat_template
from medray.generation.choice import TokenChoice
from medray.generation.directory import check_servable, load_options, trusts_remote_code
from medray.generation.engine_process import Loaded
from medray.generation.prompts import Numbered
from medray.generation.sampling import Sampling, Token

CHOICES = "medray.generation.vllm_choice:VLLMChoices"
ASKED = "medray"
"""Under it `extra_args` of a request hold what `TokenChoice` wants, as JSON."""
MOST_LOGPROBS = 20
"""As many as the API allows."""


class VLLMStreams:
    """Streams of tokens from one model."""

    def __init__(self, model_dir: Path | str, batching: BatchingConfig) -> None:
        """Loads the model; `close` gives its memory back.

        Raises:
            ConfigError: if vLLM is not installed.
            CheckpointError: if the directory cannot be served, or is an adapter's.
        """
        batching.check_installed()
        directory, adapter = check_servable(Path(model_dir))
        if adapter is not None:
            raise CheckpointError(
                f"{adapter} is an adapter; vLLM is given whole models here: serve the directory "
                "that training exported, whose weights are merged, or set batching.engine to "
                "transformers"
            )
        self.loaded = _loaded(directory)
        os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
        # A forked process would hold the connection to the caller open when this one has died.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # nothing leaves the hospital
        from vllm.engine.arg_utils import (  # pyright: ignore[reportMissingImports]
            AsyncEngineArgs,
        )
        from vllm.v1.engine.async_llm import AsyncLLM  # pyright: ignore[reportMissingImports]

        self._llm: Any = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=str(directory),
                load_format="safetensors",
                trust_remote_code=trusts_remote_code(),
                generation_config="vllm",  # how tokens are chosen stands in each request
                max_num_seqs=batching.max_requests,
                max_num_batched_tokens=batching.batch_tokens,
                enable_chunked_prefill=True,
                enable_prefix_caching=True,
                max_logprobs=MOST_LOGPROBS,
                logits_processors=[CHOICES],
                async_scheduling=False,  # a choice reads the token before it
                disable_log_stats=True,
                enable_log_requests=False,  # they hold patients' texts
            )
        )

    async def tokens(
        self,
        prompt: list[int],
        sampling: Sampling,
        citable: Mapping[int, Numbered],
        done: Sequence[int] = (),
    ) -> AsyncGenerator[list[Token], None]:
        """See `TokenStreams.tokens`."""
        settings: dict[str, Any] = {"logprobs": sampling.num_logprobs}
        if citable or sampling.temperature > 0:
            settings["extra_args"] = {ASKED: AnswerChoice.asked(sampling, citable, len(prompt))}
        left = sampling.max_new_tokens - len(done)
        outputs = self._generate([*prompt, *done], max_tokens=left, **settings)
        async with aclosing(outputs):
            async for output in outputs:
                (answer,) = output.outputs
                ids = list(answer.token_ids)
                likely = answer.logprobs or [{}] * len(ids)
                pairs = zip(ids, likely, strict=True)
                if ids:
                    yield [_token(*pair, sampling.num_logprobs or 0) for pair in pairs]

    async def score_texts(self, texts: Sequence[list[int]], num_top: int) -> list[list[Token]]:
        """See `HFEngine.score_texts`."""
        scores = []
        for ids in texts:
            likely: list[Any] = []
            outputs = self._generate(ids, max_tokens=1, prompt_logprobs=num_top)
            async with aclosing(outputs):
                async for output in outputs:
                    likely = likely or output.prompt_logprobs or []
            pairs = zip(ids, likely, strict=True)
            scores.append([_token(token, found or {}, num_top) for token, found in pairs])
        return scores

    def check(self) -> None:
        """See `TokenStreams.check`."""
        if self._llm.errored:
            raise GenerationError("vLLM's engine has ended")

    def load(self) -> None:
        """See `TokenStreams.load`: vLLM exports its own."""

    def close(self) -> None:
        """See `TokenStreams.close`."""
        self._llm.shutdown()

    async def _generate(self, ids: list[int], **settings: Any) -> AsyncGenerator[Any, None]:
        """What vLLM says as it goes; its own errors may quote what they were given."""
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]
        from vllm.sampling_params import (  # pyright: ignore[reportMissingImports]
            RequestOutputKind,
        )

        given, name = {"prompt_token_ids": ids}, uuid.uuid4().hex
        try:
            parameters = SamplingParams(
                temperature=0.0,  # `TokenChoice` draws
                output_kind=RequestOutputKind.DELTA,
                detokenize=False,
                stop_token_ids=sorted(self.loaded.eos_ids),
                **settings,
            )
            async with aclosing(self._llm.generate(given, parameters, name)) as outputs:
                async for output in outputs:
                    yield output
        except (ValueError, RuntimeError) as error:
            kind = type(error).__name__
            raise GenerationError(f"the engine failed on this request ({kind})") from None


class AnswerChoice:
    """The choices of one answer, as vLLM asks for them; it may begin an answer anew midway, when it
    wanted for memory."""

    def __init__(self, tokenizer: Any, device: torch.device, asked: str) -> None:
        """`asked`: what the function of that name made."""
        told = json.loads(asked)
        self._tokenizer, self._device = tokenizer, device
        self._sampling = Sampling.model_validate(told["sampling"])
        self._citable = {number: Numbered(*text) for number, *text in told["citable"]}
        self._num_prompt_tokens = int(told["num_prompt_tokens"])
        self._choice: TokenChoice | None = None

    @staticmethod
    def asked(sampling: Sampling, citable: Mapping[int, Numbered], num_prompt_tokens: int) -> str:
        """What goes to vLLM's process with a request. It tells log-probabilities itself."""
        chosen = sampling.model_copy(update={"num_logprobs": None})
        return json.dumps(
            {
                "sampling": chosen.model_dump(mode="json"),
                "citable": [[number, *text] for number, text in citable.items()],
                "num_prompt_tokens": num_prompt_tokens,
            },
            ensure_ascii=False,
        )

    def __call__(
        self, prompt_ids: list[int], output_ids: list[int], logits: torch.Tensor
    ) -> torch.Tensor:
        """logits_V of the next token. What other engines wrote of the answer ends `prompt_ids`."""
        ids = [*prompt_ids, *output_ids]
        if self._choice is None:
            self._choice = TokenChoice(
                self._tokenizer, self._num_prompt_tokens, self._sampling, self._citable,
                self._device, len(ids) - self._num_prompt_tokens,
            )  # fmt: skip
        return self._choice(torch.tensor([ids], device=logits.device), logits[None])[0]


def _loaded(directory: Path) -> Loaded:
    """As `HFEngine` reads them."""
    tokenizer = AutoTokenizer.from_pretrained(directory, **load_options())
    config = AutoConfig.from_pretrained(directory, **load_options())
    try:
        eos = GenerationConfig.from_pretrained(directory).eos_token_id
    except OSError:  # without a file of its own it stands in the model's
        eos = config.eos_token_id
    ends = [tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])]
    return Loaded(
        with_chat_template(tokenizer),
        {i for i in ends if i is not None},
        int(getattr(config, "max_position_embeddings", 2048)),
        int(config.vocab_size),
    )


def _token(token: int, likely: Mapping[int, Any], num_top: int) -> Token:
    """One token of vLLM's `{id: Logprob}`, which holds the token that was taken and the likeliest;
    log-probabilities are the model's own, before any choice."""
    if token not in likely:
        return Token(token)
    ranked = sorted(likely.items(), key=lambda item: item[1].rank)
    top = tuple((one, found.logprob) for one, found in ranked if found.rank <= num_top)
    return Token(token, likely[token].logprob, top)
