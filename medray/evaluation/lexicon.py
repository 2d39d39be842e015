"""Names of diseases. In: names, aliases, ICD-10 codes. Out: which disease a text names first.

The longest name at the first place wins; a name that is denied there (`不支持肺炎`) is passed
over. A text that names no known disease is unparsed, never guessed.
Source: EVALUATION.md 1 (principal diagnosis matched by alias / ICD-10).
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medray.common.config import read_yaml
from medray.common.errors import ConfigError

SHIPPED = Path(__file__).parent / "aliases.yaml"
ICD10 = re.compile(r"(?<![A-Z0-9])([A-Z]\d{2}(?:\.[0-9X]{1,3})?)(?![0-9])")
DENIED = re.compile(r"(?:不支持|不考虑|排除|除外|并非|不是|不符合|否认|未见|无)(?:诊断)?(?:为)?$")
ENTRY = re.compile(
    r"([^\s;；。,，、:：()（）\d.]{2,})\s*[(（]\s*([A-Z]\d{2}(?:\.[0-9X]{1,3})?)\s*[)）]"
)


def normalise(text: str) -> str:
    """Half-width, lower case, without blanks."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text)).lower()


def read_aliases(path: Path) -> dict[str, list[str]]:
    """Reads {name: [alias, …]}."""
    aliases = read_yaml(path)
    if not all(isinstance(v, list) for v in aliases.values()):
        raise ConfigError(f"{path} must map each name to a list of aliases")
    return {str(name): [str(alias) for alias in values] for name, values in aliases.items()}


def codes_in(text: str) -> dict[str, str]:
    """ICD-10 code → name, of entries such as `社区获得性肺炎（J18.9）`."""
    return {code: name for name, code in ENTRY.findall(text)}


class Lexicon:
    """The known diseases."""

    def __init__(
        self,
        names: Iterable[str],
        aliases: Mapping[str, Sequence[str]],
        codes: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            names: diseases as the gold answers write them; each stays a disease of its own.
            aliases: name → other names of the same disease.
            codes: ICD-10 code → name.
        """
        known = {normalise(name): name for name in names if normalise(name)}
        self._names = dict(known)
        for name, others in aliases.items():
            group = [name, *others]
            # A gold answer may be written as any member; the group stands for that one.
            chosen = next((known[normalise(n)] for n in group if normalise(n) in known), None)
            if chosen is not None:
                for other in group:
                    self._names.setdefault(normalise(other), chosen)
        self._codes = {
            code: self._names[normalise(name)]
            for code, name in (codes or {}).items()
            if normalise(name) in self._names
        }
        alternatives = sorted(map(re.escape, self._names), key=len, reverse=True)
        self._pattern = re.compile("|".join(alternatives) or r"(?!)")

    def canonical(self, name: str) -> str | None:
        """The disease of a name that stands alone."""
        return self._names.get(normalise(name))

    def principal(self, text: str) -> str | None:
        """The first disease that a text names, by name, else by ICD-10 code; None = unparsed."""
        plain = normalise(text)
        for match in self._pattern.finditer(plain):
            if not DENIED.search(plain[max(0, match.start() - 8) : match.start()]):
                return self._names[match.group()]
        for code in ICD10.findall(unicodedata.normalize("NFKC", text).upper()):
            if code in self._codes:
                return self._codes[code]
        return None
