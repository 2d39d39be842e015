"""Hand-worked numbers of the single metrics."""

import numpy as np
import pytest

from medray.common.records import ExamQuestion, Instruction, Message
from medray.evaluation import diagnosis, exam, grounded
from medray.evaluation.bootstrap import mean_interval, paired_difference
from medray.evaluation.language_model import held_out_loss, share_closed
from medray.evaluation.lexicon import Lexicon
from medray.evaluation.rewards import Worth, compare, figures
from medray.generation.prompts import NO_ANSWER, Numbered, grounded_answer, grounded_prompt


def test_share_of_distance_closed() -> None:
    # From 6 nats down to 3 with a bound of 2: 3 of 4.
    assert share_closed(6.0, 3.0, 2.0) == pytest.approx(0.75)
    assert share_closed(6.0, 7.0, 2.0) < 0
    with pytest.raises(ValueError, match="below the unigram entropy"):
        share_closed(2.0, 1.0, 2.0)


def test_bootstrap_of_a_constant_difference_is_a_point() -> None:
    found = paired_difference([1.0, 2.0, 3.0], [1.5, 2.5, 3.5])
    assert found == pytest.approx((0.5, 0.5, 0.5, 0.0))
    with pytest.raises(ValueError, match="same items"):
        paired_difference([1.0], [1.0, 2.0])


def test_bootstrap_interval_agrees_with_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(2.0, 3.0, 400)
    low, high = mean_interval(list(values))
    half = 1.96 * values.std(ddof=1) / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.05)
    assert high == pytest.approx(values.mean() + half, abs=0.05)


def test_reward_comparison_is_paired() -> None:
    rows = {f.metric: f for f in figures("sft", Worth([1.0, 3.0], [], [10.0, 20.0]))}
    assert rows["reward"].value == 2.0
    assert rows["reward_sd"].value == pytest.approx(2**0.5)
    assert rows["true_score"].value is None
    assert "truth" in rows["true_score"].reason
    assert compare("sft", "ppo", "reward", [1.0, 3.0], [2.0, 4.0]).value == 1.0
    assert compare("sft", "ppo", "reward", [], [2.0]).value is None


def test_diagnosis_by_department_and_unparsed() -> None:
    items = [diagnosis.Item(str(k), "", g, d) for k, (g, d) in enumerate(
        [("肺炎", "呼吸"), ("肺炎", "呼吸"), ("肺炎", "呼吸"), ("胃炎", "消化")]
    )]  # fmt: skip
    lexicon = Lexicon(["肺炎", "胃炎"], {})
    result = diagnosis.grade(items, ["肺炎。", "胃炎", "不详", "考虑胃炎"], lexicon)
    assert result.right == [True, False, False, True]
    rows = {f.key: f.value for f in diagnosis.figures("sft", items, result)}
    assert rows["sft/diagnosis_accuracy"] == 0.5
    assert rows["sft/diagnosis_macro_accuracy"] == pytest.approx((1 / 3 + 1) / 2)
    assert rows["sft/diagnosis_unparsed"] == 0.25
    assert rows["sft/diagnosis_accuracy/消化"] == 1.0


def test_tfidf_learns_what_characters_tell() -> None:
    def items(n: int) -> list[diagnosis.Item]:
        return [
            diagnosis.Item(str(k), *(("咳嗽咳痰", "肺炎"), ("反酸嗳气", "胃炎"))[k % 2], "")
            for k in range(n)
        ]

    assert diagnosis.tfidf_answers(items(20), items(4), 50) == ["肺炎", "胃炎"] * 2


def test_exam_takes_the_likeliest_letter_and_counts_what_it_cannot_ask(engine) -> None:
    def question(k: int, answer: str, subject: str) -> ExamQuestion:
        options = {"A": "甲", "B": "乙", "C": "丙", "D": "丁"}
        return ExamQuestion(
            id=str(k), question=f"题{k}", options=options, answer=answer, subject=subject,
            split="dev",
        )  # fmt: skip

    questions = [
        question(1, "B", "内"),
        question(2, "B", "内"),
        question(3, "A", "外"),
        question(4, "AB", "外"),
    ]
    fake = engine(lambda prompt: "B")
    rows = {f.metric: f.value for f in exam.figures("sft", questions, fake, raw=False)}
    assert rows["exam_accuracy"] == pytest.approx(2 / 3)
    assert rows["exam_macro_accuracy"] == 0.5
    assert rows["exam_chance"] == 0.25
    assert rows["exam_multiple_answers"] == 1.0


PASSAGES = [
    Numbered("肺炎 治疗", "概述。首选阿莫西林。"),
    Numbered("胃炎 治疗", "概述。首选奥美拉唑。"),
    Numbered("肺炎 病因", "多由肺炎链球菌引起。"),
]


def example(question: str, shown: list[int], gold: int | None, quote: str = "") -> Instruction:
    passages = [PASSAGES[k] for k in shown]
    number = 0 if gold is None else shown.index(gold) + 1
    answer = NO_ANSWER if gold is None else grounded_answer(PASSAGES[gold].title, number, quote)
    return Instruction(
        id=question,
        task="grounded",
        messages=[
            Message(role="user", content=grounded_prompt(question, passages)),
            Message(role="assistant", content=answer),
        ],
        split="dev",
    )


EXAMPLES = [
    example("肺炎如何治疗？", [2, 0], 0, "首选阿莫西林"),
    example("胃炎如何治疗？", [1, 2], 1, "首选奥美拉唑"),
    example("肺炎的病因？", [2], 2, "多由肺炎链球菌引起"),
    example("癌的病因？", [0], None),
]


def test_facts_are_exchanged_within_a_heading() -> None:
    swapped = grounded.exchange_facts(grounded.read_examples(EXAMPLES))
    assert [(e.quote, old) for e, old in swapped] == [
        ("首选奥美拉唑", "首选阿莫西林"), ("首选阿莫西林", "首选奥美拉唑"),
    ]  # fmt: skip
    first = swapped[0][0]
    assert first.passages == [PASSAGES[2], Numbered("肺炎 治疗", "概述。首选奥美拉唑。")]
    assert first.prompt == grounded_prompt("肺炎如何治疗？", first.passages)


def test_an_exchanged_fact_is_told_of_its_new_subject() -> None:
    passages = [
        Numbered("肺炎 治疗", "肺炎首选青霉素。"),
        Numbered("胃炎 治疗", "胃炎首选铝碳酸镁。"),
    ]
    alone = [
        grounded.Grounded(grounded_prompt("治疗？", [p]), [p], 1, p.text.rstrip("。"))
        for p in passages
    ]
    swapped = grounded.exchange_facts(alone)
    assert [(e.quote, old) for e, old in swapped] == [
        ("肺炎首选铝碳酸镁", "肺炎首选青霉素"), ("胃炎首选青霉素", "胃炎首选铝碳酸镁"),
    ]  # fmt: skip
    assert swapped[0][0].passages == [Numbered("肺炎 治疗", "肺炎首选铝碳酸镁。")]


def test_a_reader_follows_the_exchange_and_a_reciter_does_not(engine) -> None:
    def read(prompt: str) -> str:
        question = prompt.split("问题：")[1].split("\n")[0]
        for k, passage in enumerate(grounded.read_passages(prompt), 1):
            disease, heading = passage.title.split()
            if disease in question and heading in question:
                clause = passage.text.rstrip("。").split("。")[-1]
                return grounded_answer(passage.title, k, clause)
        return NO_ANSWER

    def recite(prompt: str) -> str:
        return grounded_answer("肺炎 治疗", 2, "首选阿莫西林")

    examples = grounded.read_examples(EXAMPLES)
    assert len(examples) == 4
    rows = {f.metric: f.value for f in grounded.figures("sft", examples, engine(read), 64)}
    assert rows == {
        "grounded_right_quote": 1.0, "grounded_unguided_quote": 1.0,
        "grounded_valid_citation": 1.0, "grounded_abstains": 1.0,
        "fact_swap_followed": 1.0, "fact_swap_verbatim": 1.0, "fact_swap_recited": 0.0,
    }  # fmt: skip
    rows = {f.metric: f.value for f in grounded.figures("sft", examples, engine(recite), 64)}
    assert rows["grounded_right_quote"] == pytest.approx(1 / 3)
    assert rows["fact_swap_followed"] == 0.0
    assert rows["fact_swap_recited"] == 0.5  # amoxicillin is the old fact of one of the two


def test_loss_is_per_token_of_what_is_scored(engine, record) -> None:
    fake = engine(lambda _: "", max_tokens=30)
    documents = [record(doc_id="a", 主诉="咳嗽。"), record(doc_id="b", 主诉="痛" * 50)]

    def render(document) -> str:
        return "\n".join(f"【{s.heading}】{s.text}" for s in document.sections)

    loss = held_out_loss(documents, fake, render)
    # A token is a character at 2 nats; the heading is given; the second record does not fit.
    assert (loss.tokens, loss.nats, loss.per_token) == (3, 6.0, 2.0)
    assert (loss.doc_ids, loss.num_too_long) == (["a"], 1)
