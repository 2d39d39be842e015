"""Many answers at a time by transformers' continuous batching, bounded in memory.

In: prompts as they arrive. Out: each answer's tokens as they come. A step runs one token of every
answer, or a stretch of a new prompt; prompts that begin alike share what is cached of them.

Every answer chooses its own tokens (`TokenChoice`), so that neither its seed nor its guidance nor
what is generated beside it changes another's. Source: DESIGN.md 3, "CB traps".
"""

import asyncio
import copy
import logging
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
)

from medray.common.errors import GenerationError
from medray.generation.batching import BatchingConfig
from medray.generation.choice import TokenChoice
from medray.generation.engine import HFEngine
from medray.generation.packed_attention import use_packed_attention
from medray.generation.prompts import Numbered
from medray.generation.sampling import EngineLoad, Sampling, Token

logger = logging.getLogger(__name__)
PROBES = ("患者咳嗽三天，", "Which drug is given first?", "请问")
PROBE_TOKENS = 12
PROBE_TIMEOUT_S = 120
NEAR_TIE = {torch.float32: 1e-3}
NEAR_TIE_HALF = 0.25
"""Logits this close may come in either order: two kernels round differently."""


class ContinuousEngine:
    """Streams of tokens from one model."""

    def __init__(self, engine: HFEngine, config: BatchingConfig) -> None:
        """Starts the thread that generates; `close` ends it.

        Raises:
            GenerationError: if the model answers otherwise when batched this way, as BLOOM does.
        """
        self._engine = engine
        self._choices = _Choices()
        self._cached_tokens = 0
        # A copy with the same weights: the manager changes a model's attention for as long as it
        # runs, and the engine's own passes must not meet that.
        tensors = chain(engine.model.parameters(), engine.model.buffers())
        twin = copy.deepcopy(engine.model, {id(tensor): tensor for tensor in tensors})
        pages = -(-max(config.cache_tokens, engine.max_tokens) // config.page_tokens)
        self._manager = twin.init_continuous_batching(
            generation_config=GenerationConfig(
                do_sample=False,  # `TokenChoice` draws
                eos_token_id=sorted(engine.eos_ids),
                pad_token_id=engine.tokenizer.pad_token_id,
            ),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=config.page_tokens,
                # One context more than asked: a request that fits into no cache ends the thread.
                num_blocks=pages + 2,
                max_batch_tokens=config.batch_tokens,
                max_requests_per_batch=config.max_requests,
                # The choices are Python, which no graph can hold, and need each token at once.
                use_cuda_graph=False,
                use_async_batching=False,
            ),
        )
        processors = self._manager.logit_processor
        processors.logits_processor.append(self._choices)
        processors.tensors_required += 1
        processors.do_processing = True
        use_packed_attention(twin)  # before the manager's thread asks whether a mask is needed
        self._manager.start()
        try:
            _probe(self)
            self._count_cached()
        except BaseException:
            self.close()
            raise

    async def tokens(
        self,
        prompt: list[int],
        sampling: Sampling,
        citable: Mapping[int, Numbered],
        done: Sequence[int] = (),
    ) -> AsyncGenerator[list[Token], None]:
        """See `TokenStreams.tokens`."""
        request, manager = uuid.uuid4().hex, self._manager
        choice = TokenChoice(
            self._engine.tokenizer, len(prompt), sampling, citable, self._engine.model.device,
            len(done),
        )  # fmt: skip
        if choice.active:
            self._choices.open[request] = choice
        outputs: asyncio.Queue[Any] = asyncio.Queue()
        manager.register_result_handler(request, outputs.put_nowait)
        finished, seen = False, 0
        try:
            left = sampling.max_new_tokens - len(done)
            ids = [*prompt, *done]
            if manager.add_request(ids, request, max_new_tokens=left, streaming=True) is None:
                raise GenerationError("the engine has stopped; start it again")
            while not finished:
                output = await outputs.get()
                while not outputs.empty():
                    output = outputs.get_nowait()
                finished = output.is_finished()
                if output.error:
                    # Its own text may quote what it was given.
                    raise GenerationError("the engine failed on this request")
                # Read by index and left as it is: the engine's thread appends to it meanwhile.
                told = choice.told[seen : len(output.generated_tokens)]
                ids = output.generated_tokens[seen:]
                seen += len(ids)
                if ids:
                    yield told if len(told) == len(ids) else [Token(token) for token in ids]
        finally:
            if not finished:
                manager.cancel_request(request)
            self._choices.open.pop(request, None)
            manager.output_router.result_handlers.pop(request, None)

    def check(self) -> None:
        """See `TokenStreams.check`."""
        if not self._manager.is_running():
            raise GenerationError("the engine's thread has ended")

    def load(self) -> EngineLoad:
        """See `TokenStreams.load`. The engine's thread goes on meanwhile: a request that passes
        from one list to the other as they are counted may stand in none, or in both."""
        queue, scheduler = self._manager.input_queue, self._manager.batch_processor.scheduler
        waiting = queue.qsize() + len(scheduler.waiting_requests)
        return EngineLoad(waiting, len(scheduler.active_requests), self._cached_tokens)

    def _count_cached(self) -> None:
        """Counts what is found in the cache; the manager itself but writes it to its log."""
        cache = self._manager.batch_processor.cache
        search = cache.search_prefix_match

        def counted(request: str, prompt: list[int]) -> int:
            found = search(request, prompt)
            self._cached_tokens += found
            return found

        cache.search_prefix_match = counted

    def close(self) -> None:
        """See `TokenStreams.close`."""
        self._manager.stop(block=True, hard_stop=True)


class _Choices(ContinuousBatchingLogitsProcessor):
    """Hands each answer of a batch to its own `TokenChoice`."""

    supported_kwargs: ClassVar[dict[str, type]] = {}
    ignored_kwargs = ()

    def __init__(self) -> None:
        self.open: dict[str, TokenChoice] = {}
        self._batch: list[tuple[int, TokenChoice, Any]] = []

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        """The tensor argument is not used."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> Tensor:
        """Called before each step with the answers that get a token, in the order of their rows."""
        self._batch = [
            (row, choice, request.state)
            for row, request in enumerate(requests_with_new_token)
            if (choice := self.open.get(request.state.request_id)) is not None
        ]
        return torch.zeros(len(requests_with_new_token), dtype=torch.int32)

    def __call__(self, scores: Tensor, tensor_arg: Tensor) -> Tensor:
        """Logits [answers, V]."""
        for row, choice, state in self._batch:
            ids = torch.tensor(
                [state.initial_tokens + state.generated_tokens], device=scores.device
            )
            scores[row] = choice(ids, scores[row : row + 1])[0]
        return scores


def _probe(streams: ContinuousEngine) -> None:
    """Raises GenerationError unless batched greedy answers are those of `generate`."""
    engine, manager = streams._engine, streams._manager
    prompts = [engine.encode(text) for text in PROBES]
    expected = engine.generate_ids(prompts, Sampling(max_new_tokens=PROBE_TOKENS))
    requests = manager.add_requests(prompts, max_new_tokens=PROBE_TOKENS)
    answers: dict[str, list[int]] = {}
    while len(answers) < len(requests):
        output = manager.get_result(timeout=PROBE_TIMEOUT_S)
        if output is None or output.error:
            raise GenerationError("continuous batches cannot be made of this model")
        answers[output.request_id] = output.generated_tokens
    got = [answers[request] for request in requests]
    for prompt, ours, theirs in zip(prompts, got, expected, strict=True):
        same = [a == b for a, b in zip(ours, theirs, strict=False)]
        if all(same) and len(ours) == len(theirs):
            continue
        if all(same) or _gap(engine, prompt, ours, theirs, same.index(False)) > NEAR_TIE.get(
            engine.model.dtype, NEAR_TIE_HALF
        ):
            raise GenerationError(
                f"{type(engine.model).__name__} answers otherwise in continuous batches than alone"
            )


@torch.inference_mode()
def _gap(engine: HFEngine, prompt: list[int], ours: list[int], theirs: list[int], at: int) -> float:
    """How much more likely the one's next token is than the other's, in logits."""
    ids = torch.tensor([prompt + theirs[:at]], device=engine.model.device)
    logits_V = engine.model(ids).logits[0, -1].float()
    return float(logits_V[theirs[at]] - logits_V[ours[at]])
