"""Marks of bad web text. In: text. Out: shares of lines or characters, for `medray.corpus.clean`.

Source: Gopher (Rae et al. 2021, A1.1), C4 (Raffel et al. 2020, 2.2), RefinedWeb (Penedo et al.
2023, G.2). Differs: a line also ends at a full stop, for much Chinese text has no other line ends;
what C4 removes by the line, a text is left out for when it is mostly that. Gopher's
share of # to words is not taken over: records number teeth, beds and specimens so.
"""

import re
from collections import Counter

LINES = re.compile(r"[\n。！？]+|(?<=[a-z)][.!?]) +")
ELLIPSIS = ("…", "...")
URL = re.compile(r"(?:https?://|www\.)[\x21-\x7e]+")
BOILERPLATE = re.compile(
    r"版权所有|著作权归|转载请|请注明(?:出处|来源)|责任编辑[：:]|免责声明|"
    r"上一篇|下一篇|返回(?:首页|列表|顶部)|相关(?:阅读|推荐|文章)|热门(?:推荐|文章)|猜你喜欢|"
    r"点击(?:这里|此处|进入|查看|下载|咨询)|查看更多|展开全文|阅读全文|"
    r"扫(?:一扫|码|描二维码)|关注(?:我们的)?(?:微信)?公众号|加(?:我)?微信|"
    r"(?:免费|在线)(?:咨询|预约|客服)|咨询热线|客服(?:电话|热线|QQ)|网站地图|用户协议|"
    r"all rights reserved|privacy policy|terms of (?:use|service)|cookie policy|"
    r"enable javascript|lorem ipsum|click here|sign up for|subscribe to our|share (?:this|on) ",
    re.IGNORECASE,
)
"""Words of navigation, advertising and notices. The English ones are C4's and those beside them."""


def lines_of(text: str) -> list[str]:
    """The lines and sentences of `text` that hold more than blanks."""
    return [line.strip() for line in LINES.split(text) if line.strip()]


def ellipsis_fraction(lines: list[str]) -> float:
    """Share of lines that end in an ellipsis, as excerpts of other pages do."""
    return sum(line.endswith(ELLIPSIS) for line in lines) / max(1, len(lines))


def repeated_fraction(lines: list[str]) -> float:
    """Share of characters that lie in lines that stood before."""
    chars = sum(map(len, lines))
    again = sum(len(line) * (times - 1) for line, times in Counter(lines).items())
    return again / max(1, chars)


def boilerplate_fraction(lines: list[str]) -> float:
    """Share of characters that lie in lines of navigation, advertising or notices."""
    chars = sum(map(len, lines))
    return sum(len(line) for line in lines if BOILERPLATE.search(line)) / max(1, chars)


def url_fraction(text: str) -> float:
    """Share of characters that belong to web addresses."""
    return sum(len(url) for url in URL.findall(text)) / max(1, len(text))
