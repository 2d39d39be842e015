"""Dictionaries in real formats with invented concepts and numbers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from medray.corpus.terms.dictionaries import Dictionary
from medray.corpus.terms.vocabulary import Vocabulary, build_vocabulary

# CUI|LAT|TS|LUI|STT|SUI|ISPREF|AUI|SAUI|SCUI|SDUI|SAB|TTY|CODE|STR|SRL|SUPPRESS|CVF|
MRCONSO = """\
C9000001|ENG|S|L1|PF|S1|Y|A1||M1|D1|MSH|MH|D1|Lung Inflammation|0|N|256|
C9000001|ENG|P|L2|VO|S2|Y|A2||M1|D1|MSH|PM|D1|pneumonia, NOS|0|N||
C9000001|ENG|P|L2|PF|S3|N|A3||M1|D1|MSH|PM|D1|Pneumonia NOS|0|N||
C9000001|ENG|P|L2|PF|S3|Y|A4||M1|D1|MSH|PM|D1|Pneumonia|0|N||
C9000001|ENG|S|L3|PF|S4|Y|A5||M1|D1|MSH|PM|D1|Old lung fever|0|O||
C9000001|CHI|P|L4|PF|S5|Y|A6||M1|D1|MDRCHI|PT|1|肺炎|0|N||
C9000001|FRE|P|L5|PF|S6|Y|A7||M1|D1|MSHFRE|MH|D1|Pneumonie|0|N||
C9000002|ENG|P|L6|PF|S7|Y|A8||M2|D2|SNOMEDCT_US|PT|2|Cold|9|N||
C9000003|ENG|P|L7|PF|S8|Y|A9||M3|D3|SNOMEDCT_US|PT|3|cold|9|N||
"""


@pytest.fixture
def mrconso() -> str:
    return MRCONSO


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Vocabulary]:
    """Builds a vocabulary from lists of (concept, preferred, term), one a dictionary."""

    def build(
        *lists: list[tuple[str, str, str]], min_latin_chars: int = 4, **settings
    ) -> Vocabulary:
        dictionaries = []
        for number, rows in enumerate(lists):
            path = tmp_path / f"{number}.tsv"
            lines = ["concept\tpreferred\tterm", *map("\t".join, rows)]
            path.write_text("\n".join(lines), encoding="utf-8")
            dictionaries.append(
                Dictionary(name=f"d{number}", path=path.name, format="terms", **settings)
            )
        return build_vocabulary(
            dictionaries, tmp_path, min_chars=2, min_latin_chars=min_latin_chars
        )

    return build
