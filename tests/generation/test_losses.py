"""Losses against a forward pass by hand; planted rows among those that a trained model reads."""

import random

import pytest
import torch

from medray.common.records import Instruction, Message
from medray.generation.engine import HFEngine
from medray.generation.losses import answer_losses
from medray.instructions.screen.config import ScreenConfig
from medray.instructions.screen.losses import find_outliers


def row(number: int, prompt: str, answer: str) -> Instruction:
    messages = [Message(role="user", content=prompt), Message(role="assistant", content=answer)]
    return Instruction(id=f"r{number}", task="t", messages=messages, split="train")


def test_a_loss_is_the_mean_over_the_answers_tokens(engine: HFEngine) -> None:
    rows = [row(0, "咳嗽", "肺炎"), row(1, "胃痛三天", "A"), row(2, "哮喘", ""),
            row(3, "咳" * 130, "A")]  # fmt: skip
    losses = answer_losses(engine, rows)
    assert losses[2:] == [None, None]  # no answer; longer than the 128 tokens of the model
    for given, loss in zip(rows[:2], losses[:2], strict=True):
        prompt = engine.encode(
            engine.prompt([{"role": "user", "content": given.messages[0].content}])
        )
        answer = engine.encode(given.messages[1].content)
        with torch.no_grad():
            logits = engine.model(torch.tensor([prompt + answer])).logits[0]
        by_hand = torch.nn.functional.cross_entropy(
            logits[len(prompt) - 1 : -1], torch.tensor(answer)
        )
        assert loss == pytest.approx(by_hand.item(), rel=1e-4)


@pytest.fixture
def reference(model_dir) -> HFEngine:
    """A model trained on prompts of any letters, their answers 肺炎, 哮喘 or 胃痛 by chance: ln 3
    for the first character, nothing for the second. Prompts with 。 always have the answer 是否."""
    torch.manual_seed(0)
    engine = HFEngine(model_dir, batch_size=64)
    engine.model.train()
    optimiser = torch.optim.AdamW(engine.model.parameters(), lr=3e-3)
    rng = random.Random(0)
    for _ in range(120):
        rows = [clean(rng, k) if k % 4 else row(k, letters(rng) + "。", "是否") for k in range(32)]
        texts = [engine.prompt([{"role": "user", "content": r.messages[0].content}]) for r in rows]
        tokens = torch.tensor(
            [engine.encode(t + r.messages[1].content) for t, r in zip(texts, rows, strict=True)]
        )
        logits = engine.model(tokens[:, :-1]).logits[:, -2:]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, -2:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    engine.model.eval()
    return engine


def letters(rng: random.Random) -> str:
    return "".join(rng.choices("ABCD", k=5))


def clean(rng: random.Random, number: int) -> Instruction:
    return row(number, letters(rng) + "三", rng.choice(["肺炎", "哮喘", "胃痛"]))


def test_planted_rows_lie_outside(reference: HFEngine) -> None:
    rng = random.Random(1)
    rows = [clean(rng, k) for k in range(200)]
    known_by_heart = [row(k, letters(rng) + "。", "是否") for k in range(200, 204)]
    mismatched = [row(k, letters(rng) + "三", "天天") for k in range(204, 208)]
    rows += known_by_heart + mismatched
    flags = find_outliers(rows, answer_losses(reference, rows), ScreenConfig())
    found = {flag.id: flag.reason for flag in flags}
    assert {r.id for r in known_by_heart} == {i for i, why in found.items() if why == "loss_low"}
    assert {r.id for r in mismatched} <= {i for i, why in found.items() if why == "loss_high"}
    assert len(found) <= 8 + 4  # of 200 clean rows at most 2 in 100
