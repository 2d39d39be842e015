"""Which questions are looked up."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medray.common.records import Instruction, Message, RetrievalQuestion
from medray.common.rows import write_rows
from medray.retrieval.embed import Embedder
from medray.retrieval.measure import measured_router
from medray.retrieval.questions import questions_of
from medray.retrieval.routing import (
    Examples,
    Router,
    RouterConfig,
    learn_router,
    prompts_for_the_model,
)


def row(number: int, task: str, *asked: str, split="train", shared: int = 0) -> Instruction:
    turns = [
        message
        for text in asked
        for message in (Message(role="user", content=text), Message(role="assistant", content="好"))
    ]
    return Instruction(
        id=f"{task}-{number}", task=task, messages=turns, split=split, shared_chars=shared
    )


def test_the_rule_by_hand(tmp_path: Path) -> None:
    """w·v + b of (1, 0), (0, 1), (0.6, 0.8): 1, -1 and -0.2; the one centre lies at (0, 1)."""
    router = Router(np.array([1.0, -1.0]), 0.0, 0.5, np.array([[0.0, 1.0]]), 0.9)
    vectors_ND = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    e = np.e
    expected = [e / (1 + e), 1 / (1 + e), 1 / (1 + e**0.2)]
    assert router.probabilities(vectors_ND) == pytest.approx(expected)
    assert router.nearest(vectors_ND) == pytest.approx([0.0, 1.0, 0.8])
    assert router.looks_up(vectors_ND).tolist() == [True, False, True]
    router.save(tmp_path / "router.npz")
    router = Router.load(tmp_path / "router.npz")
    assert router.looks_up(vectors_ND).tolist() == [True, False, True]
    assert router.looks_up(np.array([[np.nan, 0.0]])).tolist() == [True]
    assert replace(router, least_cosine=0.7).looks_up(vectors_ND).tolist() == [True, False, False]
    stricter = replace(router, least_cosine=0.7, least_probability=0.45)
    assert stricter.looks_up(vectors_ND).tolist() == [True, False, True]


def test_the_rule_is_that_of_a_scaled_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    # Far from the origin and close together, as an encoder's texts lie; 300 of one kind, 30 of the
    # other.
    looked_up_ND = rng.normal([1.0, 0.1, 0.0], [0.01, 0.02, 0.001], (300, 3))
    alone_ND = rng.normal([1.0, 0.06, 0.0], [0.01, 0.02, 0.001], (30, 3))
    examples = Examples(looked_up_ND, alone_ND)
    router = learn_router(examples, examples, 0.5)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    both_ND = np.concatenate([looked_up_ND, alone_ND])
    model.fit(both_ND, [1] * 300 + [0] * 30)
    expected_N = model.predict_proba(both_ND)[:, 1]
    assert router.probabilities(both_ND) == pytest.approx(expected_N, abs=1e-3)
    assert router.least_probability == 0.5
    assert 1 <= len(router.centres_KD) <= 6  # each the mean of five or more
    assert np.square(router.centres_KD).sum(1) == pytest.approx(np.ones(len(router.centres_KD)))


def test_held_out_questions_set_the_limits() -> None:
    """Of 20 of either kind 18 at least are to be kept: each limit is the second lowest."""
    looked_up_ND = np.array([[1.0, 0.0], [0.8, 0.6]] * 20)
    alone_ND = np.array([[0.0, 1.0], [0.0, -1.0]] * 20)
    held_out_ND = np.array([[1.0, 0.0]] * 18 + [[0.0, 1.0], [-0.6, 0.8]])
    others_ND = np.array([[0.0, 1.0]] * 18 + [[0.6, 0.8], [-1.0, 0.0]])
    learned = Examples(looked_up_ND, alone_ND)
    router = learn_router(learned, Examples(held_out_ND, others_ND), 0.9)
    probabilities_N = np.sort(router.probabilities(held_out_ND))
    assert router.least_probability == pytest.approx(probabilities_N[1])
    assert router.least_cosine == pytest.approx(0.8)  # of (0.6, 0.8); (-1, 0) lies across
    # What lies near neither kind is looked up.
    assert router.looks_up(np.array([[-1.0, 0.0]])).tolist() == [True]
    # Where all lie on their side it stays at even odds.
    router = learn_router(learned, Examples(looked_up_ND, others_ND), 0.9)
    assert router.least_probability == 0.5


def test_no_centre_is_one_patients() -> None:
    """One record far from 30 others would be a cluster of its own."""
    rng = np.random.default_rng(1)
    looked_up_ND = rng.normal([1.0, 0.0, 0.0], 0.01, (30, 3))
    alone_ND = np.concatenate([rng.normal([0.0, 1.0, 0.0], 0.01, (30, 3)), [[0.0, 0.0, 1.0]]])
    examples = Examples(looked_up_ND, alone_ND)
    router = learn_router(examples, examples, 0.9)
    assert (router.centres_KD[:, 2] < 0.1).all()


def test_prompts_are_of_each_task_alike_and_what_is_searched_with(tmp_path: Path) -> None:
    rows = [row(k, "diagnosis", f"病历{k}") for k in range(10)]
    rows += [row(k, "dialogue", "咳嗽", f"有{k}") for k in range(2)]
    rows += [row(k, "quality", f"整份病历{k}，一问", "二问", shared=5) for k in range(1)]
    rows += [row(k, task, f"问题{k}") for k in range(5) for task in ("grounded", "knowledge_graph")]
    rows += [row(99, "diagnosis", "另一份", split="dev")]
    for name, ordered in (("one", rows), ("other", rows[::-1])):
        write_rows(tmp_path / name, Instruction, ordered)
    found = prompts_for_the_model(tmp_path / "one", "train", 6)
    assert found == prompts_for_the_model(tmp_path / "other", "train", 6)
    assert [(one.rank, one.task) for one in found] == [
        (0, "diagnosis"), (0, "dialogue"), (0, "quality"), (1, "diagnosis"), (1, "dialogue"),
        (2, "diagnosis"),
    ]  # fmt: skip
    assert {one.text for one in found} >= {"有0", "有1", "整份病历0，一问"}
    assert prompts_for_the_model(tmp_path / "one", "dev", 6) == [(0, "diagnosis", "另一份")]
    assert len(prompts_for_the_model(tmp_path / "one", "train", 100)) == 13


def test_questions_of_a_split_are_chosen_by_their_ids(tmp_path: Path) -> None:
    rows = [
        RetrievalQuestion(
            id=str(k), question=f"问{k}", passage_ids=["p"], split="dev" if k < 3 else "train"
        )
        for k in range(20)
    ]
    write_rows(tmp_path / "one", RetrievalQuestion, rows)
    write_rows(tmp_path / "other", RetrievalQuestion, rows[::-1])
    assert set(questions_of(tmp_path / "one", "dev", 5)) == {"问0", "问1", "问2"}
    some = questions_of(tmp_path / "one", "train", 4)
    assert len(some) == 4 and some == questions_of(tmp_path / "other", "train", 4)


@pytest.mark.parametrize(("examples", "learned"), [(0, False), (19, False), (40, True)])
def test_a_router_is_learned_and_measured(
    encoder_dir: Path, tmp_path: Path, examples: int, learned: bool
) -> None:
    """Questions on diseases, and statements of findings of two tasks; also where few rows or none
    are given."""
    diseases, digits = ["肺炎", "哮喘", "胃炎", "肝炎"], "0123456789"
    questions = [
        RetrievalQuestion(
            id=f"{split}{disease}{k}", question=f"{disease}{k}怎么治疗？", passage_ids=["p"],
            split=split,
        )
        for split in ("train", "dev") for disease in diseases for k in digits
    ]  # fmt: skip
    prompts = [
        row(10 * n + k, task, f"{disease}症状{k}，{k}。症状{k}。", split=split)
        for split in ("train", "dev")
        for task in ("diagnosis", "treatment")
        for n, disease in enumerate(diseases)
        for k in range(10)
    ]
    write_rows(tmp_path / "questions", RetrievalQuestion, questions)
    write_rows(tmp_path / "sft", Instruction, prompts)
    embedder = Embedder(encoder_dir)
    held_out = embedder.embed_queries([q.question for q in questions if q.split == "dev"])

    def learn(tuning_ND: np.ndarray) -> tuple[Router | None, dict[str, float]]:
        return measured_router(
            RouterConfig(examples=examples), embedder, tmp_path / "questions", tmp_path / "sft",
            tuning_ND, held_out[20:],
        )  # fmt: skip

    router, figures = learn(held_out[:20])
    assert (router is not None) == learned
    names = {"router/looked_up_fraction", "router/alone_fraction"}
    assert set(figures) == (names if learned else set())
    if learned:
        assert figures["router/looked_up_fraction"] == 1.0
        assert figures["router/alone_fraction"] >= 0.7  # of 20, by a limit that leaves out 1 of 20
    assert learn(held_out[:19]) == (None, {})  # too few to choose the rule
