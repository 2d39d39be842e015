"""Reading the principal diagnosis out of answers as models write them."""

import pytest

from medray.evaluation.lexicon import SHIPPED, Lexicon, codes_in, read_aliases

LEXICON = Lexicon(
    ["肺炎", "支原体肺炎", "慢性阻塞性肺疾病", "心房颤动"],
    {"慢性阻塞性肺疾病": ["慢阻肺", "COPD"], "房颤": ["心房颤动"], "胃炎": ["慢性胃炎"]},
    {"J18.9": "肺炎", "I48": "心房颤动"},
)


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("肺炎", "肺炎"),
        ("支原体肺炎（J15.7）。", "支原体肺炎"),  # the longest name wins
        ("诊断考虑为copd急性加重，不排除肺炎", "慢性阻塞性肺疾病"),
        ("患者最可能的诊断是房颤。", "心房颤动"),
        ("不支持肺炎，考虑慢阻肺", "慢性阻塞性肺疾病"),
        ("排除肺炎", None),
        ("Ｊ１８．９", "肺炎"),  # full width
        ("J18.91", None),
        ("慢性胃炎", None),  # no known answer of this data
        ("", None),
    ],
)
def test_principal_diagnosis(answer: str, name: str | None) -> None:
    assert LEXICON.principal(answer) == name


def test_codes_of_a_diagnosis_section() -> None:
    text = "1. 社区获得性肺炎（J18.9）；2. 高血压病(I10)。"
    assert codes_in(text) == {"J18.9": "社区获得性肺炎", "I10": "高血压病"}


def test_two_answers_of_one_alias_group_stay_apart() -> None:
    lexicon = Lexicon(["高血压", "高血压病"], {"高血压病": ["高血压"]})
    assert lexicon.canonical("高血压") == "高血压"
    assert lexicon.canonical("高血压病") == "高血压病"


def test_shipped_aliases_name_no_disease_twice() -> None:
    aliases = read_aliases(SHIPPED)
    names = [name for key, others in aliases.items() for name in (key, *others)]
    assert len(names) == len(set(names))
