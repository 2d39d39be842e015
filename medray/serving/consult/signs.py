"""What patients say in an emergency: words in Chinese and English, as data.

One expression a line, of which one is enough. `…` is a gap of a few characters that no denial
stands in: "左手没有麻木" is no sign, nor "my left arm is not weak". `'` may be either apostrophe
or none; {name} stands for a list below. A sign has one part or two, which must both be said.
Source: not given in the method; kinds of emergency that triage guidelines name first.
"""

from typing import Literal

from medray.serving.consult.harms import BLEEDING, INJURY, POISONING, SELF_HARM

Sign = Literal[
    "self_harm", "arrest", "chest_pain", "stroke", "anaphylaxis", "bleeding", "breathing",
    "consciousness", "poisoning", "injury", "abdomen", "pregnancy",
]  # fmt: skip

LISTS = {
    "side": "(?:半身|半边|一侧|单侧|左侧|右侧|左边|右边|左|右)"
    "(?:身体|身子|肢体|上肢|下肢|手脚|胳膊|手臂|手|脚|腿|臂|脸)?",
    "weak": "(?:不能动|动不了|不会动|不听使唤|无力|没力|没劲|使不上劲|麻|抬不起|瘫)",
    "one_side": r"\b(?:one|left|right)\b(?: \w+)? ?\b(?:side|arm|leg|hand|face)\b",
    "is_weak": r"(?:weak|numb|paraly[sz]\w{0,8}|can't move|won't move|cannot move)",
    "cannot": "(?:can't|cannot|unable to)",
    "maybe": "(?:好像|像是|可能|怀疑|是不是|怕是|突然|突发|正在|刚刚?)(?:要|是|得)?了?",
    "sudden": "(?:突然|突发|忽然|一下子)",
    "ache": "(?:剧|绞|刺)?(?:疼|痛)",
}
BREATHLESS = r"""
喘不(?:过|上)来?气
(?:呼吸|气)(?:困难|不上来|急促|很急)
气促
憋气
憋得慌
short(?:ness)? of breath
(?:{cannot}|hard to|trouble|difficulty) breath\w*
"""
FAINT = r"""
晕倒
晕厥
昏倒
快要?晕
眼前发黑
faint\w*
pass(?:ed|ing)? out
light-?headed
black(?:ed|ing) out
"""
ARREST = r"""
(?:没有?|停止?)了?呼吸(?=了|[，。！,.!\s]|$)
(?<!胎儿)(?<!胎)(?<!宝宝)(?:没有?|停止?)了?(?:心跳|脉搏)(?=了|[，。！,.!\s]|$)
(?<!胎儿)(?<!胎)(?<!宝宝)(?:心跳|心脏|呼吸|脉搏)(?:停了|停止了?|骤停|没了|摸不到)
摸不到脉搏
\b(?:stopped|not|isn't|no longer) breathing\b(?! (?:well|right|properly|heavily|easily|hard))
\bno (?:pulse|heartbeat)\b
\b(?:his|her|the) heart (?:has )?stopped\b
\bcardiac arrest\b
"""
HEART_ATTACK = r"""
{maybe}(?:心梗|心肌梗[塞死])
(?:心梗|心肌梗[塞死])了
{sudden}…胸(?:口|部|前区)?{ache}
胸(?:口|前|部)?…(?:石头|大石|千斤|撕裂|刀割)
\bhaving a heart attack\b
\bsudden(?:ly)?\b…\bchest pain\b
"""
CHEST_PAIN = r"""
胸(?:口|前|部|骨后|前区)?(?:剧|闷|压榨|绞|隐|刺)?(?:疼|痛)
胸(?:口|部|前区)?(?:发|很|好)?(?:闷|憋|压)
心(?:口|前区|脏)?绞?(?:疼|痛)
压榨
\bchest\b…\b(?:pain|pressure|tight\w*|ache|aching|hurts?|crushing|heavy)
\b(?:pain|pressure|tightness|ache|heaviness) (?:in|on|across) (?:my |the |his |her )?chest
"""
WITH_CHEST_PAIN = rf"""
大汗
冷汗
(?:出|冒|流|一身|满头)汗
放射
下颌
濒死
要死了
快死了
压榨
左(?:臂|肩|胳膊|手臂|上肢|手)…(?:疼|痛|麻|酸|放射)
后背…(?:疼|痛)
sweat\w*
clammy
radiat\w+
crushing
\b(?:left arm|jaw|back|shoulder)\b
{BREATHLESS}
{FAINT}
"""
STROKE = r"""
(?:口角|嘴角|嘴巴?|面部|脸)…(?:歪|斜)
歪嘴
口眼歪斜
偏瘫
半身不遂
{side}…{weak}
(?:言语|口齿|吐字|说话|讲话)…(?:不清|含糊|不利索|困难)
(?:说|讲)不出话
失语
{sudden}…(?:看不见|失明|看不清)
(?:手脚?|脚|腿|胳膊|四肢){sudden}…{weak}
{sudden}…(?:手脚?|脚|腿|胳膊|四肢)…{weak}
{maybe}(?:中风|脑梗|脑卒中|脑出血|脑溢血)
中风了
头(?:疼|痛)欲裂
(?:一只|单|左|右)眼…看不见
雷击样头痛
炸裂样?的?头痛
(?:从没|从来没|从未|没)有?过?(?:这么|这样|如此)(?:剧烈|厉害|严重)?的?头(?:疼|痛)
\b(?:face|mouth)\b…droop\w*
\bdroop\w*…\b(?:face|mouth)\b
\bslurr(?:ed|ing)\b
\bhaving a (?:mini-?)?stroke\b
{cannot} (?:feel|move) (?:my|his|her) (?:legs?|arms?|face|left|right)
{cannot} (?:speak|talk|get (?:the |my )?words out)
{one_side}…{is_weak}
{is_weak}…{one_side}
\bsudden(?:ly)?\b…\b(?:blind|lost (?:my |her |his )?(?:sight|vision|speech))
\bworst headache\b
\bthunderclap\b
"""
ALLERGEN = r"""
(?<!抗)(?<!无)过敏(?!性|原|源|史|体质)
荨麻疹
风团
疹子
(?:皮|红|起)疹
蜇
花生
海鲜
打(?:完|了)针
打针(?:以?后|就)
输(?:完|了|着)液
输液(?:时|中|以?后|就)
吃(?:完|了)…药(?:以?后|就|马上|突然)
(?:头孢|青霉素|阿莫西林|疫苗|造影剂)(?:以?后|就|马上|突然)
\ballerg(?:ic|y)\b (?:reaction|to)\b
hives
\brash\b
\bst(?:ung|ing)\b
peanuts?
shellfish
seafood
antibiotics?
"""
WITH_ALLERGEN = rf"""
(?:喉咙?|喉头|嗓子|咽喉|嘴唇|嘴巴?|舌头?|脸|面部|眼皮|眼睛)…(?:(?<!红)肿|发紧|堵)
(?<![哮咳平止])喘(?:得|起来)
(?:突然|马上|开始)气?喘
血压…低
意识模糊
\b(?:throat|lips?|tongue|face)\b…\b(?:swell\w*|swollen|clos\w+|tight\w*)
\bswollen (?:throat|lips?|tongue|face)
\bswelling of (?:my |the )?(?:throat|lips?|tongue|face)
\bwheez\w+
{BREATHLESS}
{FAINT}
"""
ANAPHYLAXIS = r"""
过敏性休克
(?:严重的?|急性)过敏(?!体质)
喉头水肿
\bsevere allergic reaction\b
\banaphyla\w+
\bthroat is closing\b
"""
BREATHING = r"""
(?:突然|严重|极度|非常|越来越)…(?:呼吸困难|喘|憋气)
呼吸(?:很|非常|特别|极度?|越来越)困难
(?:喘|憋)…说不(?:出|了)话
喘不(?:过|上)来?气
不能平(?:卧|躺)
窒息
噎住
卡住了?(?:喉|气管)
(?:嘴唇|口唇|嘴|脸)…(?:发紫|发青|青紫|发绀)
\b{cannot} (?:breathe|catch (?:my|his|her) breath)
\bgasping\b
\bchoking\b
\bstruggling to breathe
\b(?:severe|sudden|extreme) (?:shortness of breath|(?:trouble|difficulty) breathing)
\b(?:lips?|face)\b…\bblue\b
\bturning blue\b
"""
CONSCIOUSNESS = r"""
昏迷
叫不醒
意识(?:不清|模糊|丧失|障碍)
失去意识
不省人事
神志不清
抽搐
惊厥
晕倒
晕厥
昏倒
[晕昏]过去
休克
快不行了
(?:孩子|小孩|宝宝|娃|儿子|女儿)(?:又|突然|发烧|烧得)*抽(?:筋|风|了)
(?:发烧|高烧|高热)…抽(?:筋|风|了)
\bunconscious\b
\bcollapsed\b(?! lung)
\bunresponsive\b
(?:won't|{cannot}) (?:be )?wake
\b(?:passed|blacked) out\b
\bfainted\b
\bseizures?\b
\bconvuls\w+
"""
ABDOMEN = r"""
{sudden}…(?:剧烈|剧|绞|刀割样?|撕裂样?)的?…(?:腹|肚子|胃|后背){ache}
{sudden}…(?:腹|肚子|胃)…(?:剧|绞|刀割|撕裂|难忍)…(?:疼|痛)
(?:腹|肚子|胃|后背|背部?)…(?:刀割|撕裂|撕心裂肺)
\b(?:sudden|severe|worst|excruciating|tearing|ripping|unbearable)\b…\b(?:abdominal|belly) pain\b
\b(?:sudden|excruciating|tearing|ripping)\b…\b(?:stomach|back) pain\b
"""
PREGNANT = r"""
怀孕
孕(?:妇|期|周|早期|中期|晚期)
有身孕
\bpregnan\w+
"""
WITH_PREGNANCY = r"""
出血
见红
流血
破水
(?:剧烈|很|非常|特别|好)…(?:腹|肚子|头)?{ache}
(?:腹|肚子)…(?:剧烈|很|非常|特别|好|厉害)…(?:疼|痛)
胎动(?:减少|消失|没有|没了)
\bbleed\w*
\bwaters? broke
\bsevere (?:abdominal |stomach )?(?:pain|headache)
"""
IN_LABOUR = r"""
羊水破
破水了
\bwaters? broke\b
"""
SIGNS: tuple[tuple[Sign, tuple[str, ...]], ...] = (
    ("arrest", (ARREST,)),
    ("self_harm", (SELF_HARM,)),
    ("chest_pain", (HEART_ATTACK,)),
    ("chest_pain", (CHEST_PAIN, WITH_CHEST_PAIN)),
    ("anaphylaxis", (ANAPHYLAXIS,)),
    ("anaphylaxis", (ALLERGEN, WITH_ALLERGEN)),
    ("bleeding", (BLEEDING,)),
    ("breathing", (BREATHING,)),
    ("stroke", (STROKE,)),
    ("consciousness", (CONSCIOUSNESS,)),
    ("poisoning", (POISONING,)),
    ("injury", (INJURY,)),
    ("pregnancy", (IN_LABOUR,)),
    ("pregnancy", (PREGNANT, WITH_PREGNANCY)),
    ("abdomen", (ABDOMEN,)),
)
"""In the order in which they are tried."""
ONCE = (HEART_ATTACK, STROKE, INJURY)
"""What happens once: long ago it is history ("去年中风了"), where pain that began then is not."""
