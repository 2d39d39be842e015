"""Signs of an emergency in what patients write, and the same words denied."""

import pytest
from cries import CRIES

from medray.serving.consult import urgent, words
from medray.serving.consult.negation import denied
from medray.serving.consult.red_flags import red_flag
from medray.serving.consult.signs import SIGNS

SAID = {
    "self_harm": [
        "我不想活了", "活着没有意义", "最近总想自杀", "我想死", "没人在乎我，活不下去",
        "我无时无刻不想自杀", "我没有一天不想自杀", "我没办法不想自杀", "我不是不想自杀",
        "我不可能不想自杀", "我忍不住不去想自杀", "我没有哪一天是不想自杀的",
        "I am never not suicidal",
        "there is no moment I am not suicidal", "I can't stop thinking about suicide",
        "Not a day goes by that I don't want to die",
        "I want to die", "I have been thinking about suicide", "I don't want to live",
        "they would be better off dead without me", "I keep thinking about killing myself",
    ],
    "chest_pain": [
        "胸痛，出了一身冷汗", "胸口疼，感觉要死了",
        "胸口闷得厉害，左胳膊也疼", "压榨样胸痛两小时", "胸痛没有缓解，大汗",
        "没有发烧，胸痛，出汗很多", "没有发烧 胸痛 出大汗", "从没有这么厉害的胸痛，还出冷汗",
        "睡不着觉胸痛出冷汗", "没吃饭就胸痛大汗", "无发热伴胸痛大汗",
        "我不知道为什么胸痛，冷汗直流",
        "Crushing chest pain since noon", "chest pain and sweating",
        "No fever, chest pain and sweating", "my chest feels tight and I am short of breath",
        "There is no relief from the chest pain and I am sweating",
        "no fever i have chest pain and sweating", "not only chest pain but also sweating",
        "I couldn't sleep because of chest pain, sweating",
        "我是不是心梗了", "心梗了", "突发胸痛", "胸口像压了块石头",
        "I think I am having a heart attack",
        "sudden chest pain",
    ],
    "stroke": [
        "突然左手没力气，说话不清", "嘴角歪了", "右侧肢体麻木半小时", "从来没有过这么剧烈的头痛",
        "去年中风过，今天又说话不清", "以前身体很好今天突然说话不清", "突然看不见了",
        "我好像脑梗了", "我中风了", "手脚突然不能动", "头痛欲裂还呕吐",
        "I think I'm having a stroke", "I can't feel my legs", "My face is drooping",
        "slurred speech since this morning",
        "suddenly my left arm is numb", "The worst headache of my life", "he can’t speak",
    ],
    "anaphylaxis": [
        "吃了花生以后嘴唇肿了", "打针后起疹子，喘不上气", "过敏性休克", "严重过敏",
        "severe allergic reaction",
        "I ate peanuts and my throat is swelling", "hives all over and I can't breathe",
    ],
    "bleeding": [
        "流血止不住", "吐了好多血", "出血不止", "大量便血", "咯血", "vomiting blood",
        "the bleeding won't stop", "I am bleeding heavily", "coughing up a lot of blood",
    ],
    "breathing": [
        "喘不过气来", "呼吸很困难", "喘得厉害说不出话", "嘴唇发紫", "不停地喘，突然呼吸困难",
        "I can't breathe", "He is choking",
    ],
    "consciousness": [
        "孩子抽搐了", "孩子抽筋了", "小孩发烧抽了", "低血糖昏过去了", "休克", "我快不行了",
        "he collapsed", "刚才晕倒了", "叫不醒他", "she had a seizure", "he is unresponsive",
    ],
    "poisoning": [
        "吃了老鼠药", "吃错药了", "吃多了安眠药", "农药中毒", "孩子误吞纽扣电池",
        "I took too many pills", "swallowed a battery", "喝了农药", "我吃了一整瓶安眠药",
        "took an overdose", "My son swallowed bleach",
    ],
    "pregnancy": [
        "怀孕三个月，出血", "I am 20 weeks pregnant and bleeding", "羊水破了", "怀孕了肚子很痛",
        "my water broke",
    ],
    "arrest": [
        "他没有呼吸了", "他上吊了，没有呼吸了",
        "老人心跳停了", "没有脉搏", "孩子停止呼吸了", "he stopped breathing",
        "my baby is not breathing", "no pulse", "there is no heartbeat",
    ],
    "injury": [
        "被车撞了", "孩子从楼上摔下来，头在流血", "刚出了车祸", "触电了", "被高压电打了", "溺水",
        "孩子掉进河里了", "被蛇咬了", "大面积烧伤", "手指被机器绞断了", "he was hit by a car",
        "he fell off a ladder", "electric shock", "snake bite", "she nearly drowned",
    ],
    "abdomen": [
        "突然剧烈腹痛", "肚子像刀割一样疼", "后背撕裂样疼痛", "突然肚子绞痛得厉害",
        "sudden severe abdominal pain", "tearing back pain",
    ],
}  # fmt: skip
NOT_SAID = [
    "没有胸痛", "没有胸痛，没有出汗", "没有胸痛、出汗", "否认胸痛、气促、出汗", "无胸痛及大汗",
    "无发热、胸痛及大汗", "没有明显的胸痛或者气促", "从来没有胸痛过，也不出汗",
    "不觉得胸痛，有出汗",
    "咳嗽三天，没有胸痛和出冷汗", "胸痛：无，出汗：有", "我没有想自杀", "我没想过自杀",
    "没有不想活", "左手没有麻木", "说话没有不清", "嘴角不歪", "没有皮疹，嘴唇没有肿",
    "没有出血不止", "没有吐血",
    "没有大出血", "未见大出血", "呕血（-）", "没有咯血、呕血", "没有喘不过气", "没有抽搐",
    "没有晕倒过",
    "没怀孕，月经出血", "没有心梗", "没有吃错药", "没有被车撞", "no chest pain",
    "denies chest pain", "without chest pain",
    "I have no chest pain, sweating or shortness of breath", "no fever, chest pain or sweating",
    "I don't have chest pain and I am not sweating", "I am not suicidal", "I don’t want to die",
    "My left arm is not weak", "no slurred speech", "never vomited blood", "not bleeding heavily",
    "no nausea, vomiting blood, or cough", "He has not had a seizure",
    "I did not pass out and did not faint", "I am not pregnant, and the bleeding is my period",
]  # fmt: skip
EVERY_DAY = [
    "胸闷、气喘三年，春天重",
    "头痛一个月，没有恶心", "咳嗽、气喘3天了", "胃痛", "运动后出汗", "青霉素过敏", "药物过敏史：无",
    "吃了感冒药，没有好转", "胸部X线双肺纹理增多", "以前身体挺好的", "不敢吃海鲜", "有点头晕",
    "心电图正常", "头疼得要死", "疼得生不如死", "我不想活动", "手上挂上吊瓶后肿了",
    "没有呼吸困难", "没有呼吸道症状", "呼吸音清", "心跳有点快", "小腿抽筋", "晚上睡觉脚抽筋",
    "去年中风了，恢复得不错", "三年前被车撞过，腰一直疼", "小时候掉进河里过", "去年出了车祸",
    "两年前从楼上摔下来，现在腿疼", "五年前心梗了一次",
    "I was hit by a car two years ago", "I was bitten by a snake as a child",
    "过敏性鼻炎伴哮喘8年了", "吃了退烧药还是咳嗽，有点喘", "皮疹一个月，既往有哮喘",
    "过敏性咳嗽，喉咙红肿", "荨麻疹，最近脸部红肿", "没有过敏原，咳喘三天", "在吃药，夜里咳喘",
    "allergic rhinitis and some wheezing in spring",
    "三年前得过脑梗", "有心梗病史，放过支架", "母亲中风过", "胃痛，饭后重", "我吃多了，肚子胀",
    "吃多了要吃消食片吗", "胎儿没有心跳了", "坐车头晕", "孕妇可以坐飞机吗", "肚子有点痛",
    "I had a stroke in 2010", "my father had a heart attack", "I had a car accident ten years ago",
    "breathing is not easy with this cold", "leg cramps", "mild abdominal pain",
    "切割腕横韧带后三个月", "想问问要死亡证明",
    "我父亲有高血压", "I have had a cough for three days", "jaw pain for a week", "my back hurts",
]  # fmt: skip


@pytest.mark.parametrize(
    ("sign", "text"), [(s, text) for s, texts in SAID.items() for text in texts]
)
def test_signs_that_are_said(sign: str, text: str) -> None:
    assert red_flag([text]) == sign
    answer = urgent.what_to_do(sign, words.language_of(text))  # type: ignore[arg-type]
    assert ("120" in answer) == (words.language_of(text) == "zh")


@pytest.mark.parametrize("text", CRIES)
def test_what_a_chat_hears_as_a_cry_for_help_a_consultation_does_too(text: str) -> None:
    assert red_flag([text]) == "self_harm"


@pytest.mark.parametrize("text", NOT_SAID)
def test_signs_that_are_denied(text: str) -> None:
    assert red_flag([text]) is None


@pytest.mark.parametrize("text", EVERY_DAY)
def test_complaints_of_every_day(text: str) -> None:
    assert red_flag([text]) is None


@pytest.mark.parametrize(
    ("said", "question", "sign"),
    [
        # The two parts in two messages, and only where the newest adds one.
        (["胸痛两小时", "还出了一身冷汗"], "", "chest_pain"),
        (["胸痛，大汗", "好些了"], "", None),
        (["没有胸痛", "出汗多"], "", None),
        # A bare yes is the question's words; a bare no is none of them.
        (["胸痛两小时", "有。"], "有没有出冷汗？", "chest_pain"),
        (["胸痛两小时", "没有"], "有没有出冷汗？", None),
        (["I have chest pain", "Yes"], "Are you sweating?", "chest_pain"),
        (["I have chest pain", "no"], "Are you sweating?", None),
    ],
)
def test_signs_over_several_messages(said: list[str], question: str, sign: str | None) -> None:
    assert red_flag(said, question) == sign


def test_every_sign_has_its_texts_in_both_languages() -> None:
    assert {sign for sign, _ in SIGNS} == set(urgent.URGENT) == set(SAID)
    for texts in urgent.URGENT.values():
        assert "120" in texts["zh"]
        assert "emergency" in texts["en"]


@pytest.mark.parametrize(("before", "expected"), [
    # Twenty words that can each be read as one or as two, and what makes the whole be read again.
    ("没" + "真的" * 20 + "疼", False), ("没" + "有过" * 20 + "疼", False),
    ("没" + "伴有" * 20 + "疼", False), ("没" + "真的" * 20, True),
    # So can links of a list be the end of what is listed.
    ("没有" + "也无" * 30 + "疼" * 9, False), ("没有" + "甲以及" * 20, True),
    ("无甲或者、", True), ("没有感觉到、", True),
])  # fmt: skip
def test_a_denial_is_read_once_however_often_it_can_be_read(before: str, expected: bool) -> None:
    """Two to the power of twenty readings are not tried."""
    text = before + "胸痛"
    for _ in range(300):
        assert denied(text, len(before), len(text)) is expected


def test_long_messages_are_read_in_one_pass() -> None:
    assert red_flag(["paralys" * 30_000]) is None
    assert red_flag(["no chest pain " * 5_000]) is None
    assert red_flag(["没有胸痛" + " " * 200_000]) is None
