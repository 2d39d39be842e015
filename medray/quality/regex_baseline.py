"""The baseline that a quality-control model must beat: regular expressions by hand.

In: the text of a record's sections and a sub-task. Out: met, unmet or None (not mentioned).
A rule reads clause by clause; a clause with a word of doubt or denial near the term counts as a
denial. Written as a careful programmer would in an afternoon, from the indicators alone.
Source: not given; issue 2 asks for a regular-expression baseline beside the model's accuracy.
"""

import re
import unicodedata
from collections.abc import Callable

from medray.common.records import Document
from medray.quality.indicators import Indicator

Rule = Callable[[list[str]], bool | None]
CLAUSE = re.compile(r"[。；;！!？?\n]")
DENIAL = re.compile(r"(?:无|未见|未及|未行|未做|否认|排除|除外|并非|不是|不符合|没有|拒绝)")
PERCENT = re.compile(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?%")
TIMI = re.compile(r"TIMI[^\d0IVⅠⅡⅢ]{0,12}?([0-3]|III|II|I|Ⅲ|Ⅱ|Ⅰ)(?![\d/])", re.IGNORECASE)
GRADES = {"III": "3", "II": "2", "I": "1", "Ⅲ": "3", "Ⅱ": "2", "Ⅰ": "1"}


def predict(indicator: Indicator, task: str, document: Document) -> bool | None:
    """The baseline's verdict on a sub-task.

    Raises:
        KeyError: if there is no rule for it; see `covers`.
    """
    wanted = indicator.sections(task)
    text = "\n".join(
        section.text for section in document.sections if wanted is None or section.heading in wanted
    )
    clauses = [c for c in CLAUSE.split(unicodedata.normalize("NFKC", text)) if c.strip()]
    return RULES[indicator.id][task](clauses)


def covers(indicator: Indicator) -> bool:
    """True if every sub-task of the indicator has a rule."""
    return set(indicator.tasks) <= set(RULES.get(indicator.id, {}))


def mention(term: str, denial: str = "") -> Rule:
    """Met if a clause holds `term` undenied, unmet if it is only denied."""
    found = re.compile(term)
    # A denial governs the terms up to the next comma.
    denied = re.compile(rf"{DENIAL.pattern}[^,，]{{0,12}}?(?:{term})" + (denial and f"|{denial}"))

    def rule(clauses: list[str]) -> bool | None:
        verdict: bool | None = None
        for clause in clauses:
            if denied.search(clause):
                verdict = False if verdict is None else verdict
            elif found.search(clause):
                return True
        return verdict

    return rule


def residual(below: float, *, only: str, never: str = "") -> Rule:
    """Residual stenosis under `below` per cent after the procedure `only` (last value counts)."""
    procedure, other = re.compile(only), re.compile(never) if never else None

    def rule(clauses: list[str]) -> bool | None:
        text = "。".join(clauses)
        if not procedure.search(text) or (other and other.search(text)):
            return None
        verdict = None
        for clause in clauses:
            for part in re.split(r"[,，]", clause):
                if "残余" not in part and "残留" not in part:
                    continue
                if re.search(r"无(?:明显)?残[余留]狭窄", part):
                    verdict = True
                elif numbers := PERCENT.findall(part[re.search("残[余留]", part).start() :]):  # type: ignore[union-attr]
                    verdict = max(float(n) for pair in numbers for n in pair if n) < below or (
                        f"<{below:g}%" in part
                    )
        return verdict

    return rule


def timi(clauses: list[str]) -> bool | None:
    """TIMI flow grade 3 at the end of the procedure: the last grade written counts."""
    grades = [GRADES.get(g.upper(), g) for clause in clauses for g in TIMI.findall(clause)]
    return grades[-1] == "3" if grades else None


STENT = r"(?:植入|置入|释放|安放)[^。]{0,20}支架|支架[^。]{0,12}(?:植入|置入|释放|术)"
RULES: dict[str, dict[str, Rule]] = {
    "pci-angio-success": {
        "PCI": mention(r"PCI|介入治疗|支架(?:植入|置入)|PTCA|球囊(?:扩张|成形)"),
        "T1": residual(20, only=STENT),
        "T2": residual(50, only=r"PTCA|球囊(?:扩张|成形)", never=STENT),
        "T3": timi,
    },
    "af-risk-assessed": {
        "AF": mention(r"心房颤动|房颤"),
        "VALVULAR": mention(
            r"二尖瓣(?:中度|重度|中重度)?狭窄|机械瓣|瓣膜置换|瓣膜性(?:心房颤动|房颤|心脏病)",
            denial=r"非瓣膜性",
        ),
        "T1": mention(r"CHA2DS2|CHADS2|(?:血栓)?栓塞风险(?:评估|评分)|卒中风险评(?:估|分)"),
    },
    "lung-cancer-margin-negative": {
        "CANCER": mention(r"肺(?:腺|鳞|鳞状细胞|小细胞)?癌|肺恶性肿瘤"),
        "RESECTION": mention(r"(?:肺|肺?[上中下]叶|肺叶|肺段|全肺|楔形|袖式)切除"),
        "T1": mention(
            r"切缘[^,，]{0,8}(?:阴性|未见|\(-\)|无癌|干净|无肿瘤)",
            denial=r"切缘(?![^,，]{0,8}(?:未见|无))[^,，]{0,8}(?:阳性|可见|见癌|\(\+\)|累及)",
        ),
    },
}
