"""The likelihood head against NumPy, on disk, and on what it is not meant for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from medray.common.errors import CheckpointError, ConfigError
from medray.retrieval.training.tokenizer import train_tokenizer
from medray.training.language_model import LoraConfig
from medray.training.quantise import quantise
from medray.training.reward.config import RewardConfig
from medray.training.reward.likelihood import FLOOR, HEAD
from medray.training.reward.model import RewardModel, encode
from medray.training.reward.scorer import load_scorer

PAIRS = [("呼吸不适", "是肺炎。"), ("咳", "好"), ("胃痛三天", "")]


def config(**settings: Any) -> RewardConfig:
    return RewardConfig(head="likelihood", **{"max_tokens": 40, **settings})


def perturb(scorer: Any) -> Any:
    """Heads, and adapters if there are any, that are not zero."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in scorer.named_parameters():
            if parameter.requires_grad and ("lora" in name or "decoder" not in name):
                parameter.normal_(0, 0.2)
    return scorer.eval()


def score(scorer: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> list[float]:
    scenarios, responses = zip(*pairs, strict=True)
    inputs = encode(tokenizer, scenarios, responses, 40, answers=True)
    with torch.no_grad():
        return scorer(**inputs).logits[:, 0].tolist()


def by_hand(decoder: Any, heads: dict[str, np.ndarray], ids: list[int], num_answer: int) -> float:
    """The formula, one sequence, token by token."""
    with torch.no_grad():
        out = decoder(input_ids=torch.tensor([ids]), output_hidden_states=True)
    states, logits = (x[0].double().numpy() for x in (out.hidden_states[-1], out.logits))
    total = 0.0
    for t in range(len(ids) - num_answer, len(ids)):
        row = logits[t - 1]
        log_p = row[ids[t]] - row.max() - np.log(np.exp(row - row.max()).sum())
        gate = heads["weight.weight"][0] @ states[t] + heads["weight.bias"][0]
        total += gate * max(log_p, FLOOR)
    state = heads["state.weight"][0] @ states[-1]
    return float(heads["constant"] + state + total / num_answer)


@pytest.mark.parametrize("sharpness", [1.0, 60.0])  # 60: some tokens lie below the floor
def test_the_formula(model_dir: Path, sharpness: float) -> None:
    scorer, tokenizer = load_scorer(model_dir, config(), 0.3)
    perturb(scorer)
    with torch.no_grad():
        scorer.decoder.get_output_embeddings().weight.mul_(sharpness)
    heads = {name: value.double().numpy() for name, value in scorer.heads().items()}
    expected = []
    for scenario, response in PAIRS:
        (ids,) = encode(tokenizer, [scenario], [response], 40)["input_ids"].tolist()
        answer = tokenizer(f"{response}<|im_end|>", add_special_tokens=False)["input_ids"]
        assert ids[-len(answer) :] == answer
        expected.append(by_hand(scorer.decoder, heads, ids, len(answer)))
    assert score(scorer, tokenizer, PAIRS) == pytest.approx(expected, abs=1e-4)
    assert len({round(value, 3) for value in expected}) == 3


def test_it_starts_as_the_mean_of_the_scores(model_dir: Path) -> None:
    scorer, tokenizer = load_scorer(model_dir, config(), 0.4)
    assert score(scorer, tokenizer, PAIRS) == pytest.approx([0.4] * 3)


def test_which_tokens_are_the_answer(model_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    scenarios, responses = ["咳" * 99, "咳", "咳"], ["是肺炎。", "好", "咳" * 99]
    inputs = encode(tokenizer, scenarios, responses, 40, answers=True)
    assert inputs["answer_mask"].shape == inputs["input_ids"].shape == (3, 40)
    found = [
        tokenizer.decode(ids[mask])
        for ids, mask in zip(inputs["input_ids"], inputs["answer_mask"], strict=True)
    ]
    assert found[:2] == ["是肺炎。<|im_end|>", "好<|im_end|>"]
    assert found[2].endswith("咳<|im_end|>") and inputs["answer_mask"][2].all()
    assert "answer_mask" not in encode(tokenizer, ["咳"], ["好"], 40)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=4)])
def test_on_disk_it_is_a_decoder_with_a_head_beside(
    model_dir: Path, tmp_path: Path, lora: LoraConfig | None
) -> None:
    scorer, tokenizer = load_scorer(model_dir, config(lora=lora), 0.3)
    assert ("lora_A" in str(scorer.state_dict().keys())) == (lora is not None)
    scorer = perturb(scorer)
    scorer.save_pretrained(tmp_path / "r")
    tokenizer.save_pretrained(tmp_path / "r")
    again = RewardModel(tmp_path / "r", batch_size=2)
    assert again.max_tokens == 40
    scenarios, responses = zip(*PAIRS, strict=True)
    found = again.score(scenarios, responses)
    assert found == pytest.approx(score(scorer, tokenizer, PAIRS), abs=1e-5)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "r").generation_config
    assert (tmp_path / "r" / HEAD).stat().st_size < 2000
    save_file({"state.weight": torch.zeros(1, 32)}, tmp_path / "r" / HEAD)
    with pytest.raises(CheckpointError, match="is not the head of a reward model; copy it again"):
        RewardModel(tmp_path / "r")
    # As a language model's the head would be lost.
    with pytest.raises(CheckpointError, match="is a reward model with a likelihood head"):
        quantise(tmp_path / "r", tmp_path / "q", 8)


def test_only_decoders_have_likelihoods(tmp_path: Path, model_dir: Path) -> None:
    train_tokenizer(["咳嗽发热"], 200, 32, tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((model_dir / name).read_bytes())
    with pytest.raises(ConfigError, match=r"head likelihood needs a decoder.*set reward\.base to"):
        load_scorer(tmp_path, config())
    with pytest.raises(ConfigError, match=r"reward\.max_tokens gives sequences of 129 tokens"):
        load_scorer(model_dir, config(max_tokens=129))


def test_its_base_is_the_fine_tuned_model() -> None:
    assert config().parent == config(objective="ranking").parent == "sft"
    assert RewardConfig().parent == "encoder"
