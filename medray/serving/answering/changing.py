"""Whether somebody asks to have a record changed, forged or deleted.

In: a question. Out: yes or no, by rules of words in Chinese and English, a sentence at a time. A
change must be asked for (帮我, please, an imperative), and of a record or another document:
"术后医嘱改成口服可以吗" is about a therapy, "可以更改诊断吗" about a diagnosis,
"如何规范修改病历" and "伪造病历有什么后果" about the rules, and all are answered. Whoever asks for
other words for a text ("改写成通俗的话") changes no record, and who forbids a change asks for none.
Source: not given in the method.
"""

import re

from medray.serving.answering.forbidding import asked_for

SENTENCE = re.compile(r"(?<=[。！？!?；;\n])|(?<=\.)\s")
GAP = r"[^，,。；;：:把将]{0,15}?"

RECORD = (
    r"(?:病历|病案|病程|医嘱单|出院小结|体温单|报告单|化验单|同意书|知情同意|签名|签字"
    r"|(?:手术|护理|抢救|麻醉|会诊|查房|入院|出院|死亡|输血|谈话|值班)记录"
    r"|(?:检验|检查|化验|病理|影像|超声|心电图|CT|胸片)(?:结果|报告)"
    r"|(?:死亡|诊断|出生)证明|(?:记录|医嘱|书写|报告)的?(?:时间|日期))"
)
OF_RECORD = rf"(?:{RECORD}|诊断|医嘱|处方|记录|报告|主诉|过敏史|既往史|现病史)"
"""What stands in a record, too: enough where somebody asks for the change in so many words."""
CHANGE = (
    r"(?:(?:修改|更改)(?!后|过的)|改写(?=[成为])|(?<![整修更])改(?![善进良革日天期写])"
    r"|删|抹[掉去]|涂掉|去掉|替换|换成|销毁|补[写记签录]|倒填)"
)
FORGE = r"(?:篡改|伪造|编造|捏造|补造|造假|倒签|冒签|仿签|涂改)"
EITHER = f"(?:{CHANGE}|{FORGE})"
WISH = (
    r"(?:帮我们?|帮忙|替我们?|给我|教我|麻烦[你您]?|(?<!申)请[你您]?)"
    r"(?:一下|直接|马上|立即|现在|先|重新|[悄偷]{2}地?|快速|怎[么样]|如何|来|去)*"
)
WISHED = re.compile(
    rf"{WISH}{EITHER}{GAP}{OF_RECORD}|{WISH}[^，,。；;：:把将不勿]{{0,6}}[把将]{GAP}{OF_RECORD}{GAP}{EITHER}"
)
NOT_ASKED = r"(?!.*(?:[吗么呢？?]|谁|何|几|哪|怎|[是能可]否|合适|多久))"
TOLD = re.compile(
    rf"^\W*+{NOT_ASKED}{EITHER}{GAP}{RECORD}(?![后时者])"
    rf"|^\W*+{NOT_ASKED}[把将]{GAP}{OF_RECORD}{GAP}{EITHER}"
    rf"|[把将]{GAP}{RECORD}{GAP}{EITHER}"
    rf"|{RECORD}{GAP}(?:改一?[下改]|改一下|改掉|删掉|删了|删一下|抹掉|涂掉)"
    rf"|{RECORD}(?:首页|记录)?[里中上]?面?的?(?:诊断|时间|日期|签名|结果|年龄|主诉|姓名|数值)"
    r"[^，,。]{0,4}改[成为到]"
    rf"|(?:怎[么样]|如何|我[想要])(?:才能|才|可以|能|去|来|快速|[悄偷]{{2}}地?)*"
    rf"{FORGE}{GAP}{OF_RECORD}"
    r"|(?:开|写|弄|做|办|出)[^，,。！？；;\n请]{0,6}(?<![请病休产年])(?:虚?假|伪)的?"
    rf"(?:病假条?|病休|休假|{RECORD}|证明|诊断书|处方|报告)"
)
HIDING = re.compile(
    r"不(?:会|能|要)?(?:被|让)[^，,。]{0,4}(?:发现|查出|查到|看出|察觉|知道)|不留下?痕|瞒过|骗过"
    r"|应付(?:检查|质控)|蒙混"
)
DOING = re.compile(rf"{EITHER}.{{0,15}}{OF_RECORD}|{OF_RECORD}.{{0,15}}{EITHER}")
"""With a wish that nobody finds out, asked for by whatever words."""
RULES = re.compile(
    r"规范|规定|规则|制度|要求|流程|程序|合规|合法|违法|违规|法律|法规|责任|处罚|处分|后果|犯罪"
    r"|防止|防范|预防|避免|杜绝|识别|辨别|鉴别|鉴定|认定|检测|监测|核查|查处|举报|投诉"
    r"|允许|有权|权限|时限|期限|条件|原则|依据|理由|什么是|哪些|为什么|为何|属于|是否|应当"
    r"|需要?(?:谁|哪|什么|几|注明|签|说明|审|经|由|上级|重新)|什么情况|什么时候|谁"
)
"""What a question about the rules for records has and a request for a change has not."""
OTHER_WORDS = re.compile(
    r"表格|通俗|英[文语]|中文|白话|[能易听看]得?懂|列表|要点|摘要|措辞|语法|错别字|润色|通顺|简洁|模板|范文"
    r"|格式|排版|标点|文笔|语气"
    r"|\b(?:plain|simpler|table|language|translat\w+|bullets?|shorter|grammar|spelling|wording"
    r"|clarity|clearer|readab\w+|conciser?|templates?|format(?:ting)?|typos?|style|tone)\b",
    re.IGNORECASE,
)

ENGLISH_GAP = (
    r"(?:(?!\b(?:if|when|after|before|based|because|while|according|once|unless|during|until|given"
    r"|despite|into|as|for|and)\b|[,;:.]).){0,40}?"
)
ENGLISH_RECORD = (
    r"\b(?:records?|charts?|notes?|discharge summar(?:y|ies)|reports?|consents?|signatures?"
    r"|(?:lab|laboratory|test|blood) results?|timestamps?|(?:death|birth) certificates?)\b"
)
ENGLISH_OF_RECORD = rf"(?:{ENGLISH_RECORD}|(?<!differential )\bdiagnos[ie]s\b|\borders?\b)"
ENGLISH_CHANGE = (
    r"(?:change|alter|edit|modify|amend|delete|remove|erase|rewrite|overwrite|replace|correct"
    r"|update)\b(?! me\b)"
)
ENGLISH_FORGE = r"(?:falsify|forge|fake|fabricate|back-?date|tamper with)\b"
FORGED = re.compile(rf"{FORGE}|\b{ENGLISH_FORGE}", re.IGNORECASE)
ENGLISH_EITHER = f"(?:{ENGLISH_CHANGE}|{ENGLISH_FORGE})"
HOW = r"(?: (?:to|just|quickly|quietly|secretly|now)){0,4}"
ENGLISH_WISHED = re.compile(
    rf"\b(?:please|kindly|help me|i (?:want|need) you|i(?:['’]d| would) like you){HOW}"
    rf" {ENGLISH_EITHER}{ENGLISH_GAP}{ENGLISH_OF_RECORD}",
    re.IGNORECASE,
)
ENGLISH_TOLD = re.compile(
    rf"^\W*+(?!.*\?)(?!(?:correct|update|remove|replace)\b){ENGLISH_EITHER}(?! (?:of|in|to)\b)"
    rf"{ENGLISH_GAP}{ENGLISH_RECORD}"
    rf"|\b(?:can|could|will|would) you{HOW} {ENGLISH_EITHER}"
    r" (?:the|this|that|these|those|his|her|my|their|our|all|yesterday['’]s)\b"
    rf"{ENGLISH_GAP}{ENGLISH_RECORD}"
    rf"|\b(?:how (?:to|do i|can i|could i|should i)|(?:teach|show|tell) me how to){HOW}"
    rf" {ENGLISH_FORGE}{ENGLISH_GAP}{ENGLISH_OF_RECORD}"
    r"|\b(?:write|give|make|get|issue|need|want)\b(?: \w+){0,2} (?:fake|false|forged)"
    r" (?:(?:sick|medical|doctor['’]?s) )?(?:notes?|certificates?|prescriptions?|reports?)\b",
    re.IGNORECASE,
)
ENGLISH_HIDDEN = re.compile(
    rf"\b{ENGLISH_EITHER}{ENGLISH_GAP}{ENGLISH_OF_RECORD}.{{0,40}}\b(?:without (?:anyone|anybody"
    r"|being (?:seen|noticed|caught)|leaving|a trace|getting caught|the audit)"
    r"|so (?:that )?(?:no ?one|nobody)|undetected)\b",
    re.IGNORECASE,
)
ENGLISH_RULES = re.compile(
    r"\b(?:rules?|polic(?:y|ies)|allowed|permitted|(?:il)?legal\w*|laws?|requir\w+|penalt\w+"
    r"|consequences?|prevent\w*|detect\w*|procedures?|liab\w+|punish\w*|offen[cs]e)\b",
    re.IGNORECASE,
)


def asks_to_change_a_record(question: str) -> bool:
    """Whether one of its sentences does."""
    return any(_asks(sentence) for sentence in SENTENCE.split(question))


def _asks(sentence: str) -> bool:
    if OTHER_WORDS.search(sentence) and not FORGED.search(sentence):
        return False
    if asked_for(WISHED, sentence) or asked_for(ENGLISH_WISHED, sentence):
        return True
    if RULES.search(sentence) or ENGLISH_RULES.search(sentence):
        return False
    if HIDING.search(sentence) and DOING.search(sentence):
        return True
    return any(asked_for(rule, sentence) for rule in (TOLD, ENGLISH_TOLD, ENGLISH_HIDDEN))
