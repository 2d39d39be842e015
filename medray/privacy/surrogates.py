"""Surrogates for PHI: the same patient gets the same ones everywhere, from a keyed hash.

In: a class and a value. Out: a replacement that a recogniser knows for one, so that what is
de-identified already stays as it is. Without the key nobody can go back or test a guess.
Source: EVALUATION.md 4. Dates move two centuries on, by one offset a patient, as MIMIC-III does:
intervals survive, and a moved date cannot be taken for a real one.
"""

import base64
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from medray.common.config import Config
from medray.common.errors import ConfigError
from medray.privacy.ages import coarse_age
from medray.privacy.dates import shift_date
from medray.privacy.lexicon import SURNAMES
from medray.privacy.recognise import BRANCHES, STEMS, PhiClass

MIN_KEY_BYTES = 16
BASE_OFFSET_DAYS = 73_049  # 200 years: every date from 1900 on gets a year from 2100 on
SPREAD_DAYS = 3_652  # 10 years, the range of the patients' offsets
CODES = {"ID": "ID", "PHONE": "TEL", "EMAIL": "MAIL", "MRN": "MRN", "URL": "URL"}
MASKS = {"NAME": "Name", "DOCTOR": "Doctor", "HOSPITAL": "Hospital", "ADDRESS": "Location"}


class KeyConfig(Config):
    """Where a secret key lies; the key itself stands in no configuration."""

    key_env: str = "MEDRAY_SURROGATE_KEY_FILE"
    """Environment variable that names the key file; goes before `key_file`."""
    key_file: str = ""
    """Key file outside the corpus. Empty: made once below `keys/` in the storage root, readable by
    its owner only."""


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
            f"key file {path} cannot be read ({error.strerror}); "
            f"mend key_file in the profile or {config.key_env}"
        ) from None
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError(
            f"key file {path} holds {len(key)} bytes, at least {MIN_KEY_BYTES} are needed"
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

    def replace(
        self, label: PhiClass, value: str, patient_id: str, visit_date: str = "", before: str = ""
    ) -> str:
        """The surrogate of `value`; for dates see `shift_date`. In English notes names and places
        become masks in the manner of MIMIC's, `[**Name K7QX**]`."""
        if label == "DATE":
            return shift_date(value, self.offset_days(patient_id), visit_date, before)
        if label == "AGE":
            return coarse_age(value)
        # 李 伟 is 李伟, and 138-0013-8000 is 13800138000.
        value = value if value.isascii() and label not in CODES else re.sub(r"[\s-]", "", value)
        if label in CODES:
            digest = self._digest(label, patient_id, value)
            # Four characters: a model that trains on the text has the less to learn by heart.
            return f"{CODES[label]}-{base64.b32encode(digest)[:4].decode()}"
        # Doctors and places are shared between patients, people around a patient are not.
        owner = patient_id if label == "NAME" else ""
        if value.isascii():
            digest = self._digest(label, owner, value)
            return f"[**{MASKS[label]} {base64.b32encode(digest)[:4].decode()}**]"
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
