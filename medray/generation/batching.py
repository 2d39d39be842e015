"""How much an engine generates at a time. Loads no framework."""

from importlib.util import find_spec
from typing import Literal

from pydantic import Field

from medray.common.config import Config
from medray.common.errors import ConfigError


class BatchingConfig(Config):
    """Who generates, and how much at a time."""

    engine: Literal["transformers", "vllm"] = "transformers"
    """`vllm` has to be installed, and decides itself how much it caches."""
    max_requests: int = Field(default=16, ge=1)
    """Answers that are generated together; more wait for their turn."""
    cache_tokens: int = Field(default=32_768, ge=1)
    """Tokens of all answers and their prompts whose keys and values are kept. Past it the newest
    answers wait, and are computed again. At least one context."""
    page_tokens: int = Field(default=32, ge=4)
    """Prompts share what is cached in pages of so many tokens."""
    batch_tokens: int = Field(default=1024, ge=16)
    """Tokens of a step: a longer prompt is read in stretches, so that others go on meanwhile."""

    def check_installed(self) -> None:
        """Raises ConfigError if the engine is not installed on this machine."""
        if self.engine == "vllm" and find_spec("vllm") is None:
            raise ConfigError(
                "batching.engine is vllm, which is not installed here: pip install vllm into the "
                "environment of the cluster's nodes, or set it to transformers"
            )
