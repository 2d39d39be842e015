"""The prompts that PPO rolls out: those of both splits that leave room for an answer."""

import logging
from collections.abc import Sequence

from medray.common.errors import DataError
from medray.common.manifest import Counts
from medray.common.records import Scenario
from medray.generation.engine import HFEngine
from medray.training.ppo.config import PpoConfig

logger = logging.getLogger(__name__)


def fitting_prompts(
    rows: Sequence[Scenario], generator: HFEngine, config: PpoConfig
) -> tuple[list[Scenario], list[Scenario]]:
    """(training prompts, held-out prompts), without those to which an answer of `max_new_tokens`
    would pass the end of the model's context; these are counted in the log.

    Raises:
        DataError: if a split has none left.
    """
    room = generator.max_tokens - config.max_new_tokens
    splits: dict[str, list[Scenario]] = {"train": [], "dev": []}
    counts = Counts()
    for row in rows:
        if row.split not in splits:
            continue
        counts.rows_in += 1
        chat = generator.prompt([{"role": "user", "content": row.prompt}])
        if generator.count_tokens(chat) <= room:
            splits[row.split].append(row)
            counts.rows_out += 1
        else:
            counts.reject("too_long")
    train, heldout = splits["train"], splits["dev"][: config.num_heldout]
    if not train or not heldout:
        raise DataError(
            f"PPO needs prompts in both splits, found {len(train)} train and {len(heldout)} dev; "
            f"{counts.rejected.get('too_long', 0)} are longer than the {room} tokens that a "
            f"context of {generator.max_tokens} and ppo.max_new_tokens {config.max_new_tokens} "
            "leave; look at the prompts of the instructions artefact"
        )
    logger.info("prompts: %s", counts)
    return train, heldout
