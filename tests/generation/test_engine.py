"""The engine against plain forward passes, one text at a time."""

import shutil
from pathlib import Path

import pytest
import torch

from medray.common.errors import CheckpointError
from medray.generation.directory import check_model_directory
from medray.generation.engine import HFEngine
from medray.generation.sampling import Sampling

PROMPTS = ["咳嗽", "肺炎三天。", "哮喘", "胃痛是否肺炎？", "A", "咳嗽三天是否哮喘？是。"]
GREEDY = Sampling(max_new_tokens=12)


def continue_by_hand(engine: HFEngine, prompt: str, steps: int) -> list[int]:
    """Greedy decoding without cache, batch or padding."""
    tokens, answer = engine.encode(prompt), []
    with torch.no_grad():
        for _ in range(steps):
            answer.append(int(engine.model(torch.tensor([tokens + answer])).logits[0, -1].argmax()))
            if answer[-1] in engine.eos_ids:
                break
    return answer


def test_batches_give_what_single_texts_give(engine: HFEngine) -> None:
    together = engine.generate(PROMPTS, GREEDY)
    assert together == [engine.generate([prompt], GREEDY)[0] for prompt in PROMPTS]
    for prompt, generation in zip(PROMPTS, together, strict=True):
        answer = continue_by_hand(engine, prompt, 12)
        ended = answer[-1] in engine.eos_ids
        assert generation.text == engine.tokenizer.decode(answer, skip_special_tokens=True)
        assert generation.finish_reason == ("stop" if ended else "length")
        assert generation.num_tokens == len(answer) - ended
        assert generation.num_prompt_tokens == len(prompt)


def test_an_answer_ends_at_its_end_token(engine: HFEngine, monkeypatch) -> None:
    first = continue_by_hand(engine, PROMPTS[0], 3)
    monkeypatch.setattr(engine, "eos_ids", {first[1]})
    generation = engine.generate([PROMPTS[0]], GREEDY)[0]
    expected = 0 if first[0] == first[1] else 1
    assert (generation.finish_reason, generation.num_tokens) == ("stop", expected)


def test_every_end_token_of_the_generation_config_ends(model_dir: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(model_dir, directory)
    (directory / "generation_config.json").write_text('{"eos_token_id": [5, 0]}', encoding="utf-8")
    assert HFEngine(directory).eos_ids == {0, 2, 5}


def test_score_is_the_sum_of_log_softmax(engine: HFEngine) -> None:
    options = [["肺炎", "A"], ["是", "否", "哮喘三天"], ["B"]]
    scores = engine.score(PROMPTS[:3], options)
    assert [len(row) for row in scores] == [2, 3, 1]
    for prompt, choices, row in zip(PROMPTS, options, scores, strict=False):
        for option, score in zip(choices, row, strict=True):
            before, after = engine.encode(prompt), engine.encode(option)
            with torch.no_grad():
                logits = engine.model(torch.tensor([before + after])).logits[0].log_softmax(-1)
            expected = sum(
                logits[len(before) + k - 1, token].item() for k, token in enumerate(after)
            )
            assert score == pytest.approx(expected, abs=1e-4)


def test_texts_are_scored_token_by_token(engine: HFEngine) -> None:
    texts = [engine.encode(text) for text in ["咳嗽三天。", "A", "肺炎是否哮喘？", ""]]
    scored = engine.score_texts(texts, num_top=2)
    assert [[token.id for token in row] for row in scored] == texts
    for ids, row in zip(texts[:3], scored, strict=False):
        assert (row[0].logprob, row[0].top) == (None, ())
        with torch.no_grad():
            logprobs = engine.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        for k, token in enumerate(row[1:]):
            assert token.logprob == pytest.approx(logprobs[k, token.id].item(), abs=1e-4)
            best = logprobs[k].topk(2)
            assert [i for i, _ in token.top] == best.indices.tolist()
            assert [p for _, p in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_scores_of_all_single_tokens_sum_to_1(engine: HFEngine) -> None:
    letters = engine.tokenizer.convert_ids_to_tokens(range(len(engine.tokenizer)))
    scores = torch.tensor(engine.score(["咳嗽"], [letters])[0])
    assert scores.exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_chat_is_generate_on_the_template(engine: HFEngine) -> None:
    messages = [{"role": "user", "content": "咳嗽三天"}]
    prompt = "<|im_start|>user\n咳嗽三天<|im_end|>\n<|im_start|>assistant\n"
    assert engine.prompt(messages) == prompt
    assert engine.chat([messages], GREEDY) == engine.generate([prompt], GREEDY)
    assert engine.chat_score([messages], [["是"]]) == engine.score([prompt], [["是"]])
    assert engine.encode("<|im_end|>") == [2]


def test_sampling_repeats_with_its_seed(engine: HFEngine) -> None:
    def sample(seed: int) -> list[str]:
        sampling = Sampling(max_new_tokens=12, temperature=1.0, seed=seed)
        return [generation.text for generation in engine.generate(PROMPTS, sampling)]

    assert sample(1) == sample(1) != sample(2)


def test_nothing_to_do(engine: HFEngine) -> None:
    assert engine.generate([], GREEDY) == []
    assert engine.score([], []) == []
    assert engine.count_tokens("") == 0


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", r"has no config\.json; it is not a Hugging Face directory"),
        ("model.safetensors", r"has no weights \(\*\.safetensors\)"),
        ("tokenizer.json", "has no tokenizer .* copy the tokenizer files of the same model"),
    ],
)
def test_incomplete_directory(model_dir: Path, tmp_path: Path, missing: str, message: str) -> None:
    directory = tmp_path / "model"
    shutil.copytree(model_dir, directory)
    assert check_model_directory(directory) == directory
    (directory / missing).unlink()
    with pytest.raises(CheckpointError, match=message):
        HFEngine(directory)


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model directory at .*none; check the path"):
        check_model_directory(tmp_path / "none")
