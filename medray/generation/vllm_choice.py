"""`TokenChoice` inside vLLM's engine. In: the logits of a step. Out: for each answer those that
leave what may be chosen.

vLLM loads this module in its engine's process, and nothing else does: it needs vLLM.
"""

from typing import Any

import torch
from transformers import AutoTokenizer
from vllm.v1.sample.logits_processor import (  # pyright: ignore[reportMissingImports]
    AdapterLogitsProcessor,
)

from medray.generation.directory import load_options
from medray.generation.vllm_streams import ASKED, AnswerChoice


class VLLMChoices(AdapterLogitsProcessor):  # pyright: ignore[reportUntypedBaseClass]
    """Hands each answer of a batch to its own `TokenChoice`."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        """As vLLM makes them."""
        super().__init__(vllm_config, device, is_pin_memory)
        self._device = device
        directory = vllm_config.model_config.model
        self._tokenizer = AutoTokenizer.from_pretrained(directory, **load_options())

    def is_argmax_invariant(self) -> bool:
        """False: what is likeliest changes."""
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        """None for an answer that takes the likeliest token of all."""
        asked = (params.extra_args or {}).get(ASKED)
        return None if asked is None else AnswerChoice(self._tokenizer, self._device, asked)
