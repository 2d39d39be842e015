"""What a consultation says, in Chinese and English: the model's orders and the service's own texts.

The prompts tell the model how a question is asked and how bad news is broken; what must be said
whatever the model does (urgent care, when to see a doctor, care with a serious finding, who is
speaking) is text of the service.
Source: steps of [MedFM table 3]; care with bad news, chosen after SPIKES (Baile 2000): ask what
the patient wants to know, plain words, room for feelings, a next step.
"""

import re
from typing import Literal

from medray.serving.answering.guard import HAN

Language = Literal["zh", "en"]

QUESTION_PROMPT: dict[Language, str] = {
    "zh": (
        "你是医院的问诊助手，正在与患者交谈。请根据患者的叙述，每次只提一个诊断性问题，"
        "例如症状的部位、性质、程度、持续时间、伴随症状、既往病史、用药、过敏和生活习惯。"
        "不重复已经问过的，用平实的话，语气平和体贴，不下诊断，不给剂量。信息足够时只回复："
        "信息足够。"
    ),
    "en": (
        "You take a patient's history for a hospital. Ask one diagnostic question at a time: "
        "where, "
        "how, how bad, since when, what goes with it, past illness, medicines, allergies, habits. "
        "Do "
        "not repeat a question; use plain, kind words; give no diagnosis and no dose. When you "
        "know "
        "enough, reply only: I know enough."
    ),
}
JUDGEMENT_PROMPT: dict[Language, str] = {
    "zh": (
        "你是医院的问诊助手。请根据以上问诊给出初步判断：按可能性列出考虑的诊断和各自的依据，"
        "需要鉴别的疾病，"
        "建议做的检查和处理。说明不确定之处，不给剂量。若可能是严重的疾病，用平实、"
        "体贴的话告诉患者："
        "不隐瞒，也不断言，先说还需要哪些检查才能确定，再说可以怎么办、有谁能帮助。"
    ),
    "en": (
        "You advise a patient for a hospital. From this history, give a first judgement: the "
        "likely "
        "diagnoses in order with what speaks for each, what else to rule out, tests and care to "
        "consider. Say what is uncertain; give no dose. If it may be serious, tell it in plain and "
        "kind words: hide nothing and claim nothing, say first which tests would settle it, then "
        "what can be done and who can help. Answer in English."
    ),
}
JUDGE_NOW: dict[Language, str] = {
    "zh": "请给出诊断和处理意见。",
    "en": "Please give your judgement and advice.",
}
EVIDENCE_QUESTION: dict[Language, str] = {
    "zh": "{finding}如何治疗？",
    "en": "How is it treated: {finding}?",
}
STANDARD_QUESTIONS: dict[Language, tuple[str, ...]] = {
    "zh": (
        "这种情况持续多久了，有没有在加重，除此之外还有哪些不舒服？",
        "以前有过什么疾病，现在用什么药，对什么过敏？",
        "为这次的不舒服做过哪些检查，结果如何？",
    ),
    "en": (
        "How long has this been going on, is it getting worse, and what else do you notice?",
        "What illnesses have you had, which medicines do you take, are you allergic to anything?",
        "Which tests have been done for this, and what did they show?",
    ),
}
"""Asked in this order by the service where the model asks nothing before the least number."""

# Parts of the judgement that the service writes itself.
OPENING: dict[Language, str] = {
    "zh": "谢谢您耐心地回答。\n\n【初步判断】由模型根据您的叙述推断，尚未经医生核对：\n",
    "en": (
        "Thank you for your answers.\n\n[First judgement] Drawn by the model from what you told, "
        "not "
        "yet checked by a doctor:\n"
    ),
}
NO_FINDING: dict[Language, str] = {
    "zh": "模型没有得出判断，请直接咨询医生。",
    "en": "The model came to no judgement; please ask a doctor.",
}
EVIDENCE: dict[Language, str] = {
    "zh": "\n\n【资料依据】\n",
    "en": "\n\n[From the sources]\n",
}
CARE: dict[Language, str] = {
    "zh": (
        "\n\n看到上面的内容，您可能会担心，这很自然。它们只是需要检查来确认或排除的可能，"
        "不等于您得了这个病。"
        "您不必独自面对：可以请家人陪您就诊，把想问的写下来，慢慢问医生。"
    ),
    "en": (
        "\n\nReading this may worry you, and that is natural. These are possibilities that tests "
        "will "
        "confirm or rule out; they do not mean that you have the illness. You need not face it "
        "alone: take somebody along, write down what you want to ask, and ask it in your own time."
    ),
}
WHEN_TO_GO: dict[Language, str] = {
    "zh": (
        "\n\n【何时就医】以上不是诊断，请带着它去看医生，用药和检查由医生决定。症状加重、"
        "持续不缓解或出现新的不适，"
        "请当天就诊。出现胸痛伴出汗、呼吸困难、说话不清、一侧手脚无力、意识不清、大量出血，"
        "请立即拨打120。"
    ),
    "en": (
        "\n\n[When to see a doctor] This is no diagnosis: take it to a doctor, who decides on "
        "tests and "
        "medicines. If it gets worse, does not get better, or something new appears, see one the "
        "same day. With chest pain and sweating, trouble breathing, slurred speech, a weak arm or "
        "leg, clouded consciousness or heavy bleeding, call the emergency number at once."
    ),
}
SERIOUS = re.compile(
    r"癌|肿瘤|恶性|白血病|淋巴瘤|肉瘤|转移|艾滋|渐冻|心肌梗|尿毒症|肝硬化|痴呆|帕金森|先天"
    r"|\b(?:cancer|carcinoma|tumou?r|malignan\w+|leuka?emia|lymphoma|sarcoma|metasta\w+|HIV|ALS"
    r"|infarct\w*|cirrhosis|dementia|parkinson\w*)\b",
    re.IGNORECASE,
)
"""Findings after which CARE is said."""

# What the service says between the turns.
TAKEN_OVER: dict[Language, str] = {
    "zh": "一位医生已加入，接下来由医生与您交谈，模型不再回答。",
    "en": "A clinician has joined and talks with you from here; the model no longer answers.",
}
HANDED_BACK: dict[Language, str] = {
    "zh": "医生已离开，问诊由模型继续。请接着说您的情况。",
    "en": "The clinician has left and the model goes on. Please go on telling how you are.",
}


def language_of(text: str) -> Language:
    """The language that a patient writes in."""
    return "zh" if HAN.search(text) else "en"
