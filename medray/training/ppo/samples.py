"""What may be written down of single answers of a round: numbers and the scenario's id, no text.

A scenario is a patient's, and an answer repeats it. Whoever may read them finds the scenario by its
id in the instructions, and asks the model again.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from medray.training.ppo.config import PpoConfig
from medray.training.ppo.guards import repeated_share
from medray.training.ppo.policy import Experience


def describe(
    ids: Sequence[str], experience: Experience, kl_BA: Tensor, config: PpoConfig, num: int
) -> list[dict[str, Any]]:
    """Rows of samples.jsonl, of the first `num` answers.

    Returns:
        of each `id`; `score`, the reward model's; `kl` against the reference, in nats; `tokens`;
        `cut`, whether it was as long as allowed; `repeated`, the share of its n-grams that stood
        in it before.
    """
    rows = []
    for b, name in enumerate(ids[:num]):
        real_A = experience.mask_BA[b] > 0
        tokens = experience.tokens_BT[b, experience.places_BA[b, real_A]].tolist()
        rows.append(
            {
                "id": name,
                "score": float(experience.scores_B[b]),
                "kl": float(kl_BA[b].sum()),
                "tokens": len(tokens),
                "cut": len(tokens) == config.max_new_tokens,
                "repeated": repeated_share(tokens, config.guards.repetition_tokens),
            }
        )
    return rows
