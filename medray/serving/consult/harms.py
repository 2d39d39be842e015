"""What patients say of harm from outside, or to themselves: words, as in
`medray.serving.consult.signs`."""

from medray.serving.answering.despair import DIE

SELF_HARM = rf"""
{DIE}
(?<!生)不如死
了结这一切
结束这一切
\bsuicid\w*
\b(?:want|going|plan(?:ning)?) to (?:die|end it)
(?:don't|do not) want to be here
\bself[- ]harm\w*
\b(?:cut|hurt|harm|kill)(?:ting|ing)? myself
"""
"""Beside what `cries_for_help` finds in any text."""
BLEEDING = r"""
大出血
(?:出血|流血|血流|血)(?:一直)?(?:止不住|不止|不停|停不下来|止都止不住)
止不住(?:的|地)?(?:出血|流血|血)
(?:吐|呕|咳)(?:了|出)?(?:好多|很多|几口|大口)?鲜?血
咯血
喷血
(?:割|切|砍|刺|扎|咬)(?:到|破|断)了?…动脉
(?:大量|很多|好多|大口|大片|一大滩)(?:的|地)?(?:出血|流血|鲜血|血|便血)
(?:便血|流血|出血)量?(?:很多|很大|好多|大)
\b(?:vomit(?:ing|ed)?|throw(?:ing)? up|threw up|cough(?:ing|ed)? up)\b…\bblood
\bbleed\w*\b…\b(?:heav\w+|a lot|badly|profuse\w*)
\b(?:heavy|severe|profuse|massive) bleeding
\bbleeding (?:that |which )?(?:won't|doesn't|does not|will not|can't) (?:be )?stop
(?:{cannot}|won't|doesn't) stop (?:the |my )?bleeding
\bha?emorrhag\w+
"""
POISONING = r"""
(?:喝|吃|服|吞|误食|误服)(?:了|下)?…(?:农药|百草枯|毒药|老鼠药|洗洁精|消毒液|强酸|强碱|毒蘑菇)
吞(?:了|下|食)?…(?:电池|磁铁|磁力珠|玻璃|钉子|清洁剂|洗衣液|汽油)
(?:吃|服)(?:错|多|过量)了?…药
药…(?:吃|服)(?:错|多|过量)了
服毒
(?:一瓶|整瓶|大量|几十片|一把)的?(?:安眠药|药)
(?:一氧化碳|煤气|农药|药物|酒精|蘑菇|亚硝酸盐)中毒
\boverdos\w+
\bcarbon monoxide\b
\b(?:drank|drunk|swallow\w*|took)\b…\b(?:poison|bleach|pesticide|paraquat|whole bottle)
\b(?:drank|drunk|swallow\w*|took)\b…\b(?:batter(?:y|ies)|magnets?|detergent|antifreeze|too many)
"""
INJURY = r"""
(?:被|让)…(?:汽车|卡车|货车|摩托车|电动车|电瓶车|三轮车|车)(?:给)?(?:撞|碾|轧)
(?:刚刚?|刚才|今天|出|遇到|发生)了?车祸
(?:楼|高处|梯子|房顶|屋顶|树|脚手架|阳台)上?…(?:摔|跌|掉|坠)(?:下|落)
坠(?:楼|落伤)
触电
被(?:高压)?电(?:到|击|打)
溺水
(?:掉|落)(?:进|到|入)(?:水|河|池塘|井|江|湖)
(?:大面积|大片|严重)的?(?:烧|烫)伤
(?:烧|烫)伤…面积…大
蛇…咬
(?:刀|匕首)(?:捅|刺|扎|砍)(?:伤|了|中|进)
(?:手指|手|脚|胳膊|腿)…(?:切|砍|锯|绞|压)断
\b(?:hit|struck|run over) by an? (?:car|truck|bus|van|train|lorry|motorbike)\b
\bjust (?:had|been in|in) an? (?:car|motorbike|traffic) (?:crash|accident)\b
\bfell (?:off|from|out of) (?:a |the )?(?:roof|ladder|balcony|window|scaffold\w*|tree)\b
\belectrocuted\b
\belectric(?:al)? shock\b
\bdrown(?:ed|ing)\b
\bsnake ?bite\b
\bbit(?:ten)? by a snake\b
\bsnake\b…\bbit(?:ten)?\b
\bstabbed\b
\bgunshot\b
\b(?:severe|large|bad) burns?\b
"""
