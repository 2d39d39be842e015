"""Surrogates for PHI: the same patient gets the same ones everywhere, from a keyed hash.

In: a class and a value. Out: a replacement that a recogniser knows for one, so that what is
de-identified already stays as it is. Without the key nobody can go back or test a guess.
Source: EVALUATION.md 4. Dates move two centuries on, by one offset a patient, as MIMIC-III does:
intervals survive, and a moved date cannot be taken for a real one.
"""

import base64
import calendar
import datetime
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from medray.common.config import Config
from medray.common.errors import ConfigError
from medray.privacy.names import SURNAMES
from medray.privacy.recognise import BRANCHES, DATE, STEMS, PhiClass

MIN_KEY_BYTES = 16
BASE_OFFSET_DAYS = 73_049  # 200 years: every date from 1900 on gets a year from 2100 on
SPREAD_DAYS = 3_652  # 10 years, the range of the patients' offsets
CODES = {"ID": "ID", "PHONE": "TEL", "EMAIL": "MAIL", "MRN": "MRN"}


class KeyConfig(Config):
    """Where the surrogate key lies; the key itself stands in no configuration."""

    key_env: str = "MEDRAY_SURROGATE_KEY_FILE"
    """Environment variable that names the key file; goes before `key_file`."""
    key_file: str = ""
    """Key file outside the corpus. Empty: made once as `keys/surrogates.key` in the storage root,
    readable by its owner only."""


def load_key(config: KeyConfig, default: Path) -> bytes:
    """Reads the key; makes one at `default` if no file is named.

    Raises:
        ConfigError: if a named file is missing or holds too short a key.
    """
    named = os.environ.get(config.key_env) or config.key_file
    path = Path(named) if named else default
    if not named and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        try:
            os.link(temporary, path)  # unlike a rename, leaves a key alone that came in between
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"surrogate key file {path} cannot be read ({error.strerror}); "
            f"mend privacy.key_file or {config.key_env}"
        ) from None
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError(
            f"surrogate key file {path} holds {len(key)} bytes, at least {MIN_KEY_BYTES} are needed"
        )
    return key


class Surrogates:
    """Replacements under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def key_id(self) -> str:
        """Tells two keys apart without giving either away."""
        return self._digest("key").hex()[:8]

    def patient_id(self, patient_id: str) -> str:
        """The patient's number in the corpus."""
        return "P" + self._digest("patient", patient_id).hex()[:12]

    def offset_days(self, patient_id: str) -> int:
        """By how many days all dates of this patient move."""
        return BASE_OFFSET_DAYS + self._number("offset", patient_id) % SPREAD_DAYS

    def replace(self, label: PhiClass, value: str, patient_id: str, visit_date: str = "") -> str:
        """The surrogate of `value`; a date without a year takes its year from `visit_date`."""
        if label == "DATE":
            return shift_date(value, self.offset_days(patient_id), visit_date)
        if label in CODES:
            digest = self._digest(label, patient_id, value)
            # Four characters: a model that trains on the text has the less to learn by heart.
            return f"{CODES[label]}-{base64.b32encode(digest)[:4].decode()}"
        # Doctors and places are shared between patients, people around a patient are not.
        owner = patient_id if label == "NAME" else ""
        number = self._number("NAME" if label == "DOCTOR" else label, owner, value)
        sign = STEMS[number % 10] + BRANCHES[number // 10 % 12]
        if label == "HOSPITAL":
            return f"某{sign}医院"
        if label == "ADDRESS":
            return f"某{sign}地"
        return f"{SURNAMES[number // 120 % 40]}某{sign}"

    def _digest(self, *parts: str) -> bytes:
        return hmac.new(self._key, "\0".join(parts).encode(), hashlib.sha256).digest()

    def _number(self, *parts: str) -> int:
        return int.from_bytes(self._digest(*parts)[:8], "big")


def shift_date(value: str, offset_days: int, visit_date: str = "") -> str:
    """Moves a date and keeps the way it is written.

    A month moves with its 15th, a year with its 1 July. A date without a year becomes one with a
    year, the last such day up to the visit, so that it is not moved twice; without a visit date
    `[日期]`.
    """
    match = None
    for follows in ("", "月", "年", "日"):  # what the pattern looks ahead for
        match = DATE.match(value + follows)
        if match and match.end() == len(value):
            break
    else:
        return "[日期]"
    assert match is not None
    part = {name: text for name, text in match.groupdict().items() if text is not None}
    if "y" in part:
        moved = _moved(int(part["y"]), int(part["m"]), int(part["d"]), offset_days)
        return (f"{moved.year}{part['s1']}{_like(moved.month, part['m'], part['s1'])}"
                f"{part['s2']}{_like(moved.day, part['d'], part['s1'])}")  # fmt: skip
    if "cy" in part:
        return f"{_moved(int(part['cy']), int(part['cm']), int(part['cd']), offset_days):%Y%m%d}"
    for year, separator, month in (("ky", "ks", "km"), ("hy", "hs", "hm")):
        if year in part:
            moved = _moved(int(part[year]), int(part[month]), 15, offset_days)
            return (
                f"{moved.year}{part[separator]}{_like(moved.month, part[month], part[separator])}"
            )
    if "oy" in part:
        return str(_moved(int(part["oy"]), 7, 1, offset_days).year)
    visit = parse_date(visit_date)
    if visit is None:
        return "[日期]"
    month, day = int(part["nm"]), int(part["nd"])
    year = visit.year if (month, day) <= (visit.month, visit.day) else visit.year - 1
    moved = _moved(year, month, day, offset_days)
    return f"{moved.year}年{moved.month}月{moved.day}"


def parse_date(value: str) -> datetime.date | None:
    """A date written with all three parts, or None."""
    match = re.match(r"((?:19|20)\d{2})[-/.年]?(\d{1,2})[-/.月]?(\d{1,2})", value)
    try:
        return datetime.date(int(match[1]), int(match[2]), int(match[3])) if match else None
    except ValueError:
        return None


def _moved(year: int, month: int, day: int, offset_days: int) -> datetime.date:
    day = min(day, calendar.monthrange(year, month)[1])  # 31 June is a slip of the pen
    return datetime.date(year, month, day) + datetime.timedelta(days=offset_days)


def _like(number: int, pattern: str, separator: str) -> str:
    """Padded with a zero where the original is, or, if it cannot tell, where that is usual."""
    is_padded = pattern[0] == "0" or (len(pattern) == 2 and separator != "年")
    return f"{number:02d}" if is_padded else str(number)
