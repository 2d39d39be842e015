"""Packed blocks, chats, losses, the copying start, adapters: against independent computations."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from medray.common.errors import ConfigError, DataError
from medray.common.records import Instruction, Message
from medray.corpus.blocks import write_blocks
from medray.generation.chat import EOS_TOKEN
from medray.training.chats import Packer, tokenise_chats, tokenise_rows
from medray.training.export import merge_adapters, model_card
from medray.training.language_model import (
    DecoderConfig,
    LanguageModelLoss,
    LoraConfig,
    add_lora,
    build_decoder,
    load_tokenizer,
)
from medray.training.packed import IGNORE, PackedBlocks, Tokens

# Four sequences, the loss on all tokens of the first two and on the tail of the others.
SEQUENCES = [
    Tokens([5, 6, 7, 8, 9], [True] * 5),
    Tokens([10, 11, 12], [True] * 3),
    Tokens([20, 21, 22, 23, 24, 25], [False] * 3 + [True] * 3),
    Tokens([30], [True]),
]
LAMA = (
    "{{ '<s>' }}{% for m in messages %}{% if m.role == 'user' %}[问] {{ m.content }} [/问]"
    "{% else %} {{ m.content }}<|im_end|>\n\n{% endif %}{% endfor %}"
)


def test_labels_never_cross_segments_and_weight_counts_them() -> None:
    blocks = PackedBlocks.pack(SEQUENCES, 8, pad=0)
    assert len(blocks) == 2
    # Best fit: the 6 and then the 1 in one block, the 5 and the 3 in the other.
    assert blocks.tokens_NT.tolist() == [
        [20, 21, 22, 23, 24, 25, 30, 0],
        [5, 6, 7, 8, 9, 10, 11, 12],
    ]
    batch = blocks.collate([0, 1])
    x = IGNORE
    assert batch["labels"].tolist() == [[x, x, 23, 24, 25, x, x, x], [6, 7, 8, 9, x, 11, 12, x]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 0, 0], [0, 1, 2, 3, 4, 0, 1, 2]]
    assert [blocks.weight([0]), blocks.weight([1]), blocks.weight([0, 1])] == [3, 6, 9]
    assert batch["attention_mask"].shape == (2, 1, 8, 8)
    for row, segments in zip(batch["attention_mask"][:, 0], blocks.segments_NT, strict=True):
        for m in range(8):
            for n in range(8):
                same = segments[m] == segments[n] and segments[m] != 0
                assert bool(row[m, n]) == ((same and n <= m) or n == m), (m, n)


def test_joined_blocks_keep_their_own_loss() -> None:
    chats = PackedBlocks.pack(SEQUENCES, 8, pad=0)
    both = chats.join(chats.whole())
    # Whole, the first block has 5 labels; a sequence of one token has none.
    assert [both.weight([i]) for i in range(len(both))] == [3, 6, 5, 6]


def test_an_answer_s_tokens_may_weigh_more(model: Any) -> None:
    chats = PackedBlocks.pack(SEQUENCES, 8, pad=0)
    heavy = chats.whole(3.0)
    # The first block has 3 labels in answers and 2 outside of them, the second 6 and none.
    assert [heavy.weight([0]), heavy.weight([1])] == [3 * 3 + 2, 3 * 6]
    assert [heavy.num_labels([0]), heavy.num_labels([1])] == [5, 6]
    loss = LanguageModelLoss(model)
    with torch.no_grad():
        answers, every, weighted = (
            loss(**blocks.collate([0])).item() for blocks in (chats, chats.whole(), heavy)
        )
    assert weighted == pytest.approx(every + 2 * answers, abs=1e-4)
    # As shares of an example's loss they keep their proportions; questions weigh a quarter.
    halves = [each._replace(weights=np.asarray(each.weights) / 2) for each in SEQUENCES]
    light = PackedBlocks.pack(halves, 8, pad=0).whole(prompt_weight=0.25)
    assert [light.weight([0]), light.weight([1])] == [3 / 2 + 2 / 4, 6 / 2]


def test_packed_loss_is_the_sum_of_unpacked_losses(model: Any) -> None:
    blocks = PackedBlocks.pack(SEQUENCES, 8, pad=0)
    loss = LanguageModelLoss(model)
    alone = [PackedBlocks.pack([sequence], len(sequence.ids), pad=0) for sequence in SEQUENCES]
    with torch.no_grad():
        packed = loss(**blocks.collate([0, 1])).item()
        unpacked = sum(loss(**one.collate([0])).item() for one in alone)
    assert packed == pytest.approx(unpacked, abs=1e-4)


def test_loss_is_transformers_own(model: Any) -> None:
    tokens_BT = torch.arange(3, 27).reshape(2, 12)
    blocks = PackedBlocks.pack([Tokens(row, [True] * 12) for row in tokens_BT.tolist()], 12, pad=0)
    with torch.no_grad():
        ours = LanguageModelLoss(model)(**blocks.collate([0, 1])).item()
        theirs = model(input_ids=tokens_BT, labels=tokens_BT).loss.item()
    assert ours / blocks.weight([0, 1]) == pytest.approx(theirs, abs=1e-5)


QUESTIONS = {"质控：是否肺炎？": "是", "质控：哮喘？": "未提及", "质控：是否肺": "否"}


def questions(shared: str) -> Instruction:
    """A row of three questions on one text."""
    messages = []
    for question, answer in QUESTIONS.items():
        content = question if messages else shared + question
        messages += [Message(role="user", content=content)]
        messages += [Message(role="assistant", content=answer)]
    return Instruction(id="i", task="t", messages=messages, split="train", shared_chars=len(shared))


def asked_alone(shared: str) -> list[Instruction]:
    """The same questions, each in a row of its own."""
    return [
        Instruction(
            id="i", task="t", split="train",
            messages=[Message(role="user", content=shared + question),
                      Message(role="assistant", content=answer)],
        )
        for question, answer in QUESTIONS.items()
    ]  # fmt: skip


def test_questions_on_one_text_are_learnt_as_if_each_were_asked_alone(
    model: Any, tokenizer: Any
) -> None:
    shared = "病历：肺炎患者，呼吸不适3天。\n"
    (joined,) = tokenise_rows([questions(shared)], tokenizer)
    alone = tokenise_chats([row.messages for row in asked_alone(shared)], tokenizer)
    branches = np.asarray(joined.branches)
    shared_ids = np.asarray(joined.ids)[branches == 0]
    assert tokenizer.decode(shared_ids).endswith("3天。\n质控：")
    for number, chat in enumerate(alone, 1):
        own = np.concatenate([shared_ids, np.asarray(joined.ids)[branches == number]])
        assert own.tolist() == list(chat.ids)
    assert len(joined.ids) == sum(len(c.ids) for c in alone) - 2 * len(shared_ids)

    # Beside another sequence, so that positions and segments do not start at the block's.
    other = Tokens([5, 6, 7, 8, 9] * 20, [True] * 100)
    blocks = PackedBlocks.pack([joined, other], 256, pad=0)
    loss = LanguageModelLoss(model)
    with torch.no_grad():
        packed = loss(**blocks.collate([0])).item()
        singles = [PackedBlocks.pack([chat], 128, pad=0) for chat in (*alone, other)]
        unpacked = sum(loss(**one.collate([0])).item() for one in singles)
    assert len(blocks) == 1
    assert blocks.weight([0]) == sum(one.weight([0]) for one in singles)
    assert packed == pytest.approx(unpacked, rel=1e-5)


def test_a_branch_sees_what_is_shared_and_itself(model: Any) -> None:
    tokens = Tokens([3, 4, 5, 6, 7, 8, 9], [True] * 7, np.array([0, 0, 1, 1, 2, 2, 2], np.int32))
    blocks = PackedBlocks.pack([tokens], 8, pad=0)
    batch = blocks.collate([0])
    x = IGNORE
    assert batch["labels"].tolist() == [[4, 5, 6, x, 8, 9, x, x]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2, 3, 4, 0]]
    assert batch["attention_mask"][0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 1],
    ]
    (twice,) = (blocks.join(blocks.whole()),)
    assert twice.collate([1])["labels"].tolist() == batch["labels"].tolist()


def test_a_block_without_loss_gives_0(model: Any) -> None:
    blocks = PackedBlocks.pack([Tokens([5, 6, 7], [False] * 3)], 4, pad=0)
    loss = LanguageModelLoss(model)(**blocks.collate([0]))
    assert loss.item() == 0 == blocks.weight([0])
    loss.backward()


CHATS = {
    "one turn": [("user", "是什么病？"), ("assistant", "肺炎。")],
    "two turns": [
        ("system", "你是医生。"), ("user", "咳嗽"), ("assistant", "多久了？"),
        ("user", "三天"), ("assistant", "肺炎。\n休息。"),
    ],
    "ends with a question": [("user", "一"), ("assistant", "二"), ("user", "三")],
    "empty answer": [("user", "一"), ("assistant", "")],
}  # fmt: skip


@pytest.mark.parametrize("template", [None, LAMA], ids=["ChatML", "another"])
@pytest.mark.parametrize("turns", CHATS.values(), ids=CHATS.keys())
def test_answers_are_exactly_the_assistants_words(
    tokenizer: Any, turns: list[tuple[Any, str]], template: str | None
) -> None:
    if template is not None:
        if turns[0][0] == "system":
            turns = turns[1:]
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = template
    messages = [Message(role=role, content=content) for role, content in turns]
    ((tokens, answers, _),) = tokenise_chats([messages], tokenizer)
    assert len(tokens) == len(answers)
    runs: list[list[int]] = []
    for k, is_answer in enumerate(answers):
        if is_answer:
            if k == 0 or not answers[k - 1]:
                runs.append([])
            runs[-1].append(tokens[k])
    said = [content for role, content in turns if role == "assistant"]
    decoded = [tokenizer.decode(run) for run in runs]
    space = "" if template is None else " "  # that template puts a blank before an answer
    assert decoded == [f"{space}{content}{EOS_TOKEN}" for content in said]
    # The whole, up to the last answer, is what the template renders.
    last = max(k for k, (role, _) in enumerate(turns) if role == "assistant")
    chat = [message.model_dump() for message in messages[: last + 1]]
    assert tokenizer.decode(tokens) == tokenizer.apply_chat_template(chat, tokenize=False).rstrip()


def test_a_chat_without_an_answer_gives_nothing_to_learn(tokenizer: Any) -> None:
    ((tokens, answers, _),) = tokenise_chats([[Message(role="user", content="一")]], tokenizer)
    assert len(tokens) == len(answers) == 0
    assert answers.dtype == bool


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{{ messages | length }}{{ messages[-1].content }}"
    messages = [Message(role="user", content="一"), Message(role="assistant", content="二")]
    with pytest.raises(DataError, match="this chat template rewrites earlier turns"):
        tokenise_chats([messages], tokenizer)


def test_a_base_model_s_tokenizer_gets_a_plain_template(
    model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = AutoTokenizer.from_pretrained(model_dir)
    bare.chat_template = None
    bare.save_pretrained(tmp_path)
    tokenizer: Any = load_tokenizer(DecoderConfig(), tmp_path)
    assert "has no chat template" in caplog.text
    chat = [
        Message(role="user", content="什么病"), Message(role="assistant", content="肺炎"),
        Message(role="user", content="怎么治"), Message(role="assistant", content="休息"),
    ]  # fmt: skip
    (tokens,) = tokenise_chats([chat], tokenizer)
    end = tokenizer.eos_token
    assert tokenizer.decode(tokens.ids) == f"问：什么病\n答：肺炎{end}\n问：怎么治\n答：休息{end}"
    learnt = [i for i, weight in zip(tokens.ids, tokens.weights, strict=True) if weight]
    assert tokenizer.decode(learnt) == f"肺炎{end}休息{end}"


def test_long_examples_are_left_out(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    def chat(answer: str) -> Instruction:
        messages = [Message(role="user", content="一"), Message(role="assistant", content=answer)]
        return Instruction(id="i", task="t", messages=messages, split="train")

    with caplog.at_level("INFO"):
        blocks = Packer(tokenizer, 48).pack([chat("肺"), chat("肺" * 99)], "train")
    assert len(blocks) == 1
    assert "'too_long': 1" in caplog.text
    with pytest.raises(DataError, match="no train instruction fits into 48 tokens"):
        Packer(tokenizer, 48).pack([chat("肺" * 99)], "train")


def test_examples_of_any_length_may_weigh_alike(model: Any, tokenizer: Any) -> None:
    """Against the mean over examples of the mean over their answer tokens [ClinicalGPT 2.2]."""

    def chat(answer: str) -> Instruction:
        messages = [Message(role="user", content="一"), Message(role="assistant", content=answer)]
        return Instruction(id="i", task="t", messages=messages, split="train")

    rows = [chat("肺炎。"), chat("房颤患者，循环不适3天。"), questions("病历：肺炎。\n")]
    loss = LanguageModelLoss(model)
    with torch.no_grad():
        blocks = Packer(tokenizer, 128, "example").pack(rows, "train")
        whole = sum(loss(**blocks.collate([i])).item() for i in range(len(blocks)))
        means = []
        for row in [*rows[:2], *asked_alone("病历：肺炎。\n")]:
            one = Packer(tokenizer, 128).pack([row], "one")
            means.append(loss(**one.collate([0])).item() / one.weight([0]))
    # Two chats, and three questions on one text.
    assert blocks.weight(range(len(blocks))) == pytest.approx(5)
    assert whole == pytest.approx(sum(means), abs=1e-4)


def test_held_out_examples_are_packed_by_task(tokenizer: Any) -> None:
    def chat(task: str, answer: str) -> Instruction:
        messages = [Message(role="user", content="一"), Message(role="assistant", content=answer)]
        return Instruction(id="i", task=task, messages=messages, split="dev")

    packer = Packer(tokenizer, 48)
    rows = [chat("b", "肺"), chat("a", "肺炎"), chat("b", "肺炎"), chat("long", "肺" * 99)]
    blocks = packer.pack_by_task(rows, "held-out")
    assert list(blocks) == ["a", "b"]
    both = packer.pack([row for row in rows if row.task == "b"], "b")
    assert (blocks["b"].tokens_NT == both.tokens_NT).all()
    with pytest.raises(DataError, match="no held-out instruction fits into 48 tokens"):
        packer.pack_by_task(rows[3:], "held-out")


def test_blocks_of_each_source_are_read_apart(tmp_path) -> None:
    documents = [np.array(ids, np.int32) for ids in ([5, 6, 7], [8, 9], [10, 11, 12, 13, 14])]
    write_blocks(tmp_path, "heldout", documents, 4, pad=0, groups=["emr", "papers", "emr"])
    groups = PackedBlocks.open_groups(tmp_path, "heldout")
    assert list(groups) == ["emr", "papers"]
    # The first and the third document, the latter in pieces of 4 and 1; then the second.
    assert groups["emr"].tokens_NT.tolist() == [[10, 11, 12, 13], [5, 6, 7, 14]]
    assert groups["papers"].tokens_NT.tolist() == [[8, 9, 0, 0]]
    assert groups["papers"].segments_NT.tolist() == [[1, 1, 0, 0]]
    write_blocks(tmp_path, "train", documents, 4, pad=0)
    assert list(PackedBlocks.open_groups(tmp_path, "train")) == ["train"]


def test_the_start_attends_to_the_token_before_and_copies(decoder, tokenizer) -> None:
    # Words without meaning, as in the text below: their vectors point anywhere.
    noise_NT = torch.randint(3, len(tokenizer), (200, 64)).numpy().astype("int32")
    noise = PackedBlocks(noise_NT, noise_NT * 0 + 1, np.ones(noise_NT.shape, np.float32))
    wide = decoder.model_copy(update={"hidden_size": 128, "head_dim": 64, "intermediate_size": 128})
    model = build_decoder(wide, tokenizer, noise, seed=0)
    model.set_attn_implementation("eager")
    model.eval()
    generator = torch.Generator().manual_seed(0)
    half_BT = torch.randint(3, len(tokenizer), (8, 24), generator=generator)
    twice_BT = torch.cat([half_BT, half_BT], 1)
    with torch.no_grad():
        output = model(twice_BT, output_attentions=True)
    attention_BMN = output.attentions[0][:, 0]
    to_previous = attention_BMN.diagonal(offset=-1, dim1=1, dim2=2)
    assert to_previous[:, 1:].min() > 0.9
    # In the second half every token has stood before: its successor is known. Without training
    # the circuit's vote is small (the tied embedding says the present token again), but the
    # successor's rank among 300 tokens is far from chance, whose median is 150.
    right_BT1 = twice_BT[:, 1:, None]
    logits_BTV = output.logits[:, :-1]
    rank_BT = (logits_BTV > logits_BTV.gather(-1, right_BT1)).sum(-1).float()
    assert rank_BT[:, 24:].median() < 50 < 100 < rank_BT[:, :23].median()


def test_the_same_seed_builds_the_same_decoder(decoder, tokenizer, text_blocks) -> None:
    built = (build_decoder(decoder, tokenizer, text_blocks, seed) for seed in (0, 0, 1))
    one, two, other = (model.state_dict() for model in built)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_merging_gives_the_adapters_logits_and_leaves_the_model(model: Any) -> None:
    tokens = torch.arange(3, 13)[None]
    with torch.no_grad():
        base = model(tokens).logits
    lora = add_lora(model, LoraConfig(rank=4, alpha=8), seed=0).eval()
    for name, parameter in lora.named_parameters():
        if "lora_B" in name:  # zero at the start
            torch.nn.init.normal_(parameter, std=0.1)
    before = {name: tensor.clone() for name, tensor in lora.state_dict().items()}
    with torch.no_grad():
        adapted = lora(tokens).logits
        with lora.disable_adapter():
            assert torch.equal(lora(tokens).logits, base)
        merged = merge_adapters(lora)
        assert (adapted - base).abs().max() > 1e-2
        torch.testing.assert_close(merged(tokens).logits, adapted, atol=1e-4, rtol=1e-4)
        assert torch.equal(lora(tokens).logits, adapted)
    assert all(torch.equal(tensor, before[name]) for name, tensor in lora.state_dict().items())
    assert not any("lora" in name for name in merged.state_dict())


def test_dora_starts_as_the_base_and_merges(model: Any) -> None:
    tokens = torch.arange(3, 13)[None]
    with pytest.raises(ConfigError, match=r"cannot adapt model\.layers\.0\.self_attn\.q_proj"):
        add_lora(copy.deepcopy(model), LoraConfig(dora=True), seed=0)  # made with rows of zeros
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        plain = model(tokens).logits
        dora = add_lora(model, LoraConfig(rank=4, alpha=8, dora=True), seed=0).eval()
        torch.testing.assert_close(dora(tokens).logits, plain, atol=1e-5, rtol=1e-5)
        for name, parameter in dora.named_parameters():
            if "lora_B" in name or "magnitude" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
        adapted = dora(tokens).logits
        assert (adapted - plain).abs().max() > 1e-2
        with dora.disable_adapter():
            assert torch.equal(dora(tokens).logits, plain)
        torch.testing.assert_close(merge_adapters(dora)(tokens).logits, adapted, atol=1e-4, rtol=0)


def test_a_model_without_adapters_is_merged_already(model: Any) -> None:
    assert merge_adapters(model) is model


def test_new_adapters_change_nothing(model: Any, model_dir) -> None:
    tokens = torch.arange(3, 13)[None]
    lora = add_lora(model, LoraConfig(), seed=0).eval()
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(model_dir).eval()(tokens).logits
        assert torch.equal(lora(tokens).logits, plain)
    trainable = [name for name, p in lora.named_parameters() if p.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)


def test_model_card_warns() -> None:
    assert model_card({"title": "T", "base": "b"}) == (
        "# T\n\n- base: b\n\nMade by medray. Not for clinical use without validation.\n"
    )
