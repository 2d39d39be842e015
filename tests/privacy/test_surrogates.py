import stat

import pytest

from medray.common.errors import ConfigError
from medray.privacy.dates import shift_date
from medray.privacy.surrogates import KeyConfig, Surrogates, load_key

KEY = b"0123456789abcdef"


def test_the_same_patient_keeps_a_surrogate_and_another_key_gives_another():
    ours, theirs = Surrogates(KEY), Surrogates(b"fedcba9876543210")
    assert ours.patient_id("7") == Surrogates(KEY).patient_id("7")
    assert ours.patient_id("7") != ours.patient_id("8")
    assert ours.patient_id("7") != theirs.patient_id("7")
    assert ours.key_id() != theirs.key_id()
    assert ours.replace("NAME", "王建国", "7") == ours.replace("NAME", "王建国", "7")
    # A doctor or a hospital is the same for every patient, a phone number is the patient's own.
    assert ours.replace("DOCTOR", "林静", "7") == ours.replace("DOCTOR", "林静", "8")
    assert ours.replace("PHONE", "13800138000", "7") != ours.replace("PHONE", "13800138000", "8")


def test_ways_of_writing_one_value_share_its_surrogate():
    surrogates = Surrogates(KEY)
    assert surrogates.replace("NAME", "李 伟", "7") == surrogates.replace("NAME", "李伟", "7")
    numbers = {surrogates.replace("PHONE", v, "7") for v in ("138-0013-8000", "138 00138000")}
    assert numbers == {surrogates.replace("PHONE", "13800138000", "7")}
    # English notes get masks in the manner of MIMIC's, with the words kept apart.
    assert surrogates.replace("NAME", "Jo Hill", "7").startswith("[**Name ")
    assert surrogates.replace("NAME", "Jo Hill", "7") != surrogates.replace("NAME", "JoHill", "7")


def test_different_values_mostly_get_different_surrogates():
    surrogates = Surrogates(KEY)
    numbers = {surrogates.replace("MRN", str(i), "7") for i in range(1000)}
    names = {surrogates.replace("NAME", f"王{i}", "7") for i in range(1000)}
    # 1 000 draws from 32^4 codes: 1000^2 / 2 / 32^4 = 0.5 pairs fall together.
    assert len(numbers) >= 996
    # 1 000 draws from 4 800 names leave 4800 (1 - e^(-1000/4800)) = 903 different ones.
    assert 850 < len(names) < 950


def test_no_moved_date_falls_into_our_time():
    surrogates = Surrogates(KEY)
    offsets = {surrogates.offset_days(str(i)) for i in range(200)}
    assert len(offsets) > 150
    assert shift_date("1900-01-01", min(offsets)) >= "2100"


def test_the_key_is_made_once_for_its_owner_only(tmp_path, monkeypatch):
    monkeypatch.delenv("MEDRAY_SURROGATE_KEY_FILE", raising=False)
    path = tmp_path / "keys" / "surrogates.key"
    key = load_key(KeyConfig(), path)
    assert load_key(KeyConfig(), path) == key and len(key) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    named = tmp_path / "own.key"
    named.write_bytes(KEY + b"\n")
    assert load_key(KeyConfig(key_file=str(named)), path) == KEY
    monkeypatch.setenv("MEDRAY_SURROGATE_KEY_FILE", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_key(KeyConfig(), path)
    named.write_bytes(b"short")
    monkeypatch.setenv("MEDRAY_SURROGATE_KEY_FILE", str(named))
    with pytest.raises(ConfigError, match="holds 5 bytes"):
        load_key(KeyConfig(), path)
