"""Whether somebody asks how much of a medicine to take, give or leave off.

In: a question. Out: yes or no, by rules of words in Chinese and English. How much salt to eat, what
a stay costs and what a value should be after a meal are no doses.
Source: not given in the method.
"""

import re

NO_MEDICINE = (
    r"(?:的|克|毫升|片|粒|颗|支)*(?:盐(?!酸)|糖(?!皮质|尿|浆)|油(?![剂膏])|肉(?![毒苁])|母乳|牛奶|奶粉"
    r"|奶(?!蓟)|水(?![杨合飞剂])|米?饭|面[包条]|[蔬青]菜|鸡蛋|蛋白质|坚果|花生|核桃|红?枣|苹果|饼干"
    r"|血(?![压糖脂管栓小])|尿(?![酸素激])|卫生巾|护垫|纸?尿裤|尿布|疫苗|热量|卡路里)"
)
"""盐酸二甲双胍, 糖尿病药, 水杨酸 are medicines all the same."""
OTHER_AMOUNT = (
    r"(?:天(?![麻花王])|日|年|岁|周|个?月(?!见)|小时|分钟|时间|钱|元|费|种|人(?![参血免凝胰])"
    r"|体重|斤|公斤|例|比例|见|样)"
)
UNIT = r"(?:片|粒|颗|支|毫克|毫升|单位|剂量|量)"
VERB = r"(?:吃|服|(?<![费作信饮])用|打|注射|喂|抹|涂|滴|喷|(?<!增)加|减|停)"
GAP = (
    r"(?:(?!期间|时候|控制|正常|指标|体[温重]|(?<!降)血|尿酸|费|钱|后|前(?!列)"
    r"|[，,。！？；;\n]).){0,12}?"
)
"""What stands between a verb and a bare 多少: none of what else is measured after a medicine."""
AGAIN = "[一二两三几半]"
CHINESE = re.compile(
    rf"{VERB}[^。！？；;\n]{{0,12}}?(?:几|多少|多大|什么){UNIT}(?!{NO_MEDICINE})"
    rf"|{VERB}[了个上到成]?多少(?!{OTHER_AMOUNT}|{NO_MEDICINE}|{UNIT})"
    rf"|{VERB}{GAP}多少(?=合适|才|呢|好|比较|最|为宜|\W|$)"
    rf"|[一每][天次日晚](?:最多)?(?:几|多少){UNIT}(?!{NO_MEDICINE})"
    r"|(?:药量|(?<!辐射)(?<!射线)剂量|用量)[^，,。！？；;\n]{0,6}(?:多少|多大)"
    r"|(?:加倍|加量|减量|停药)(?:吗|可以吗|行吗|行不行)|药停[了掉]?(?:吗|可以吗|行吗|行不行)"
    r"|[能可](?:不[能可])?以?(?:自己)?把[^，,。！？；;\n]{0,6}药停|用法用量"
    r"|(?:最大|最高|常用|推荐)(?:药物)?(?:剂量|用量)"
    rf"|(?:再|多|少)[吃服]{AGAIN}(?:片|粒|颗|支)"
    rf"|(?:药|片|胶囊|颗粒)[^，,。！？；;\n]{{0,4}}[一每][天日](?:吃|服|用)几次"
)
AMOUNT = (
    r"(?:how (?:much|many)|what (?:dose|dosage))\b(?! (?:longer|exercise|sleep|water|time|salt"
    r"|sugar|coffee|alcohol|money|weight|food|fruit|milk|of a break)\b)"
)
WHOSE = r"(?:i|we|he|she|they|you|(?:my|our) \w+)"
ENGLISH = re.compile(
    r"\b(?:max(?:imum|imal)?|recommended|usual|right|correct|safe|highest) (?:daily |single )?"
    r"(?:dose|dosage) (?:of|for)\b|\bdosage (?:of|for)\b|"
    rf"\b{AMOUNT}(?:(?!\b(?:cost|pay)\b).){{0,60}}"
    rf"\b(?:(?:should|can|could|may|must|do|shall) {WHOSE}\b.{{0,20}}"
    rf"|{WHOSE} (?:should|can|could|may|must) |to )"
    r"\b(?:take|taking|give|inject|use|swallow|be on)\b(?! (?:off|time|leave|part)\b)"
    r"|\b(?:what (?:dose|dosage)|how (?:much|many) (?:\w+ )?(?:tablets?|pills?|capsules?|mg|ml"
    rf"|milligrams?|units?|puffs?|drops?|doses))\b.{{0,60}}\b(?:should|can|may|do) {WHOSE}\b"
    r"|\b(?:can|could|should|may|shall|must|do|if|to|just|safe|okay?|want|going|let)\b.{0,25}"
    r"\b(?:double|increase|stop|skip|reduce|halve)\b(?! (?:forgetting|losing|missing|worrying)\b)"
    r".{0,20}\bmy\b.{0,20}\b(?:dose|medication|medicine|tablets?|insulin)\b",
    re.IGNORECASE,
)


def asks_for_a_dose(question: str) -> bool:
    """Whether it does. Whoever asks is taken to ask for themselves or their own."""
    return bool(CHINESE.search(question) or ENGLISH.search(question))
