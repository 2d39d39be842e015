"""Web and network addresses. In: text. Out: spans of URLs, IP and MAC addresses.

Four numbers with points are an IP address by its label or by a number past any numbering of
headings (1.2.3.4). Source: 45 CFR 164.514(b)(2)(i)(N), (O); RFC 3986 for the characters of a URL.
"""

import re
from collections.abc import Iterator

_DOMAIN = (
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,4}"
    r"(?:com|cn|org|net|gov|edu|info|uk)(?![A-Za-z0-9-])"
)
_REST = r"(?::\d{2,5})?(?:[/?#][A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*)?"
URL = re.compile(
    rf"(?<![A-Za-z])(?i:(?:https?|ftp)://)[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+"
    rf"|(?<![A-Za-z0-9_@.\-])(?i:www\.)?{_DOMAIN}{_REST}"
)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
IP = re.compile(rf"(?<![\d.])(?:{_OCTET}\.){{3}}{_OCTET}(?![\d]|\.\d)")
_IP_LABEL = re.compile(r"(?:IP|ip|地址)\s?(?:地址|address)?\s?[:：]?\s?$")
MAX_HEADING = 31
"""Numbers of headings and of days do not pass it."""
HEX = re.compile(
    r"(?<![A-Za-z0-9:.])(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}(?![A-Za-z0-9:])"
    r"|(?<![A-Za-z0-9:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![A-Za-z0-9:-])"
)
_SIGNS = re.compile(
    r"[A-Za-z0-9]\.[A-Za-z]{2}|://|\d\.\d{1,3}\.\d|[0-9A-Fa-f][:-][0-9A-Fa-f]{2}[:-]"
)


def find_network(text: str) -> Iterator[tuple[int, int]]:
    """Yields (start, end); the stop at the end of a sentence is no part of a URL."""
    if not _SIGNS.search(text):
        return
    for match in URL.finditer(text):
        yield match.start(), match.start() + len(match.group().rstrip(".,;:!?)'"))
    for match in IP.finditer(text):
        numbers = [int(number) for number in match.group().split(".")]
        before = text[max(0, match.start() - 12) : match.start()]
        if max(numbers) > MAX_HEADING or _IP_LABEL.search(before):
            yield match.span()
    for match in HEX.finditer(text):
        if re.search("[A-Fa-f]", match.group()) or match.group().count(":") == 7:
            yield match.span()
