"""Operation notes of ordinary records. In: the procedure. Out: text of 手术记录."""

from typing import Literal

from medray.sample.text import TextBuilder

VESSELS = ("前降支", "回旋支", "右冠状动脉")
STENTS = ("植入药物洗脱支架{n}枚", "置入支架{n}枚", "释放药物支架{n}枚")
FLOWS = ("TIMI血流3级", "前向血流TIMI Ⅲ级", "TIMI III级血流")
LOBES = ("右肺上叶", "右肺下叶", "左肺上叶", "左肺下叶", "右肺中叶")
MARGINS = ("支气管切缘阴性", "支气管切缘未见癌累及", "切缘快速病理回报阴性")


def write_operation(b: TextBuilder, procedure: Literal["pci", "lung"] | None) -> None:
    """Writes the note of a coronary intervention or a lung resection."""
    if procedure == "pci":
        _intervention(b)
    elif procedure == "lung":
        _resection(b)


def _intervention(b: TextBuilder) -> None:
    choice = b.sampler.choice
    before, after = choice((75, 80, 85, 90, 95)), choice((0, 5, 10, 15))
    b.exact(f"造影示{choice(VESSELS)}狭窄{before}%。")
    b.exact(f"{choice(STENTS).format(n=choice((1, 2)))}，")
    b.exact(f"术后残余狭窄{after}%，{choice(FLOWS)}。")


def _resection(b: TextBuilder) -> None:
    choice = b.sampler.choice
    b.exact(f"{choice(('胸腔镜下', '开胸'))}行{choice(LOBES)}切除加淋巴结清扫。")
    b.exact(f"{choice(MARGINS)}，出血约{choice((50, 80, 100, 150, 200))}ml。")
