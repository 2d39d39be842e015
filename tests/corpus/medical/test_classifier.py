"""The classifier: what it learns, what it is sure of, and that saving changes nothing."""

import json
import random

import numpy as np
import pytest

from medray.common.errors import CheckpointError, DataError
from medray.corpus.medical.classifier import (
    BITS,
    MedicalClassifier,
    feature_matrix,
    ngram_buckets,
    script,
)
from medray.corpus.medical.train import Example, train_classifier


def test_two_vocabularies_are_told_apart(separable, training):
    classifier, figures = train_classifier(separable(), training, 0.5)
    held_out = figures["held_out"]
    assert held_out["auc"]["value"] == 1.0
    assert held_out["precision"]["value"] == held_out["recall"]["value"] == 1.0
    fresh = separable(20, seed=1)
    probabilities = classifier.probabilities(e.text for e in fresh)
    assert ((probabilities > 0.5) == [e.is_medical for e in fresh]).all()


@pytest.mark.parametrize(("num_medical", "num_general"), [(1500, 1500), (600, 2000)])
def test_what_cannot_be_told_apart_reaches_the_bayes_accuracy_and_is_calibrated(
    training, num_medical, num_general
):
    """A medical text holds the mark A with 0.8, else B; a general one the other way round.

    The best rule says medical for A: right in 0.8 of the texts of either side, however many there
    are; P(medical | A) = 0.8 at equal shares. AUC: a medical text with A beats a general one with B
    in 0.64 of the pairs, and half of the 0.32 of pairs with the same mark: 0.64 + 0.16 = 0.8.
    """
    rng = random.Random(3)
    marks, filler = ("甲乙丙丁", "戊己庚辛"), "".join(chr(0x7000 + k) for k in range(12))
    examples = []
    for k in range(num_medical + num_general):
        is_medical = k < num_medical
        mark = marks[is_medical == (rng.random() >= 0.8)]
        text = mark.join("".join(rng.choices(filler, k=3)) for _ in range(9))
        examples.append(Example(text, is_medical, "both", str(k)))
    classifier, figures = train_classifier(
        examples, training.model_copy(update={"regularisation": 0.1}), 0.5
    )
    held_out = figures["held_out"]
    error = 3 * (0.8 * 0.2 / min(held_out["documents"].values())) ** 0.5
    assert held_out["recall"]["value"] == pytest.approx(0.8, abs=error)
    assert held_out["specificity"]["value"] == pytest.approx(0.8, abs=error)
    assert held_out["auc"]["value"] == pytest.approx(0.8, abs=error)
    assert held_out["auc"]["low"] < held_out["auc"]["value"] < held_out["auc"]["high"]
    assert held_out["calibration_error"] < 0.06
    texts = [mark.join(rng.choices(filler, k=10)) for mark in marks for _ in range(50)]
    probabilities = classifier.probabilities(texts)
    assert probabilities[:50].mean() == pytest.approx(0.8, abs=0.08)
    assert probabilities[50:].mean() == pytest.approx(0.2, abs=0.08)


def test_the_order_of_the_texts_does_not_change_the_filter(separable, training, tmp_path):
    examples = separable(100)
    for name in ("a", "b"):
        random.Random(name).shuffle(examples)
        classifier, figures = train_classifier(examples, training, 0.5)
        classifier.save(tmp_path / name)
        (tmp_path / name / "figures").write_text(json.dumps(figures))
    for name in ("weights.npz", "config.json", "figures"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_saved_filter_scores_the_same(separable, training, tmp_path):
    classifier, _ = train_classifier(separable(100), training, 0.5)
    classifier.save(tmp_path)
    texts = [e.text for e in separable(10, seed=2)] + ["English only."]
    loaded = MedicalClassifier.load(tmp_path)
    np.testing.assert_array_equal(loaded.probabilities(texts), classifier.probabilities(texts))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2**21


def test_a_script_seen_on_one_side_only_is_not_judged(separable, training, caplog):
    english = [
        Example(f"the patient number {k} was seen", True, "books", f"e{k}") for k in range(99)
    ]
    classifier, figures = train_classifier(separable() + english, training, 0.5)
    assert "whose script is other are not judged" in caplog.text
    assert figures["trained_on"].keys() == {"books", "news"}
    assert sum(figures["trained_on"].values()) < 400
    probabilities = classifier.probabilities(["the patient was seen", "甲乙丙丁"])
    assert np.isnan(probabilities).tolist() == [True, False]


def test_too_few_texts_are_an_error(separable, training):
    with pytest.raises(DataError, match=r"at least 50 .* found 49 general \(han\), 49 medical"):
        train_classifier(separable(49), training, 0.5)


def test_what_is_no_filter_is_an_error(separable, training, tmp_path):
    with pytest.raises(CheckpointError, match="holds no medical filter that can be read"):
        MedicalClassifier.load(tmp_path / "absent")
    classifier, _ = train_classifier(separable(100), training, 0.5)
    classifier.save(tmp_path)
    (tmp_path / "weights.npz").write_bytes(b"PK torn")
    with pytest.raises(CheckpointError, match="holds no medical filter that can be read"):
        MedicalClassifier.load(tmp_path)
    classifier.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"bucket_bits": 20}))
    with pytest.raises(CheckpointError, match="train it anew"):
        MedicalClassifier.load(tmp_path)


def test_features_by_hand():
    # 4 letters: 3 pairs, 2 triples, 1 quadruple: F = 6. The pair 咳嗽 stands twice in 咳嗽咳嗽.
    buckets = ngram_buckets("咳嗽咳嗽")
    assert len(buckets) == 6 and buckets[0] == buckets[2] and buckets.max() < 2**BITS
    row = feature_matrix(["咳嗽，咳嗽！", ""]).toarray()
    assert sorted(row[0][row[0] > 0].tolist()) == pytest.approx([6**-0.5] * 4 + [2 * 6**-0.5])
    assert not row[1].any()


def test_script():
    assert script("咳嗽3天") == "han"
    assert script("ct示右肺结节") == "han"
    assert script("thepatient") == "other"
    assert script("thepatienthas咳") == "other"
