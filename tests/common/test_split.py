"""The held-out split is a function of the key alone."""

import hashlib

from medray.common.split import split_of, unit_hash

KEYS = [f"patient-{k}" for k in range(2000)]


def test_unit_hash_by_another_way() -> None:
    # The first 16 hexadecimal digits of the sha256 are its first 8 bytes.
    digits = hashlib.sha256(b"patient-1").hexdigest()[:16]
    assert unit_hash("patient-1") == int(digits, 16) / 16**16


def test_fraction_is_kept() -> None:
    dev = sum(split_of(key, 0.2) == "dev" for key in KEYS)
    # Binomial(2000, 0.2): mean 400, standard deviation √320 ≈ 17.9; five of them.
    assert abs(dev - 400) < 90


def test_a_larger_fraction_only_moves_keys_to_dev() -> None:
    small, large = ({k for k in KEYS if split_of(k, f) == "dev"} for f in (0.1, 0.3))
    assert small < large


def test_ends() -> None:
    assert {split_of(key, 0.0) for key in KEYS} == {"train"}
    assert {split_of(key, 1.0) for key in KEYS} == {"dev"}
