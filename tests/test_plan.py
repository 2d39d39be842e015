"""The plan of a profile: its lines by hand for a small decoder, and what does not fit."""

import json
from pathlib import Path

import pytest

from medray.common.errors import CheckpointError
from medray.doctor import check_plan
from medray.launch import load_profile
from medray.plan import Line, mend, stages_of, training_plan
from medray.training.activations import activation_bytes
from medray.training.estimate import GIB
from medray.training.shapes import shape_of

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 50_000,
    "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4,
    "num_attention_heads": 8, "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip
NUM = 2 * 50_000 * 512 + 4 * (4 * 512**2 + 3 * 512 * 1024 + 2 * 512) + 512  # 61.7 M


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """Overrides that plan for a small decoder, from its config.json alone."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    return [f"decoder.path={tmp_path}"]


def plan(overrides: list[str], gpu: str = "a100", profile: str = "a100x8") -> dict[str, Line]:
    return {line.name: line for line in training_plan(load_profile(profile, overrides), gpu)}


def test_the_lines_by_hand(small: list[str]) -> None:
    work = ["pretrain.total_steps=1000", "plan.gpu_hour_price=2", "plan.mfu=0.5"]
    profile = load_profile("a100x8", [*small, *work])
    lines = plan([*small, *work])
    assert list(lines) == [
        "pretrain", "pretrain time", "sft", "sft time", "reward", "reward time", "ppo", "ppo time",
        "in all",
    ]  # fmt: skip
    shape = shape_of(profile.decoder.path)
    # bf16, ZeRO-2 on 8: 2 bytes, 2/8, 12/8; buckets of 200 M; 8 bytes a logit beside activations.
    kept = activation_bytes(shape, None, profile.pretrain, 4096) + 8 * 50_000 * 4096
    parts = [2 * NUM, NUM / 4, 1.5 * NUM, kept, 4e8]
    weights, gradients, optimiser, activations, buckets = (f"{x / GIB:.1f}" for x in parts)
    assert lines["pretrain"].text == (
        f"0.06 B parameters, 61.7 M trained; {sum(parts) / GIB:.0f} of 80 GiB a GPU (weights "
        f"{weights}, gradients {gradients}, optimiser {optimiser}, activations {activations}, "
        f"buckets {buckets})"
    )
    # 128 blocks of 4 096; 6 FLOP a weight but the embeddings', 12·4·512·4096 for attention.
    flops = 524_288 * (6 * (NUM - 50_000 * 512) + 12 * 4 * 512 * 4096)
    seconds = flops / (8 * 312e12 * 0.5)  # 0.13
    hours = 1000 * seconds * 8 / 3600
    assert lines["pretrain time"].text == (
        f"524,288 tokens a step in {seconds:.3g} s, {524_288 / seconds:,.0f} tokens/s; "
        f"1,000 steps in 3 minutes, {hours:,.1f} GPU-hours, cost {2 * hours:,.0f}"
    )
    # 8 answers a GPU, 1 024 tokens, 4 layers of 512 keys and 512 values, 2 bytes each.
    cache = 8 * 1024 * 4 * 1024 * 2 / GIB
    assert f"to roll out, keys and values {cache:.1f} and merged weights" in lines["ppo"].text
    assert "65,536 tokens a round" in lines["ppo time"].text  # 64 answers
    assert lines["in all"].text.endswith("at MFU 0.5 of 8 × a100")
    assert "cost" not in " ".join(line.text for line in plan(small).values())


def test_days_that_are_asked_for(small: list[str]) -> None:
    only = ["sft.total_steps=1", "reward.total_steps=0", "ppo.total_steps=0"]
    whole = plan([*small, *only, "pretrain.total_steps=1000000"])
    rate = float(whole["pretrain time"].text.split(" s, ")[1].split(" ")[0].replace(",", ""))
    # A million steps of 524 288 tokens in two days, of 86 400 seconds each.
    needed = 1e6 * 524_288 / (2 * 86_400)
    slow = plan([*small, *only, "pretrain.total_steps=1000000", "plan.days=2"])
    said = slow["pretrain time"].text.split("(")[1].split(" needed")[0].replace(",", "")
    assert float(said) == pytest.approx(needed, rel=1e-4)
    assert not slow["in all"].fits or needed <= rate
    ratio = needed / rate
    assert f"2 days ask for {ratio:.2f} of that speed" in slow["in all"].text
    fast = plan([*small, *only, "pretrain.total_steps=1000000", "plan.days=0.5"])["in all"]
    assert not fast.fits
    assert f"take {-(-8 * 4 * ratio // 1):.0f} GPUs as fast as these" in fast.mend


def test_steps_that_are_not_known(small: list[str]) -> None:
    curriculum = "sft.curriculum={stages: [{tasks: {'*': 1}, epochs: 3}]}"
    lines = plan([*small, "sft.total_steps=0", curriculum, "pretrain.total_steps=0"])
    assert "steps in" not in lines["sft time"].text + lines["pretrain time"].text
    assert "without sft, whose steps follow from its curriculum" in lines["in all"].text


@pytest.mark.parametrize("profile", ["a100x8", "a100x8_clinicalgpt"])
def test_the_published_settings_fit_the_gpus_they_were_published_for(profile: str) -> None:
    lines = plan([], profile=profile)
    assert all(line.fits for line in lines.values()), lines
    name, billions = ("ppo", "7.5") if profile == "a100x8" else ("reward", "7.08")
    assert lines[name].text.startswith(billions)


def test_what_does_not_fit_is_said_with_what_to_change() -> None:
    heavy = load_profile("a100x8", ["pretrain.micro_batch_size=8"])
    line = next(training_plan(heavy, "a100"))
    assert (line.name, line.fits) == ("pretrain", False)
    # Halved until it fits: to the two or one of the profile, and no more is changed.
    assert line.mend.startswith("set pretrain.micro_batch_size=") and "zero" not in line.mend
    setting = line.mend.split()[1].removesuffix(",")
    assert next(training_plan(load_profile("a100x8", [setting]), "a100")).fits
    check = next(check_plan("a100x8", ["pretrain.micro_batch_size=8"], "a100"))
    assert (check.name, check.status, check.mend) == ("plan pretrain", "warn", line.mend)


def test_no_setting_may_be_enough() -> None:
    stage = next(stages_of(load_profile("a100x8", [])))
    assert mend(stage, 1 * GIB, 8).startswith("no setting makes it fit")
    # Without optimiser states on the GPU and with a shard of the weights it is some 10 GiB.
    assert "zero_stage=3 pretrain.offload=cpu" in mend(stage, 20 * GIB, 8)


def test_directories_that_tell_no_shape(tmp_path: Path) -> None:
    for path, message in (("/nowhere", "no model directory at /nowhere"),
                          (str(tmp_path), f"{tmp_path} has no config.json")):  # fmt: skip
        with pytest.raises(CheckpointError, match=message):
            plan([f"decoder.path={path}"])
        (check,) = check_plan("a100x8", [f"decoder.path={path}"], "a100")
        assert check.status == "fail" and message in check.mend
    (line,) = plan(['decoder.path=""']).values()
    assert line.fits and "decoder.path is empty" in line.text
