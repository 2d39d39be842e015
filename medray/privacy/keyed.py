"""Values with their keys, as exports hold them. In: text. Out: spans of the values whose key names
an identifier.

    {"patName": "张某某", "bedNo": "12"}     <auditor>张某某</auditor>     psn_name=张某某

Such pieces come into notes by copying from another system or from a message. Source: not given; the
keys are those of HL7, FHIR and Chinese hospital interfaces.
"""

import re
from collections.abc import Iterator
from typing import Literal

KeyedClass = Literal["NAME", "DOCTOR", "PHONE", "MRN", "ID", "ADDRESS", "HOSPITAL"]

_VALUES = (
    re.compile(r"\"(?P<key>[A-Za-z_.-]{2,30})\"\s{0,2}:\s{0,2}\"(?P<value>[^\"\n]{1,60})\""),
    re.compile(r"<(?P<key>[A-Za-z_.:-]{2,30})(?: [^<>\n]{0,80})?>(?P<value>[^<>\n]{1,60})</"),
    re.compile(
        r"(?<![A-Za-z_?&])(?P<key>[A-Za-z_]{2,30})=[\"']?(?P<value>[^=\"';&,|<>，。；：\s][^=\"';&,|<>，。；：\n]{0,40}?)"
        r"(?=[\"';&,|<>，。；：\n]|\s|$)"
    ),
    re.compile(r"(?m)^(?P<key>[A-Za-z_]{2,30})(?:\([^)\n]{0,20}\))?\t(?P<value>[^\t\n]{1,60})$"),
)
# The words of a key → the class of its value. The first that fits counts.
_KEYS: tuple[tuple[re.Pattern[str], KeyedClass], ...] = (
    (re.compile(r"(?:hosp\w*|org\w*|facility|clinic|medins)(?: name)?"), "HOSPITAL"),
    (
        re.compile(
            r"(?:attending|doctor|doc|physician|nurse|provider|surgeon|operator|tester|auditor|"
            r"reviewer|reporter|author|signer|recorder|checker|pharmacist|practitioner)(?: name)?|"
            r"(?:created|signed|entered|ordered|verified) by"
        ),
        "DOCTOR",
    ),
    (
        re.compile(
            r"(?:(?:pat\w*|psn|person|full|first|last|given|family|contact|guardian|mother|father|"
            r"spouse|child|baby|real|legal|insured|member|relative|applicant|owner|holder) )*name|"
            r"(?:emergency )?contact|guardian|next of kin|nok|relative"
        ),
        "NAME",
    ),
    (re.compile(r"(?:.* )?(?:tel|phone|mobile|telecom)(?: no| number)?"), "PHONE"),
    (re.compile(r"(?:.* )?(?:addr|address)|employer|work unit|emp name"), "ADDRESS"),
    (re.compile(r"(?:id card|card|cert|idcard|ssn|passport|insur\w*)(?: no| num| number)?"), "ID"),
    (re.compile(r"(?:.* )?(?:bed|mrn|admission no|inpatient no)(?: no| num| number)?"), "MRN"),
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def find_keyed(text: str) -> Iterator[tuple[int, int, KeyedClass]]:
    """Yields (start, end, class) of every value whose key names an identifier."""
    for pattern in _VALUES:
        for match in pattern.finditer(text):
            label = _class_of(match["key"])
            if label is not None and match["value"].strip():
                yield *match.span("value"), label


def _class_of(key: str) -> KeyedClass | None:
    """The class that a key names: patName and psn_name are names.

    >>> _class_of("psn_name"), _class_of("bedNo"), _class_of("drugName")
    ('NAME', 'MRN', None)
    """
    words = " ".join(_WORD.findall(key.rpartition(":")[2])).lower()
    for pattern, label in _KEYS:
        if pattern.fullmatch(words):
            return label
    return None
