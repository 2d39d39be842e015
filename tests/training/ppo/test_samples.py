"""What samples.jsonl says of single answers."""

import pytest
import torch

from medray.training.ppo.config import PpoConfig
from medray.training.ppo.guards import GuardConfig
from medray.training.ppo.policy import Experience, lay_out
from medray.training.ppo.samples import describe

CONFIG = PpoConfig(max_new_tokens=4, guards=GuardConfig(repetition_tokens=2))


def test_by_hand() -> None:
    answers = [[11, 12], [13, 14, 13, 14], [17]]
    laid_out = lay_out([[5, 6, 7], [8], [9, 10]], answers, pad=0)
    kl_BA = torch.tensor([[0.5, 0.25, 0, 0], [1, 1, -1, 1], [9, 0, 0, 0]])
    unread_BA = torch.zeros(3, 4)
    experience = Experience(*laid_out, torch.tensor([7.0, 8.0, 9.0]), *[unread_BA] * 5)
    first, second = describe(["a", "b", "c"], experience, kl_BA, CONFIG, 2)
    assert first == {
        "id": "a", "score": 7, "kl": 0.75, "tokens": 2, "cut": False, "repeated": 0,
    }  # fmt: skip
    # Of its bigrams 13 14, 14 13, 13 14 the last stood before.
    third = pytest.approx(1 / 3)
    assert second == {"id": "b", "score": 8, "kl": 2, "tokens": 4, "cut": True, "repeated": third}
    assert describe(["a"], experience, kl_BA, CONFIG, 0) == []
