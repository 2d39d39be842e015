"""The protocols fit the real engine: a tiny decoder with random weights, no download."""

import pytest

from medray.evaluation import exam, grounded
from medray.evaluation.language_model import held_out_loss
from medray.evaluation.lexicon import Lexicon
from medray.quality.indicators import load_indicators
from medray.quality.protocols import Greedy
from medray.quality.verdict import judge


@pytest.fixture(scope="module")
def tiny():
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    from medray.generation.chat import CHAT_TEMPLATE, EOS_TOKEN, PAD_TOKEN, SPECIAL_TOKENS
    from medray.generation.engine import HFEngine

    letters = [*SPECIAL_TOKENS, "<unk>", *"ABCD是否未提及“”[]0123456789【】主诉诊断：。肺炎咳嗽\n"]
    words = Tokenizer(models.WordLevel({w: k for k, w in enumerate(letters)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token=PAD_TOKEN, eos_token=EOS_TOKEN,
        additional_special_tokens=SPECIAL_TOKENS, chat_template=CHAT_TEMPLATE, padding_side="left",
    )  # fmt: skip
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(letters), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, intermediate_size=32, max_position_embeddings=512,
    )  # fmt: skip
    return HFEngine.wrap(Qwen3ForCausalLM(config).eval(), tokenizer, batch_size=4)


def test_verdicts(tiny, record) -> None:
    indicator = load_indicators()["af-risk-assessed"]
    document = record(主诉="咳嗽。", 现病史="肺炎。")
    rows = judge(
        [document],
        [indicator],
        tiny,
        lambda *_: [],
        batch_size=2,
        sampling=Greedy(max_new_tokens=4),
    )
    assert [row.task for row in rows] == list(indicator.tasks)
    assert all(row.num_windows == 1 and 0 < row.p_yes < 1 for row in rows)


def test_loss_of_random_weights_is_near_uniform(tiny, record) -> None:
    import math

    loss = held_out_loss(
        [record(主诉="咳嗽。", 诊断="肺炎。")], tiny, lambda d: "【主诉】咳嗽。肺炎。"
    )
    assert loss.tokens == 6
    assert loss.per_token == pytest.approx(math.log(len(tiny.tokenizer)), abs=0.5)


def test_exam_diagnosis_and_grounded(tiny, record) -> None:
    from medray.common.records import ExamQuestion
    from medray.evaluation import diagnosis

    question = ExamQuestion(
        id="1", question="诊断", options={"A": "肺炎", "B": "咳嗽"}, answer="A", split="dev"
    )
    for raw in (True, False):
        assert exam.choose([question], tiny, raw=raw)[0] in "AB"
    items = [diagnosis.Item("1", "【主诉】咳嗽。【诊断】", "肺炎", "")]
    for raw in (True, False):
        result = diagnosis.answer_items(items, tiny, Lexicon(["肺炎"], {}), raw=raw, tokens=4)
        assert len(result.right) == 1
    assert all(f.value is None for f in grounded.figures("sft", [], tiny, 4))
