"""Identifiers in the free text of task files. In: raw text. Out: text with tags in their place.

Tags, not the surrogates of the records: a question on the web has no patient number to keep
surrogates consistent for, and so no key is needed here.
"""

from collections import Counter

from medray.privacy.ages import coarse_age
from medray.privacy.recognise import PhiClass, find_phi

# An age over 89 has no tag: it becomes 90岁以上.
TAGS: dict[PhiClass, str] = {
    "NAME": "[姓名]",
    "DOCTOR": "[医师]",
    "ID": "[证件号]",
    "PHONE": "[电话]",
    "EMAIL": "[邮箱]",
    "MRN": "[病历号]",
    "ADDRESS": "[地址]",
    "HOSPITAL": "[医院]",
    "DATE": "[日期]",
    "URL": "[网址]",
}


class Masker:
    """A `Mask` that counts what it masked, by class."""

    def __init__(self) -> None:
        self.masked: Counter[PhiClass] = Counter()

    def __call__(self, text: str) -> str:
        """Returns `text` with every identifier that is recognised replaced by its class's tag."""
        pieces, at = [], 0
        for start, end, label in find_phi(text):
            value = text[start:end]
            tag = coarse_age(value) if label == "AGE" else TAGS[label]
            if value != tag:
                pieces += [text[at:start], tag]
                at = end
                self.masked[label] += 1
        return "".join([*pieces, text[at:]])
