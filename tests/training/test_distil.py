"""Distillation: by hand-worked numbers, and on a small student and teacher."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import tensor

from medray.common.errors import ConfigError
from medray.training.distil import DistilConfig, DistillationLoss, load_teacher
from medray.training.language_model import DecoderConfig, LanguageModelLoss, build_decoder
from medray.training.losses import distillation_sum
from medray.training.packed import PackedBlocks


def test_softened_kl_by_hand() -> None:
    # τ = 2: logits (2 ln 3, 0) give (3/4, 1/4), (0, 0) give (1/2, 1/2).
    student, teacher = tensor([[0.0, 0.0]] * 2), tensor([[2 * math.log(3), 0.0], [0.0, 0.0]])
    kl = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    loss = distillation_sum(student, teacher, tensor([3.0, 5.0]), 2.0)
    assert loss.item() == pytest.approx(4 * 3 * kl)  # the second token: both say the same


def test_its_gradient_pulls_to_the_teacher() -> None:
    student, teacher = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5)
    distillation_sum(student, teacher, torch.ones(4), 1.0).backward()
    expected = student.softmax(-1) - teacher.softmax(-1)
    torch.testing.assert_close(student.grad, expected.detach(), atol=1e-6, rtol=0)


@pytest.fixture
def teacher(tokenizer: Any, text_blocks: PackedBlocks) -> Any:
    """Wider and deeper than the student, with more rows than there are tokens."""
    shape = DecoderConfig(
        hidden_size=48, num_layers=3, num_heads=3, head_dim=16, intermediate_size=64, max_tokens=128
    )
    model = build_decoder(shape, tokenizer, text_blocks, seed=1)
    model.resize_token_embeddings(len(tokenizer) + 20, mean_resizing=False)
    return model


def test_shares_add_up_and_held_out_loss_is_the_student_s_own(
    model: Any, teacher: Any, tokenizer: Any, text_blocks: PackedBlocks
) -> None:
    batch = text_blocks.collate([0, 1])
    plain = LanguageModelLoss(model).train()

    def loss(weight: float, taught_by: Any = teacher) -> DistillationLoss:
        config = DistilConfig(path="", weight=weight, temperature=2.0)
        return DistillationLoss(model, taught_by, len(tokenizer), config).train()

    none, half, all_of_it = (loss(weight)(**batch).item() for weight in (0.0, 0.5, 1.0))
    own = plain(**batch).item()
    assert none == pytest.approx(own, rel=1e-6)
    assert half == pytest.approx((own + all_of_it) / 2, rel=1e-6)
    assert loss(1.0, taught_by=model)(**batch).item() == pytest.approx(0, abs=1e-4)
    assert loss(1.0).eval()(**batch).item() == pytest.approx(own, rel=1e-6)
    # The teacher is neither trained nor saved.
    assert loss(0.5).state_dict().keys() == plain.state_dict().keys()
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_teacher_of_other_tokens_is_refused(
    baichuan: Path, tokenizer: Any, tmp_path: Path
) -> None:
    from medray.training.baichuan import convert

    convert(baichuan, tmp_path / "teacher")
    with pytest.raises(ConfigError, match="another vocabulary"):
        load_teacher(DistilConfig(path=str(tmp_path / "teacher")), tokenizer)
