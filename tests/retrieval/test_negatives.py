"""Hard negatives by words, and the batches and the loss that they are part of."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from medray.common.records import RetrievalQuestion
from medray.common.rows import write_rows
from medray.retrieval.lexical import LexicalConfig, LexicalIndex
from medray.retrieval.training.contrastive import ContrastiveConfig, PairBatches
from medray.retrieval.training.negatives import (
    KEPT,
    SCHEMA,
    MineByWords,
    load_mined,
    mine_by_words,
    negatives_of,
    write_mined,
)
from medray.retrieval.training.pair_loss import PairLoss, info_nce


def test_what_answers_and_what_repeats_it_is_no_negative() -> None:
    ranked = [("a", "咳嗽"), ("b", "发热"), ("c", "咳嗽"), ("d", "头痛")]
    assert negatives_of(ranked, {"a"}, {"咳嗽"}) == ["b", "d"]


def table_of(texts: list[str]) -> pa.Table:
    names = [f"p{i}" for i in range(len(texts))]
    return pa.table({"passage_id": names, "title": [""] * len(texts), "text": texts})


def miner(texts: list[str], root: Path, first: int, last: int, seed: int = 0) -> MineByWords:
    (root / "passages").mkdir(parents=True)
    pq.write_table(table_of(texts), root / "passages" / "part-00000.parquet")
    LexicalIndex.build(texts, LexicalConfig()).save(root / "lexical")
    return MineByWords(str(root / "lexical"), str(root / "passages"), first, last, seed)


def test_ranks_of_the_words_by_hand(tmp_path: Path) -> None:
    """Equally long, each with one more cough than the next; the last shares no word."""
    texts = ["cough " * n + "rest " * (8 - n) for n in (8, 7, 6, 6, 5, 4, 3, 2)] + ["none " * 8]
    mine = miner(texts, tmp_path, first=1, last=6)
    # ranks: p0 | p1, p2, p3, p4, p5 | p6, p7; p2 answers, and p3 repeats it
    row = mine.mined(0, "cough", [2])
    assert row == {"question": "cough", "gold": ["p2"], "negatives": ["p1", "p4", "p5"]}
    assert mine.mined(0, "cough", [1, 5])["negatives"] == ["p2", "p3", "p4"]
    assert mine.mined(0, "fever", [0])["negatives"] == []  # what shares no word is not near
    assert miner(texts, tmp_path / "all", 0, 200).mined(0, "cough", [0])["negatives"] == [
        "p1", "p2", "p3", "p4", "p5", "p6", "p7"
    ]  # fmt: skip


def test_the_seed_draws_what_is_kept(tmp_path: Path) -> None:
    texts = ["cough " * (1 + n) + "rest " * (60 - n) for n in range(60)]
    first, again, other = (
        miner(texts, tmp_path / str(i), 0, 200, seed) for i, seed in enumerate((0, 0, 1))
    )
    rows = [[one.mined(i, "cough", [i]) for i in range(20)] for one in (first, again, other)]
    assert rows[0] == rows[1] != rows[2]
    for i, row in enumerate(rows[0]):
        assert len(set(row["negatives"])) == KEPT and f"p{i}" not in row["negatives"]
        ranks = [int(name[1:]) for name in row["negatives"]]
        assert all(a > b for a, b in pairwise(ranks))  # as they rank
    assert rows[0][0]["negatives"] != rows[0][1]["negatives"]


@pytest.mark.cluster
def test_the_file_does_not_depend_on_the_actors(
    ray_cluster, corpus: Path, instructions: Path, tmp_path: Path
) -> None:
    tables = []
    for num_actors in (1, 2):
        target = tmp_path / str(num_actors) / "mined.parquet"
        target.parent.mkdir()
        mine_by_words(
            corpus / "passages", instructions / "questions", target, (0, 6), 0, num_actors
        )
        tables.append(pq.read_table(target))
    assert tables[0].schema == SCHEMA and tables[0].equals(tables[1])
    rows = tables[0].to_pylist()
    assert [row["question"][:2] for row in rows] == ["肺炎", "哮喘", "胃炎", "肾炎", "贫血"]
    for row in rows:
        assert row["gold"] == [f"{row['question'][:2]}-治疗"]
        # 炎 of 肺炎, 怎么治疗 of the titles: six ranks, one of them the passage that answers
        assert len(row["negatives"]) == 5 and not set(row["gold"]) & set(row["negatives"])


def test_without_training_questions_nothing_is_mined(corpus: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "questions", RetrievalQuestion, [])
    target = tmp_path / "mined.parquet"
    mine_by_words(corpus / "passages", tmp_path / "questions", target, (0, 6), 0, 1)
    assert load_mined(target, table_of(["a"])) == []


def test_negatives_are_rows_of_the_passages(tmp_path: Path) -> None:
    rows = [
        {"question": "a", "gold": ["p0"], "negatives": ["p3", "p1"]},
        {"question": "b", "gold": ["p1"], "negatives": []},
    ]
    write_mined(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "mined.parquet")
    assert load_mined(tmp_path / "mined.parquet", table_of(["咳"] * 4)) == [[3, 1], []]


def batches_of(tokenizer: object, mined: list[list[int]], **values) -> PairBatches:
    questions = [(f"问{i}", [i, (i + 1) % 10]) for i in range(6)]
    passages = table_of([f"第{i}段" * 9 for i in range(10)])
    config = ContrastiveConfig(batch_size=8, **values)
    return PairBatches(config, questions, passages, tokenizer, seed=3, mined=mined)


def test_without_hard_negatives_batches_are_what_they_were(encoder_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir)
    # recorded before there were hard negatives
    expected = [
        ("问4", 4), ("问0", 1), ("问2", 2), ("问5", 5), ("问3", 3), ("问1", 2),
        ("2段第2段第2段第2段第2段第2段第2段第2段", 2), ("4段第4段第4段", 4),
    ]  # fmt: skip
    none = batches_of(tokenizer, [])
    assert [(pair.query, pair.passage) for pair in none.pairs(2)] == expected
    some = batches_of(tokenizer, [[9, 8, 7]] * 6, hard_negatives=2).pairs(2)
    assert [(pair.query, pair.passage) for pair in some] == expected
    for rank in (0, 1):
        batch = none.batch(2, rank, 2)
        assert batch["masked"].shape == (4, 8) and len(batch["passages"]["input_ids"]) == 4
        assert batch["target"].tolist() == [4 * rank + i for i in range(4)]


def test_a_question_draws_from_its_negatives_step_by_step() -> None:
    mined = [[7, 8, 9, 6], [8], [], [9, 8], [6, 7, 8], [7, 6]]
    batches = batches_of(None, mined, hard_negatives=2)
    assert batches.pairs(2) == batches.pairs(2)
    drawn = {}
    for step in range(20):
        for pair in batches.pairs(step)[:6]:
            found = mined[int(pair.query[1:])]
            assert len(pair.negatives) == min(2, len(found)) and set(pair.negatives) <= set(found)
            drawn.setdefault(pair.query, set()).update(pair.negatives)
        assert all(not pair.negatives for pair in batches.pairs(step)[6:])  # spans have none
    assert drawn["问0"] == {6, 7, 8, 9} and drawn["问4"] == {6, 7, 8}


def test_what_answers_another_question_is_masked_for_it_alone(encoder_dir: Path) -> None:
    # five questions bring one each, of which row 2 answers 问1 and 问2 (gold 1, 2 and 2, 3)
    mined = [[2], [9], [], [2], [8], [2]]
    batches = batches_of(AutoTokenizer.from_pretrained(encoder_dir), mined, hard_negatives=1)
    pairs = batches.pairs(2)
    hard = [row for pair in pairs for row in pair.negatives]
    assert sorted(hard) == [2, 2, 2, 8, 9]
    # worker 0 has pairs 0, 2, 4, 6, worker 1 the others; the fifth negative is filled up to six
    columns = [*(pairs[i].passage for i in (0, 2, 4, 6)), *hard[0::2]]
    columns += [*(pairs[i].passage for i in (1, 3, 5, 7)), hard[1], hard[3], None]
    for rank in (0, 1):
        batch = batches.batch(2, rank, 2)
        assert batch["masked"].shape == (4, 14) and len(batch["passages"]["input_ids"]) == 7
        assert batch["target"].tolist() == [7 * rank + i for i in range(4)]
        for i, pair in enumerate(pairs[rank::2]):
            expected = [row is None or row in pair.gold for row in columns]
            expected[7 * rank + i] = False
            assert batch["masked"][i].tolist() == expected


def test_loss_with_hard_negatives_by_hand() -> None:
    # two questions; passages of both, then a hard negative of each. Cosines over 0.5:
    queries = np.array([[1.0, 0.0], [0.0, 1.0]])
    passages = np.array([[0.8, 0.6], [0.6, 0.8], [0.96, 0.28], [0.0, 1.0]])
    scores = queries @ passages.T / 0.5
    assert scores == pytest.approx(np.array([[1.6, 1.2, 1.92, 0.0], [1.2, 1.6, 0.56, 2.0]]))
    masked = np.zeros((2, 4), bool)
    masked[1, 3] = True  # it answers the second question
    first = np.log(np.exp([1.6, 1.2, 1.92, 0.0]).sum()) - 1.6
    second = np.log(np.exp([1.2, 1.6, 0.56]).sum()) - 1.6
    loss = info_nce(torch.tensor(scores), torch.tensor(masked), torch.tensor([0, 1]))
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)
    assert loss.item() == pytest.approx((1.178453 + 0.704964) / 2, abs=1e-5)


def test_the_model_meets_every_hard_negative(encoder_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir)
    encoder = AutoModel.from_pretrained(encoder_dir).eval()
    batch = batches_of(tokenizer, [[2], [9], [], [2], [8], [2]], hard_negatives=1).batch(2, 0, 1)
    loss = PairLoss(encoder, temperature=0.1)(**batch)
    with torch.no_grad():
        queries, passages = (
            encoder(**batch[name]).last_hidden_state[:, 0].numpy()
            for name in ("queries", "passages")
        )
    assert (len(queries), len(passages)) == (8, 8 + 5)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    passages /= np.linalg.norm(passages, axis=1, keepdims=True)
    scores = np.where(batch["masked"].numpy(), -np.inf, queries @ passages.T / 0.1)
    expected = np.mean(np.log(np.exp(scores).sum(axis=1)) - np.diag(scores))
    assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_ranks_that_hold_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="mined_until must be more than mined_after 5"):
        ContrastiveConfig(mined_after=5, mined_until=5)
