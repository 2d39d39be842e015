"""What benchmarks reckon themselves, by hand."""

import numpy as np
import pytest
import rag_scores as gain
import search_latency as latency


def test_an_answer_counts_by_what_it_quotes() -> None:
    case = gain.Case("肺炎首选什么？", ["肺炎首选青霉素"], ["p1"])
    reply = gain.Reply("《肺炎 首选》[1]：“肺炎首选青霉素”。", ["p1", "p2"], False)
    # 7 of the 8 characters said are the 7 of the reference: 2 · (7/8) / (7/8 + 1)
    assert gain.scores(case, reply) == pytest.approx(
        {
            "f1": 14 / 15, "rouge_l": 14 / 15, "citation_precision": 1 / 2, "citation_recall": 1,
            "abstains": 0, "alone": 0, "too_long": 0,
        },
        abs=1e-4,
    )  # fmt: skip
    # Nothing cited: there is no precision, and nothing was recalled.
    alone = gain.scores(case, gain.Reply("肺炎首选青霉素", [], False))
    assert (alone["f1"], alone["citation_precision"], alone["citation_recall"]) == (1, None, 0)
    found = gain.compare([case], ([reply], [gain.Reply("肺炎首选青霉素", [], False)]))
    assert found["f1"]["difference"] == pytest.approx([-1 / 15] * 3, abs=1e-4)
    assert "difference" not in found["citation_precision"]


def test_abstention_is_counted_over_both_sets() -> None:
    no, yes = gain.Reply("", [], False), gain.Reply("", [], True)
    found = gain.abstention([no, no, no, yes], [yes, yes, yes, no])
    assert found["precision"][0] == 3 / 4  # of four times, three rightly
    assert found["recall"][0] == 3 / 4
    assert gain.abstention([no], [no])["precision"] is None


def test_a_passage_as_near_as_the_tenth_is_found() -> None:
    vectors_ND = np.array([[1.0, 0.0]] * 11 + [[0.0, 1.0]])
    asked = latency.Questions([""], np.array([[1.0, 0.0]]))
    assert latency.recall([[*range(1, 11)]], vectors_ND, asked) == 1  # the 11th is like the first
    assert latency.recall([[*range(9), 11]], vectors_ND, asked) == pytest.approx(0.9)
