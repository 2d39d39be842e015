import datetime
import stat

import pytest

from medray.common.errors import ConfigError
from medray.privacy.surrogates import KeyConfig, Surrogates, load_key, parse_date, shift_date

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


def test_different_values_mostly_get_different_surrogates():
    surrogates = Surrogates(KEY)
    numbers = {surrogates.replace("MRN", str(i), "7") for i in range(1000)}
    names = {surrogates.replace("NAME", str(i), "7") for i in range(1000)}
    # 1 000 draws from 32^4 codes: 1000^2 / 2 / 32^4 = 0.5 pairs fall together.
    assert len(numbers) >= 996
    # 1 000 draws from 4 800 names leave 4800 (1 - e^(-1000/4800)) = 903 different ones.
    assert 850 < len(names) < 950


def test_intervals_survive_in_every_way_of_writing_a_date():
    offset = Surrogates(KEY).offset_days("7")
    admitted = parse_moved(shift_date("2023年5月17", offset))
    operated = parse_moved(shift_date("2023-05-20", offset))
    discharged = parse_moved(shift_date("20230601", offset))
    assert (operated - admitted).days == 3
    assert (discharged - operated).days == 12
    # Without a year: the last such day up to the visit.
    assert parse_moved(shift_date("5月10", offset, "2023-05-17")) == admitted - days(7)
    assert parse_moved(shift_date("12月31", offset, "2023-05-17")) == admitted - days(137)
    assert shift_date("5月10", offset) == "[日期]"


def test_dates_keep_their_form():
    # 73 049 days are 200 years of 365.2425 days: 2023-05-17 goes to 2223-05-17 or a day beside it.
    assert shift_date("2023-05-17", 73_049) == "2223-05-18"
    assert shift_date("2023年5月17", 73_049) == "2223年5月18"
    assert shift_date("20230517", 73_049) == "22230518"
    assert shift_date("2023年5", 73_049) == "2223年5"
    assert shift_date("2023/05", 73_049) == "2223/05"
    assert shift_date("2023", 73_049) == "2223"
    assert shift_date("2023-02-31", 73_049) == shift_date("2023-02-28", 73_049)
    assert shift_date("soon", 73_049) == "[日期]"


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


def days(number: int) -> datetime.timedelta:
    return datetime.timedelta(days=number)


def parse_moved(value: str) -> datetime.date:
    """Reads a moved date by taking 100 years off, which `parse_date` then knows; whole years of
    the Gregorian calendar's 400 are not needed for differences within one era."""
    digits = "".join(c if c.isdigit() else "-" for c in value)
    if "-" not in digits:
        digits = f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"
    assert parse_date(digits) is None  # a moved date is not taken for a real one
    return datetime.date(*(int(part) for part in digits.split("-")))
