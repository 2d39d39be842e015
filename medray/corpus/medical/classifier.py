"""Medical or general text. In: text of either language. Out: the probability that it is medical.

A linear model over hashed character n-grams, so that Chinese needs no word segmentation and a new
term is known by its parts. Shapes: V buckets of n-grams, F n-grams of a text.

    logit(text) = b + Σ_F w[bucket] / √F

A long text is judged with more certainty than a short one, as its n-grams are more evidence. A text
in a script that the filter saw on one side only is not judged: to it, English alone would be a sign
of medicine where all English that it learned from was medical.
Source: hashed n-grams with a linear model are fastText's (Joulin et al. 2016), with which DCLM (Li
et al. 2024, 4.4) filters; feature hashing: Weinberger et al. 2009. Differs: n-grams of characters,
no hidden layer, calibrated probabilities.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import expit

from medray.common.errors import CheckpointError
from medray.common.ngrams import canonical, ngram_hashes

WEIGHTS, CONFIG = "weights.npz", "config.json"
SIZES = (2, 3, 4)
BITS = 18
"""2**18 weights of 4 bytes are 1 MB."""
FORMAT = {"format": 1, "ngram_sizes": list(SIZES), "bucket_bits": BITS}
"""What a saved model must agree with."""
SCRIPTS = ("han", "other")
HAN = (0x3400, 0x9FFF)


class MedicalClassifier:
    """Weights and bias. Not pickled: it is saved as arrays and JSON."""

    def __init__(self, weights_V: np.ndarray, bias: float, scripts: Iterable[str]) -> None:
        """`scripts` are those that it learned both sides of."""
        self.weights_V, self.bias = weights_V.astype(np.float32), float(bias)
        self.scripts = tuple(sorted(scripts))

    def probabilities(self, texts: Iterable[str]) -> np.ndarray:
        """float64, one for each text, at equal shares of medical and general text; NaN for a text
        in a script that is not among `scripts`."""
        return expit(np.array([self._logit(text) for text in texts], np.float64))

    def save(self, directory: Path) -> None:
        """Writes weights.npz and config.json; the same model gives the same bytes."""
        directory.mkdir(parents=True, exist_ok=True)
        np.savez(directory / WEIGHTS, weights=self.weights_V, bias=np.float64(self.bias))
        (directory / CONFIG).write_text(
            json.dumps({**FORMAT, "scripts": self.scripts}, indent=1), encoding="utf-8"
        )

    @classmethod
    def load(cls, directory: Path) -> "MedicalClassifier":
        """Reads what `save` wrote.

        Raises:
            CheckpointError: if a file is missing, damaged, or of another format.
        """
        try:
            found = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
            with np.load(directory / WEIGHTS, allow_pickle=False) as arrays:
                weights_V, bias = arrays["weights"], float(arrays["bias"])
            scripts = found.pop("scripts")
        except (OSError, ValueError, KeyError, AttributeError, BadZipFile) as error:
            raise CheckpointError(
                f"{directory} holds no medical filter that can be read ({type(error).__name__}); "
                "set medical_filter.model to the medical/ directory of a corpus"
            ) from None
        if found != FORMAT or weights_V.shape != (2**BITS,):
            raise CheckpointError(
                f"the medical filter in {directory} is of format {found}, expected {FORMAT}; "
                "train it anew with medical_filter.train"
            )
        return cls(weights_V, bias, scripts)

    def _logit(self, text: str) -> float:
        letters = canonical(text)
        if script(letters) not in self.scripts:
            return np.nan
        buckets_F = ngram_buckets(letters)
        return self.bias + float(self.weights_V[buckets_F].sum()) / max(1, len(buckets_F)) ** 0.5


def script(letters: str) -> str:
    """`han` if Chinese characters, each standing for two others, are most of a canonical text."""
    codes = np.frombuffer(letters.encode("utf-32-le", "surrogatepass"), np.uint32)
    num_han = int(((codes >= HAN[0]) & (codes <= HAN[1])).sum())
    return "han" if 3 * num_han >= len(codes) else "other"


def ngram_buckets(letters: str) -> np.ndarray:
    """The bucket of each n-gram of a canonical text: 2, 3 and 4 letters or digits."""
    hashes = np.concatenate([ngram_hashes(letters, size) for size in SIZES])
    return (hashes >> np.uint64(64 - BITS)).astype(np.int32)


def feature_matrix(texts: Iterable[str]) -> csr_matrix:
    """One row a text [N, V], float32: how often it has an n-gram of each bucket, over √F."""
    columns, values, starts = [], [], [0]
    for text in texts:
        buckets_F = ngram_buckets(canonical(text))
        distinct, counts = np.unique(buckets_F, return_counts=True)
        columns.append(distinct)
        values.append((counts / max(1, len(buckets_F)) ** 0.5).astype(np.float32))
        starts.append(starts[-1] + len(distinct))
    if not columns:
        return csr_matrix((0, 2**BITS), dtype=np.float32)
    return csr_matrix(
        (np.concatenate(values), np.concatenate(columns), starts),
        shape=(len(columns), 2**BITS),
    )
