"""A tiny policy that knows a few prompts by heart, a tiny encoder with random weights, and an index
of 20 passages."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medray.common.records import Passage
from medray.generation.chat import CHAT_TEMPLATE, SPECIAL_TOKENS
from medray.generation.prompts import Numbered, grounded_prompt
from medray.generation.sampling import Chat
from medray.serving.consult import words

TOP_K = 3
DISEASES = ["肺炎", "哮喘", "胃炎", "肝炎", "肾炎", "癫痫", "贫血", "心衰", "房颤", "脑炎"]
PASSAGES = [
    Passage(
        passage_id=f"doc{k}:{section}", doc_id=f"doc{k}", start=10, end=10 + len(text),
        section=section, title=f"{disease} {section}", text=text, kind="guideline",
        date="2024-01-01", source="手册",
    )
    for k, disease in enumerate(DISEASES)
    for section, text in (
        ("治疗", f"{disease}首选药物{k}号，每日{k + 1}次。"),
        ("诊断", f"{disease}以检查{k}号确诊，复查{k + 2}周。"),
    )
]  # fmt: skip
QUESTIONS = {name: f"{disease}如何治疗？" for name, disease in
             [("true", "肺炎"), ("false", "心衰"), ("none", "癫痫")]}  # fmt: skip
LONG_QUESTION = "请一直数下去。"
COMPLAINT = "45岁，男\n咳嗽三天"
EXCHANGES = [("有没有发热？", "没有发热"), ("有没有胸闷？", "有一点")]
"""What the policy asks in a consultation, and what it is answered; then it knows enough."""
FINDING = "考虑肺炎。"
"""After which the sources are asked the `true` question."""


class Hospital(NamedTuple):
    """The storage root, and what the policy was taught to say."""

    root: Path
    encoder: Path
    cited: Numbered
    """The passage that the answer to the `true` question cites."""
    answers: dict[str, str]
    questions: dict[str, str] = QUESTIONS
    exchanges: list[tuple[str, str]] = EXCHANGES
    finding: str = FINDING
    long_question: str = LONG_QUESTION


def build_encoder(target: Path) -> Path:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    characters = sorted({c for p in PASSAGES for c in p.title + p.text} | set("如何治疗？"))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    target.mkdir(parents=True)
    tokenizer = BertTokenizerFast(vocab={token: k for k, token in enumerate(vocabulary)})
    tokenizer.save_pretrained(target)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=130,
        # At the usual 0.02 all texts have one vector up to rounding, and which passages are found
        # depends on the processor.
        initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(target)
    return target


def build_index(target: Path, encoder: Path) -> dict[str, tuple[str, list[Numbered]]]:
    """Writes the index; returns the grounded prompt and its passages for each question."""
    from medray.retrieval.directory import ROUTER
    from medray.retrieval.embed import Embedder
    from medray.retrieval.passage_vectors import EmbedPassages
    from medray.retrieval.routing import Router
    from medray.retrieval.search import open_index

    (target / "passages").mkdir(parents=True)
    rows = pa.Table.from_pylist([p.model_dump() for p in PASSAGES])
    table = EmbedPassages(str(encoder), 8, 64, "cpu")(rows)
    pq.write_table(table, target / "passages" / "part-00000.parquet")
    info = {"uri": "", "collection": "docs_v1", "alias": "docs", "config": {}}
    (target / "collection.json").write_text(json.dumps(info))
    embedder = Embedder(encoder)
    vectors = embedder.embed_queries(list(QUESTIONS.values()))
    # Whatever lies at LONG_QUESTION is for the model alone, all else is looked up.
    alone_KD = embedder.embed_queries([LONG_QUESTION])
    none_D = np.zeros(alone_KD.shape[1])
    Router(none_D, -9.0, 0.5, alone_KD, 0.9999).save(target / ROUTER)
    with open_index(target) as searcher:
        found = [
            [hit.passage for hit in searcher.search(question, vector, TOP_K)]
            for question, vector in zip(QUESTIONS.values(), vectors, strict=True)
        ]
    prompts = {}
    for (name, question), passages in zip(QUESTIONS.items(), found, strict=True):
        numbered = [Numbered(p.title, p.text) for p in passages]
        prompts[name] = (grounded_prompt(question, numbered), numbered)
    return prompts


def consultation() -> Iterator[tuple[Chat, str]]:
    """The lessons of a consultation: its questions, that it knows enough, its finding."""
    order = {"role": "system", "content": words.QUESTION_PROMPT["zh"]}
    chat: Chat = [{"role": "user", "content": COMPLAINT}]
    for question, answer in EXCHANGES:
        yield [order, *chat], question
        turn = ({"role": "assistant", "content": question}, {"role": "user", "content": answer})
        chat = [*chat, *turn]
    yield [order, *chat], "信息足够。"
    wish = f"{chat[-1]['content']}\n{words.JUDGE_NOW['zh']}"
    order = {"role": "system", "content": words.JUDGEMENT_PROMPT["zh"]}
    yield [order, *chat[:-1], {"role": "user", "content": wish}], FINDING


def build_policy(target: Path, lessons: list[tuple[str | Chat, str]]) -> None:
    """A Qwen3 of two layers, trained until it says each lesson's answer by itself. It also learns
    one answer that has no end."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL_TOKENS, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    endless = (LONG_QUESTION, "一二三四五六七八九十" * 20)
    chats = [
        ([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt, answer)
        for prompt, answer in [*((p, f"{a}<|im_end|>") for p, a in lessons), endless]
    ]
    read = [[*(message["content"] for message in chat), answer] for chat, answer in chats]
    raw.train_from_iterator([text for texts in read for text in texts], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=96, intermediate_size=192, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=24, max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    examples = []
    for chat, answer in chats:
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        # The same tokens as at inference: the prompt is encoded by itself.
        tail = tokenizer(answer, add_special_tokens=False)["input_ids"]
        examples.append((head, tail))
    width = max(len(head) + len(tail) for head, tail in examples)
    ids = torch.full((len(examples), width), tokenizer.pad_token_id)
    labels = torch.full((len(examples), width), -100)
    for row, (head, tail) in enumerate(examples):
        ids[row, : len(head) + len(tail)] = torch.tensor(head + tail)
        labels[row, len(head) : len(head) + len(tail)] = torch.tensor(tail)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    learned = False
    for _ in range(800):
        output = model(input_ids=ids, labels=labels)
        loss = output.loss
        # Every token of every answer is the likeliest one: then greedy decoding says it by itself.
        told = output.logits[:, :-1].argmax(-1)
        wanted = labels[:, 1:]
        learned = bool((told == wanted)[wanted != -100].all()) and loss.item() < 0.02
        if learned:
            break
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert learned, f"the fixture's policy did not learn its lessons: {loss.item():.3f}"
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
