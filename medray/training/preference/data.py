"""The examples of both splits as TRL wants them, without those that leave an answer no room.

In: preferences/ or prompts/ of the instructions. Out: two lists of rows; what is left out or cut is
counted in the log.
"""

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medray.common.errors import ConfigError, DataError
from medray.common.manifest import Counts
from medray.common.records import PreferencePair, Scenario
from medray.common.rows import read_rows
from medray.training.language_model import base_of, check_length, max_positions
from medray.training.preference.config import PreferenceConfig

logger = logging.getLogger(__name__)
Examples = list[dict[str, Any]]
Messages = list[dict[str, str]]


def read_examples(
    config: PreferenceConfig, instructions: Path, model: Any, tokenizer: Any
) -> tuple[Examples, Examples]:
    """(training examples, held-out examples). TRL would leave out pairs of a long prompt without a
    word, and generate past the end of the model's context.

    Raises:
        ConfigError: if max_tokens or max_new_tokens is more than the model's context.
        DataError: if a split has too few examples left.
    """
    room = prompt_room(config, model)
    what = "prompts" if config.needs_reward else "pairs"
    counts, cut = Counts(), 0
    kept: list[tuple[str, dict[str, Any]]] = []
    for split, answers, examples in _rows(config, instructions / _FOLDERS[what]):
        counts.rows_in += 1
        prompt = examples[0]["prompt"]
        if room is not None and count_tokens(tokenizer, prompt, is_asked=True) > room:
            counts.reject("too_long")
            continue
        counts.rows_out += 1
        cut += any(
            count_tokens(tokenizer, prompt + answer, is_asked=False) > config.max_tokens
            for answer in answers
        )
        kept += [(split, example) for example in examples]
    # TRL takes KTO's rows in their order, and its KL baseline sets each answer beside the next
    # prompt, which must not be its own.
    random.Random(config.seed).shuffle(kept)
    train = [row for split, row in kept if split == "train"]
    heldout = [row for split, row in kept if split == "dev"][: config.num_heldout]
    # Of fewer prompts than a step takes TRL makes no step at all.
    fewest = config.batch_size // config.num_generations if config.needs_reward else 1
    if len(train) < fewest or not heldout:
        limit = "max_new_tokens" if config.needs_reward else "max_tokens"
        raise DataError(
            f"{config.method} needs {fewest} training {what} at least and some held-out ones, "
            f"found {len(train)} train and {len(heldout)} dev; "
            f"{counts.rejected.get('too_long', 0)} of {counts.rows_in} prompts are longer than the "
            f"{room} tokens that preference.{limit} leaves; look at the counts of the instructions "
            f"artefact, or change preference.{limit}"
        )
    logger.info("%s: %s, %d with an answer cut at max_tokens", what, counts, cut)
    return train, heldout


def prompt_room(config: PreferenceConfig, model: Any) -> int | None:
    """Tokens that a prompt may have, so that some of the answer is left (DPO, KTO) or all of it can
    be drawn (GRPO, RLOO); None: any number.

    Raises:
        ConfigError: if the model's context is shorter than the settings need.
    """
    base = base_of(model)
    if not config.needs_reward:
        check_length(base, config.max_tokens, "preference.max_tokens")
        return config.max_tokens - 1
    context = max_positions(base)
    if context is None:
        return None
    if config.max_new_tokens >= context:
        raise ConfigError(
            f"preference.max_new_tokens {config.max_new_tokens} leaves no room for a prompt in the "
            f"model's {context} tokens; lower it or take a model with a longer context"
        )
    return context - config.max_new_tokens


def count_tokens(tokenizer: Any, messages: Messages, *, is_asked: bool) -> int:
    """Tokens of a chat in its template, the start of the answer included where it `is_asked`."""
    encoded = tokenizer.apply_chat_template(
        messages, add_generation_prompt=is_asked, return_dict=True
    )
    return len(encoded["input_ids"])


_FOLDERS = {"prompts": "prompts", "pairs": "preferences"}


def _rows(
    config: PreferenceConfig, directory: Path
) -> Iterator[tuple[str, list[Messages], Examples]]:
    """(split, the answers, the examples made of it) of every row."""
    if config.needs_reward:
        for row in read_rows(directory, Scenario):
            yield row.split, [], [{"prompt": _turn("user", row.prompt)}]
        return
    for row in read_rows(directory, PreferencePair):
        prompt: dict[str, Any] = {"prompt": _turn("user", row.prompt)}
        chosen, rejected = _turn("assistant", row.chosen), _turn("assistant", row.rejected)
        if config.method == "dpo":
            examples = [prompt | {"chosen": chosen, "rejected": rejected}]
        else:
            examples = [
                prompt | {"completion": chosen, "label": True},
                prompt | {"completion": rejected, "label": False},
            ]
        yield row.split, [chosen, rejected], examples


def _turn(role: str, content: str) -> Messages:
    return [{"role": role, "content": content}]
