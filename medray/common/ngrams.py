"""Character n-grams as 64-bit hashes. In: text. Out: one hash for each place in it.

For near-duplicates and for overlap with evaluation sets, on text without blanks, punctuation and
case, so that another layout hides nothing. Source: GPT-4 report (OpenAI 2023), appendix C, drops
blanks and symbols before it compares.
"""

import numpy as np

# Odd multipliers of splitmix64 (Steele, Lea, Flood 2014): a bijection on 64-bit numbers.
STEP, MIX1, MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def canonical(text: str) -> str:
    """Letters and digits of `text` alone, without case.

    >>> canonical("WBC： 12.3，Ｃ反应")
    'wbc123ｃ反应'
    """
    return "".join(filter(str.isalnum, text.casefold()))


def mix(values: np.ndarray) -> np.ndarray:
    """Spreads uint64 `values` over all 64 bits, one to one (splitmix64)."""
    values = values + np.uint64(STEP)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(MIX1)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(MIX2)
    return values ^ (values >> np.uint64(31))


def ngram_hashes(text: str, size: int) -> np.ndarray:
    """uint64 hash of `text[i : i + size]` for every i; empty if the text is shorter than `size`.

    Equal n-grams have equal hashes on every machine. Two different ones agree with a probability
    of 2**-64: among 1e9 n-grams of a corpus and 1e6 of evaluation sets, 5e-5 pairs are expected.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    num = len(codes) - size + 1
    if num <= 0:
        return np.empty(0, np.uint64)
    hashes = np.zeros(num, np.uint64)
    for k in range(size):
        hashes *= np.uint64(STEP)
        hashes += codes[k : k + num]
    return mix(hashes)
