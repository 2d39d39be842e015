import numpy as np

from medray.common.ngrams import canonical, mix, ngram_hashes


def test_canonical_keeps_letters_and_digits_without_case():
    assert canonical("WBC： 12.3%，（高）\nCRP") == "wbc123高crp"
    assert canonical("。 ，") == ""


def test_equal_ngrams_have_equal_hashes_wherever_they_stand():
    text = "咳嗽发热咳嗽发热abc"
    hashes = ngram_hashes(text, 3)
    ngrams = [text[i : i + 3] for i in range(len(text) - 2)]
    assert len(hashes) == len(ngrams) == 9
    # 咳嗽发 and 嗽发热 stand twice, so 7 of 9 are distinct.
    assert len(set(hashes.tolist())) == len(set(ngrams)) == 7
    assert dict(zip(ngrams, hashes, strict=True)) == {
        n: ngram_hashes(n, 3)[0] for n in ngrams
    }  # fmt: skip
    assert len(ngram_hashes("咳嗽", 3)) == 0 and len(ngram_hashes("咳嗽发", 3)) == 1


def test_hashes_are_the_same_on_every_machine():
    """splitmix64 of seed 0, from the reference code of Vigna: its first output."""
    assert mix(np.zeros(1, np.uint64))[0] == 0xE220A8397B1DCDAF


def test_hashes_of_many_ngrams_do_not_collide():
    values = mix(np.arange(200_000, dtype=np.uint64))
    assert len(np.unique(values)) == 200_000
    # The top 32 bits alone, which MinHash takes: n**2 / 2**33 = 4.7 pairs are expected.
    assert len(np.unique(values >> np.uint64(32))) > 200_000 - 20
