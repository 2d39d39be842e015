"""MinHash and Jaccard against hand-worked numbers, brute force and datasketch."""

import random

import datasketch
import numpy as np
import pytest

from medray.common.minhash import Bands, band_keys, plan_bands, signature
from medray.common.ngrams import ngram_hashes
from medray.corpus.duplicates.jaccard import jaccard, ngram_matrix, ngram_set

NUM_HASHES = 208


@pytest.fixture
def pairs_of_texts(letters, edited):
    """(number, edits) → pairs of a text of 200 characters and its copy with edits."""

    def make(num: int, edits: int) -> list[tuple[str, str]]:
        rng = random.Random(f"{num}/{edits}")
        texts = ["".join(rng.choices(letters, k=200)) for _ in range(num)]
        return [(text, edited(text, edits, rng)) for text in texts]

    return make


def test_jaccard_by_hand():
    # abcd: {abc, bcd}; bcde: {bcd, cde}; one of three. ab is shorter than 3: {ab}.
    texts = ["abcd", "bcde", "abcdabcd", "ab", "", "ab"]
    matrix = ngram_matrix(texts, 3)
    left, right = np.array([0, 0, 0, 3, 4, 4]), np.array([1, 2, 3, 5, 4, 0])
    # abcdabcd: {abc, bcd, cda, dab}; shares two of four with abcd. Nothing is like nothing.
    assert jaccard(matrix, left, right).tolist() == [1 / 3, 0.5, 0.0, 1.0, 0.0, 0.0]
    assert ngram_set("", 3) == set()


def test_a_pair_exactly_at_the_threshold_counts():
    # 1: four of five n-grams shared; 4 / 5 and 0.8 are the same float.
    matrix = ngram_matrix(["abcd", "abcde"], 1)
    assert jaccard(matrix, np.array([0]), np.array([1]))[0] >= 0.8


def test_band_probabilities_by_hand():
    # 1 - (1 - 0.8**5)**20 = 1 - 0.67232**20 = 0.99964; at 0.5: 1 - 0.96875**20 = 0.4701.
    # Mining of Massive Datasets, 3.4.2, example 3.12 prints 0.9996 and 0.470.
    assert Bands(20, 5).probability(0.8) == pytest.approx(0.9996, abs=5e-5)
    assert Bands(20, 5).probability(0.5) == pytest.approx(0.470, abs=5e-4)
    # FineWeb's 14 bands of 8: 1 - (1 - 0.16777)**14 = 0.924.
    assert Bands(14, 8).probability(0.8) == pytest.approx(0.924, abs=5e-4)


def test_plan_of_bands_by_hand():
    assert plan_bands(0.8, 0.99, 256) == Bands(26, 8)
    # One hash fewer than 208 does not hold 26 bands of 8. r = 7: 0.8**7 = 0.2097,
    # b = ceil(4.605 / 0.2353) = 20.
    assert plan_bands(0.8, 0.99, 207) == Bands(20, 7)
    with pytest.raises(ValueError, match="no bands of 4 hashes"):
        plan_bands(0.5, 0.99, 4)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_a_plan_holds_its_recall_and_more_rows_would_not_fit(threshold):
    plan = plan_bands(threshold, 0.99, 256)
    assert plan.bands * plan.rows <= 256
    assert (
        plan.probability(threshold)
        >= 0.99
        > Bands(plan.bands - 1, plan.rows).probability(threshold)
    )
    too_many = Bands(256 // (plan.rows + 1), plan.rows + 1)
    assert too_many.probability(threshold) < 0.99


@pytest.mark.parametrize("edits", [2, 8, 20])
def test_signatures_estimate_jaccard_without_bias(edits, pairs_of_texts):
    """The mean error of 100 pairs, in standard deviations of its own: |z| < 4 for a fair one."""
    errors, variance = [], 0.0
    for text, other in pairs_of_texts(100, edits):
        (exact,) = jaccard(ngram_matrix([text, other], 5), np.array([0]), np.array([1]))
        ours, theirs = (signature(ngram_hashes(t, 5), NUM_HASHES) for t in (text, other))
        errors.append(float((ours == theirs).mean() - exact))
        variance += exact * (1 - exact) / NUM_HASHES
    assert abs(sum(errors)) < 4 * variance**0.5
    # And each pair alone scatters as a binomial share does, not more.
    assert np.std(errors) < 1.3 * (variance / 100) ** 0.5


def test_a_signature_does_not_know_order_repeats_or_chunks(letters):
    hashes = ngram_hashes("".join(letters), 5)
    assert len(hashes) == 1_996  # two chunks
    expected = signature(hashes, 64)
    np.testing.assert_array_equal(signature(hashes[::-1], 64), expected)
    np.testing.assert_array_equal(signature(np.tile(hashes, 3), 64), expected)
    parts = [signature(part, 64) for part in np.array_split(hashes, 7)]
    np.testing.assert_array_equal(np.min(parts, axis=0), expected)


def test_band_keys_are_equal_where_all_minima_of_the_band_are():
    signatures = np.arange(24, dtype=np.uint32).reshape(2, 12)
    signatures[1, :3] = signatures[0, :3]
    signatures[1, 6:8] = signatures[0, 6:8]  # two of three
    keys = band_keys(signatures, Bands(4, 3))
    assert keys.shape == (2, 4)
    assert (keys[0] == keys[1]).tolist() == [True, False, False, False]
    # The order of minima in a band matters.
    assert (
        band_keys(signatures[:, ::-1], Bands(1, 12)) != band_keys(signatures, Bands(1, 12))
    ).all()


def test_as_many_pairs_share_a_band_as_in_datasketch(pairs_of_texts):
    """Two families of permutations: the same pairs at 0.9 and above, as many at 0.5."""
    for edits, expected in ((2, 60), (14, None)):
        pairs, bands = pairs_of_texts(60, edits), plan_bands(0.8, 0.99, 256)
        keys = band_keys(
            np.stack([signature(ngram_hashes(t, 5), NUM_HASHES) for pair in pairs for t in pair]),
            bands,
        ).reshape(60, 2, -1)
        ours = (keys[:, 0] == keys[:, 1]).any(axis=1).sum()
        theirs = 0
        for pair in pairs:
            index = datasketch.MinHashLSH(num_perm=NUM_HASHES, params=tuple(bands))
            minhashes = []
            for text in pair:
                minhash = datasketch.MinHash(num_perm=NUM_HASHES, seed=1)
                minhash.update_batch([ngram.encode() for ngram in ngram_set(text, 5)])
                minhashes.append(minhash)
            index.insert("first", minhashes[0])
            theirs += "first" in index.query(minhashes[1])
        if expected is not None:
            assert ours == theirs == expected
        else:
            # 14 edits leave J near 0.5, where a tenth to a fifth of the pairs share a band: two
            # binomial counts of 60 differ by less than 4 deviations, 4 * sqrt(2 * 60 * 0.16).
            assert 0 < ours < 40 and abs(int(ours) - theirs) < 18
