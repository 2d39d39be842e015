"""Guided quotations: what may follow a quotation's first words, and a model under guidance."""

import pytest
import torch

from medray.common.records import Document, Section
from medray.common.sentences import SENTENCE, numbered_sentences
from medray.corpus.tokenizer import TokenizerConfig, train_tokenizer
from medray.generation.engine import HFEngine
from medray.generation.prompts import (
    Numbered,
    check_citation,
    citable_texts,
    grounded_answer,
    grounded_prompt,
    parse_citations,
    quality_prompt,
)
from medray.generation.quoting import LINE, GuidedQuotes, Quotable
from medray.generation.sampling import Sampling
from medray.quality.evidence import cite

PASSAGES = [
    Numbered("肺炎 治疗", "肺炎首选青霉素，疗程7天。过敏者换用𠮷霉素。"),
    Numbered("哮喘 治疗", "哮喘首选沙丁胺醇。"),
]


def test_what_may_follow_by_hand() -> None:
    quotable = Quotable("甲乙，甲丙。", LINE)
    assert quotable.rests("") == (["甲乙，甲丙。", "甲丙。"], False)  # never empty
    assert quotable.rests("甲") == (["乙，甲丙。", "丙。"], False)  # in the middle of a clause
    assert quotable.rests("甲乙") == (["，甲丙。"], True)
    assert quotable.rests("甲乙，") == (["甲丙。"], True)
    assert quotable.rests("甲丙。") == ([], True)
    assert quotable.rests("乙") == ([], False)  # begins inside a clause


def test_a_quotation_holds_no_closing_quote_and_stays_in_its_piece() -> None:
    said = Quotable("甲称“乙”，丙。", LINE)
    assert said.rests("") == (["甲称“乙", "丙。"], False)
    assert said.rests("甲称“乙") == ([], True)
    two = "甲。乙\n丙，丁。"
    assert Quotable(two, LINE).rests("") == (["甲。乙", "乙", "丙，丁。", "丁。"], False)
    assert Quotable(two, SENTENCE).rests("") == (["甲。", "乙", "丙，丁。", "丁。"], False)
    assert Quotable(two, SENTENCE).rests("乙") == ([], True)  # the line ends without a mark
    assert Quotable("甲。。乙。", LINE).rests("。") == ([], False)  # a lone mark says nothing


@pytest.fixture(scope="module")
def engine() -> HFEngine:
    """A decoder with random weights, which writes nonsense, and a byte-level tokenizer."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    texts = [p.text + p.title for p in PASSAGES] * 3 + ["问题：资料：《》“”[1][2]"]
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=330, max_token_chars=4), texts)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, intermediate_size=32, initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return HFEngine.wrap(Qwen3ForCausalLM(config).eval(), tokenizer, 4)


def test_the_evidence_of_a_verdict_is_quoted_from_the_record(engine: HFEngine) -> None:
    """What the guide lets through is evidence: notes, line ends and quotation marks included."""
    sections = [
        Section(heading="诊断", text="肺炎（J18.9）"),
        Section(heading="治疗", text="过敏者称“𠮷霉素”，疗程7天。\n首选青霉素"),
    ]
    document = Document(doc_id="a", kind="emr", source="s", split="dev", sections=sections)
    sentences = numbered_sentences(sections)
    content = quality_prompt("治疗", ["哮喘首选\n沙丁胺醇。"], [s.text for s in sentences])
    prompt, texts = engine.prompt([{"role": "user", "content": content}]), citable_texts(content)
    quotes = set()
    for seed in range(12):
        sampling = Sampling(max_new_tokens=60, temperature=2.0, seed=seed)
        for answer in _continue(engine, [prompt] * 4, ["“"] * 4, sampling, texts):
            quotes.add(answer[1:].split("”")[0])
        (nonsense,) = _continue(engine, [prompt], ["“"], sampling, {})
        assert cite(document, sentences, nonsense[1:].split("”")[0]) is None
    assert all(cite(document, sentences, quote) for quote in quotes), quotes
    assert {"肺炎（J18.9）", "首选青霉素", "疗程7天"} < quotes
    guide = GuidedQuotes(engine.tokenizer, [texts], 0)
    for text in ("未", "“肺炎首选青霉素。”", "《肺炎》[1]：“"):
        scores = torch.zeros(1, len(engine.tokenizer))
        assert torch.isfinite(guide(torch.tensor([engine.encode(text)]), scores)).all()


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_model_of_random_weights_quotes_verbatim(engine: HFEngine, temperature: float) -> None:
    prompt = engine.prompt([{"role": "user", "content": grounded_prompt("治疗？", PASSAGES)}])
    texts = dict(enumerate(PASSAGES, 1))
    begun = [f"《{p.title}》[{k}]：“" for k, p in enumerate(PASSAGES, 1)] * 4
    quotes = set()
    for seed in range(6):
        sampling = Sampling(max_new_tokens=80, temperature=temperature, seed=seed)
        answers = _continue(engine, [prompt] * len(begun), begun, sampling, texts)
        for answer in answers:
            citation = parse_citations(answer)[0]
            assert check_citation(citation, PASSAGES) is None
            quotes.add((citation.number, citation.quote))
    assert {number for number, _ in quotes} == {1, 2}
    if temperature:
        assert len(quotes) > 4  # the model still chooses which clauses
        assert any("𠮷" in quote for _, quote in quotes)  # a character of several tokens


def test_without_guidance_the_same_model_writes_nonsense(engine: HFEngine) -> None:
    prompt = engine.prompt([{"role": "user", "content": grounded_prompt("治疗？", PASSAGES)}])
    begun = "《肺炎 治疗》[1]：“"
    (answer,) = _continue(engine, [prompt], [begun], Sampling(max_new_tokens=40), {})
    assert not [c for c in parse_citations(answer) if check_citation(c, PASSAGES) is None]


def test_text_outside_quotations_is_free(engine: HFEngine) -> None:
    guide = GuidedQuotes(engine.tokenizer, [{1: PASSAGES[0]}], 0)
    for text in (
        "肺炎",
        "《指南》",
        "《指南》[1]",
        "见《指",
        "《指南",
        "《肺炎 治疗》说",
        grounded_answer("肺炎 治疗", 1, "疗程7天"),
        "“",
    ):
        scores = torch.zeros(1, len(engine.tokenizer))
        assert torch.isfinite(guide(torch.tensor([engine.encode(text)]), scores)).all()


def test_a_citation_names_a_passage_and_its_number(engine: HFEngine) -> None:
    twice = {1: PASSAGES[0], 2: PASSAGES[1], 3: PASSAGES[0]._replace(text="疗程7天。")}
    answers = set()
    for seed in range(8):
        sampling = Sampling(max_new_tokens=60, temperature=2.0, seed=seed)
        prompt = engine.prompt([{"role": "user", "content": "治疗？"}])
        for begun in ("《肺炎 治疗》", "《哮喘", "《"):
            (answer,) = _continue(engine, [prompt], [begun], sampling, twice)
            citation = parse_citations(answer)[0]
            assert check_citation(citation, list(twice.values())) is None
            answers.add((citation.title, citation.number))
    # A sentence that begins with 《 names one of the passages. Which, and of two under one title
    # which number, is the model's choice.
    assert answers == {("肺炎 治疗", 1), ("肺炎 治疗", 3), ("哮喘 治疗", 2)}


def test_a_passage_that_does_not_exist_is_left_to_the_gateway(engine: HFEngine) -> None:
    guide = GuidedQuotes(engine.tokenizer, [{1: PASSAGES[0]}], 0)
    scores = torch.zeros(1, len(engine.tokenizer))
    assert torch.isfinite(guide(torch.tensor([engine.encode("《肺炎》[7]：“")]), scores)).all()


def _continue(
    engine: HFEngine, prompts: list[str], begun: list[str], sampling: Sampling, texts: dict
) -> list[str]:
    """Continues answers that have begun; the guide sees the beginning as the model's own."""
    answers = []
    for prompt, start in zip(prompts, begun, strict=True):
        ids = engine.encode(prompt)
        torch.manual_seed(sampling.seed * len(prompts) + len(answers))
        output = engine.model.generate(
            torch.tensor([ids + engine.encode(start)]),
            logits_processor=engine._processors(sampling, [texts], len(ids)),
            **engine.arguments(sampling),
        )
        answers.append(str(engine.tokenizer.decode(output[0, len(ids) :])))
    return answers
