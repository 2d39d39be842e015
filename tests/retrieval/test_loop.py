import pytest
import torch

from medray.retrieval.training.loop import Stage, learning_rate, seed_of, to_device


def test_learning_rate_warms_up_and_decays_to_zero() -> None:
    stage = Stage("mlm", torch.nn.Identity(), None, 10, 1.0, 2, 0, "encoder.mlm")  # type: ignore[arg-type]
    # 1/2, 2/2, then (10 - step) / 8
    rates = [learning_rate(step, stage) for step in (0, 1, 2, 6, 9)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.125])


def test_seeds_differ_by_every_part() -> None:
    seeds = {seed_of(0, "mlm", 1, 0), seed_of(0, "mlm", 1, 1), seed_of(0, "mlm", 2, 0)}
    assert len(seeds) == 3 and all(0 <= seed < 2**63 for seed in seeds)


def test_to_device_moves_nested_tensors() -> None:
    moved = to_device({"a": {"b": torch.ones(1)}, "c": torch.ones(1)}, torch.device("meta"))
    assert moved["a"]["b"].device.type == moved["c"].device.type == "meta"
