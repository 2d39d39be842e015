"""The regular expressions on clauses as they are written in practice."""

import pytest

from medray.quality.indicators import load_indicators
from medray.quality.regex_baseline import covers, predict

SHIPPED = load_indicators()


def test_every_shipped_indicator_has_rules() -> None:
    assert all(covers(indicator) for indicator in SHIPPED.values())


@pytest.mark.parametrize(
    ("indicator", "task", "text", "verdict"),
    [
        ("pci-angio-success", "PCI", "行冠脉介入治疗，于前降支植入支架。", True),
        ("pci-angio-success", "PCI", "仅行冠状动脉造影，未行介入治疗。", False),
        ("pci-angio-success", "T1", "植入支架1枚，残余狭窄10%。", True),
        ("pci-angio-success", "T1", "植入支架1枚，残余狭窄约30%。", False),
        ("pci-angio-success", "T1", "球囊扩张后残余狭窄30%。", None),
        ("pci-angio-success", "T2", "单纯PTCA，残余狭窄＜30%。", True),
        ("pci-angio-success", "T2", "单纯PTCA，残余狭窄60%。", False),
        ("pci-angio-success", "T3", "术前TIMI 1级，术后TIMI血流Ⅲ级。", True),
        ("pci-angio-success", "T3", "术后前向血流TIMI2级。", False),
        ("pci-angio-success", "T3", "手术顺利。", None),
        ("af-risk-assessed", "AF", "心电图示心房颤动。", True),
        ("af-risk-assessed", "AF", "否认房颤病史。", False),
        ("af-risk-assessed", "VALVULAR", "超声示二尖瓣重度狭窄。", True),
        ("af-risk-assessed", "VALVULAR", "诊断：非瓣膜性心房颤动。", False),
        ("af-risk-assessed", "T1", "CHA2DS2-VASc评分3分。", True),
        ("lung-cancer-margin-negative", "T1", "支气管切缘未见癌累及。", True),
        ("lung-cancer-margin-negative", "RESECTION", "胸腔镜下行右肺上叶切除。", True),
        ("lung-cancer-margin-negative", "T1", "支气管切缘可见癌细胞。", False),
    ],
)
def test_rules(record, indicator, task, text, verdict) -> None:
    heading = "手术记录" if indicator == "pci-angio-success" else "现病史"
    assert predict(SHIPPED[indicator], task, record(**{heading: text})) is verdict
