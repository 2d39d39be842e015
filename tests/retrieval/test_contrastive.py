import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from medray.retrieval.questions import load_passages, load_questions
from medray.retrieval.training.contrastive import ContrastiveConfig, PairBatches, random_span
from medray.retrieval.training.pair_loss import PairLoss, info_nce


def test_info_nce_by_hand() -> None:
    # row 0: -log(e^2 / (e^2 + e^1)) = ln(1 + e^-1) = 0.313262
    # row 1: -log(e^3 / (e^0 + e^3)) = ln(1 + e^-3) = 0.048587; mean 0.180924
    scores = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    none = torch.zeros(2, 2, dtype=torch.bool)
    loss = info_nce(scores, none, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(0.180924, abs=1e-5)
    assert info_nce(torch.zeros(2, 2), none, torch.tensor([0, 1])).item() == pytest.approx(
        math.log(2)
    )


def test_a_masked_passage_is_no_negative() -> None:
    scores = torch.tensor([[2.0, 9.0], [0.0, 3.0]])
    masked = torch.tensor([[False, True], [False, False]])
    # row 0 has only its target left: 0; row 1 as above
    loss = info_nce(scores, masked, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(0.048587 / 2, abs=1e-5)


def make_batches(corpus: Path, instructions: Path, encoder: Path, **values) -> PairBatches:
    passages = load_passages(corpus / "passages")
    return PairBatches(
        ContrastiveConfig(**values),
        load_questions(instructions / "questions", passages),
        passages,
        AutoTokenizer.from_pretrained(encoder),
        seed=0,
    )


def test_only_training_questions_are_trained_on(corpus: Path, instructions: Path) -> None:
    questions = load_questions(instructions / "questions", load_passages(corpus / "passages"))
    assert len(questions) == 5
    assert all("怎么治疗" in question for question, _ in questions)


def test_batch_masks_other_pairs_of_the_same_passage(
    corpus: Path, instructions: Path, encoder_dir: Path
) -> None:
    batches = make_batches(corpus, instructions, encoder_dir, batch_size=20)
    pairs = batches.pairs(step=0)
    batch = batches.batch(0, 0, 1)
    for i, pair in enumerate(pairs):
        for j, other in enumerate(pairs):
            assert batch["masked"][i, j].item() == (i != j and other.passage in pair.gold)
    assert batch["masked"].any()
    assert batch["target"].tolist() == list(range(20))


def test_two_workers_see_the_same_pairs_and_each_its_targets(
    corpus: Path, instructions: Path, encoder_dir: Path
) -> None:
    batches = make_batches(corpus, instructions, encoder_dir, batch_size=8)
    shares = [batches.batch(5, rank, 2) for rank in range(2)]
    assert [share["target"].tolist() for share in shares] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert all(share["masked"].shape == (4, 8) for share in shares)
    assert batches.pairs(5) == batches.pairs(5) != batches.pairs(6)


def test_loss_is_the_cross_entropy_of_cosines(
    corpus: Path, instructions: Path, encoder_dir: Path
) -> None:
    encoder = AutoModel.from_pretrained(encoder_dir).eval()
    batch = make_batches(corpus, instructions, encoder_dir, batch_size=6).batch(0, 0, 1)
    loss = PairLoss(encoder, temperature=0.1)(**batch)
    with torch.no_grad():
        queries, passages = (
            encoder(**batch[name]).last_hidden_state[:, 0].numpy()
            for name in ("queries", "passages")
        )
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    passages /= np.linalg.norm(passages, axis=1, keepdims=True)
    scores = np.where(batch["masked"].numpy(), -np.inf, queries @ passages.T / 0.1)
    expected = np.mean(np.log(np.exp(scores).sum(axis=1)) - np.diag(scores))
    assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_random_span_is_part_of_the_text() -> None:
    text = "一二三四五六七八九十" * 6
    rng = np.random.default_rng(0)
    for _ in range(50):
        span = random_span(text, rng)
        assert span in text and 6 <= len(span) <= 40
    assert random_span("短", rng) == "短"
