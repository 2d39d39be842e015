"""What is said at once where a patient's words hold a sign of an emergency, in both languages.

Source: what emergency services tell callers until help comes; compressions as in resuscitation
guidelines.
"""

from medray.serving.consult.signs import Sign
from medray.serving.consult.words import Language

URGENT: dict[Sign, dict[Language, str]] = {
    "self_harm": {
        "zh": (
            "谢谢您愿意说出来，您的感受很重要，请不要独自面对。请现在就告诉身边的人，请他陪着您，"
            "拨打120，"
            "或拨打全国统一心理援助热线12356，也可以到最近的医院急诊。"
            "把可能伤到自己的东西放到拿不到的地方。"
        ),
        "en": (
            "Thank you for saying it. How you feel matters; please do not stay alone with it. Tell "
            "someone near you now and ask them to stay, call the emergency number or a crisis "
            "line, "
            "or go to the nearest emergency department. Put out of reach what could hurt you."
        ),
    },
    "chest_pain": {
        "zh": "您说的情况可能是心脏急症。请立即拨打120，停下一切活动，坐下或半躺，"
        "不要自己开车去医院。",
        "en": (
            "This may be an emergency of the heart. Call the emergency number now, stop all "
            "activity, "
            "sit or lie half upright, and do not drive yourself."
        ),
    },
    "stroke": {
        "zh": (
            "您说的情况可能是中风，越早救治越好。请立即拨打120，记下开始的时间，侧卧休息，"
            "不要吃东西、喝水或自行服药。"
        ),
        "en": (
            "This may be a stroke, and every minute counts. Call the emergency number now, note "
            "when "
            "it began, lie on your side, and take no food, drink or medicine."
        ),
    },
    "anaphylaxis": {
        "zh": (
            "您说的情况可能是严重过敏，会很快加重。请立即拨打120，离开可能的过敏原，"
            "平卧抬腿，喘不上气时坐起；如有医生开的肾上腺素笔，请马上使用。"
        ),
        "en": (
            "This may be a severe allergic reaction, which can get worse fast. Call the emergency "
            "number now, keep away from what may have caused it, lie down with your legs raised, "
            "or "
            "sit up if breathing is hard; use your adrenaline pen at once if you were given one."
        ),
    },
    "bleeding": {
        "zh": (
            "您说的情况可能是大出血。请立即拨打120；伤口出血请用干净的布用力持续按压；"
            "吐血或咯血请侧卧，不要吃东西、喝水。"
        ),
        "en": (
            "This may be heavy bleeding. Call the emergency number now; press firmly and without "
            "pause on a wound with a clean cloth; if you vomit or cough up blood, lie on your side "
            "and take no food or drink."
        ),
    },
    "breathing": {
        "zh": "呼吸困难可能很快加重。请立即拨打120，坐直，松开领口和腰带，不要独自一人。",
        "en": (
            "Trouble breathing can get worse fast. Call the emergency number now, sit upright, "
            "loosen "
            "tight clothes, and do not stay alone."
        ),
    },
    "consciousness": {
        "zh": (
            "意识不清、晕倒或抽搐需要马上救治。请立即拨打120，让病人侧卧，移开周围的硬物，"
            "不要往嘴里塞东西，也不要喂水；没有呼吸时开始心肺复苏。"
        ),
        "en": (
            "Clouded consciousness, fainting or a seizure needs help at once. Call the emergency "
            "number now, turn the person on the side, move hard things away, put nothing into the "
            "mouth; if there is no breathing, begin resuscitation."
        ),
    },
    "poisoning": {
        "zh": "这可能是中毒。请立即拨打120，带上药瓶或包装，不要催吐；煤气中毒请先到通风处。",
        "en": (
            "This may be poisoning. Call the emergency number now, take the bottle or package "
            "along, "
            "do not force vomiting; with gas, get into fresh air first."
        ),
    },
    "arrest": {
        "zh": (
            "没有呼吸或心跳时，每一分钟都很重要。请立即拨打120并打开免提，马上开始胸外按压："
            "在胸部正中，每分钟100到120次，按下5到6厘米，直到有人接替；附近如有AED，请人取来使用。"
        ),
        "en": (
            "Without breath or heartbeat every minute counts. Call the emergency number now, on "
            "speaker, and begin chest compressions at once: in the middle of the chest, two "
            "a second, 5 to 6 cm deep, until somebody takes over; have a defibrillator brought."
        ),
    },
    "injury": {
        "zh": (
            "请立即拨打120。先确认周围安全：触电请先切断电源，溺水和火场请先离开危险处；"
            "不要随意搬动伤者的头颈，出血处用干净的布用力按压，烧伤用流动的凉水冲洗，"
            "蛇咬伤请保持不动、伤肢放低。"
        ),
        "en": (
            "Call the emergency number now. Make sure that the place is safe: switch the current "
            "off, leave water or fire. Do not move head or neck; press on what bleeds with a clean "
            "cloth; cool burns under running water; after a snake bite keep still, the limb low."
        ),
    },
    "abdomen": {
        "zh": (
            "突然的剧烈腹痛或撕裂样疼痛可能是内脏或大血管的急症。请立即拨打120或去急诊，"
            "不要吃东西、喝水，先不要吃止痛药，不要自己开车。"
        ),
        "en": (
            "Sudden severe or tearing pain may come from an organ or a large vessel. Call the "
            "emergency number or go to an emergency department now; take no food, drink or "
            "painkiller, and do not drive yourself."
        ),
    },
    "pregnancy": {
        "zh": "孕期的这种情况需要马上检查。请立即到最近的产科急诊或拨打120，路上请躺着，有人陪同。",
        "en": (
            "In pregnancy this has to be looked at without delay. Go to the nearest obstetric "
            "emergency department or call the emergency number now; lie down, and have somebody "
            "with you."
        ),
    },
}
URGENT_END: dict[Language, str] = {
    "zh": "\n问诊到此为止，模型不再提问；如有医生在线，会在这里联系您，但请不要等待。",
    "en": (
        "\nThe consultation stops here and the model asks no more. A clinician who is online may "
        "write to you here, but do not wait for it."
    ),
}

STILL_URGENT: dict[Language, str] = {
    "zh": "请先按上面说的做：立即拨打120或去急诊。模型不再提问；您写的内容，接诊的医生可以看到。",
    "en": (
        "Please do first what is said above: call the emergency number or go to an emergency "
        "department. The model asks no more; a clinician who joins sees what you write."
    ),
}
"""To what a patient writes afterwards."""


def what_to_do(sign: Sign, language: Language) -> str:
    """What is said at once when a sign of an emergency was found."""
    return URGENT[sign][language] + URGENT_END[language]
