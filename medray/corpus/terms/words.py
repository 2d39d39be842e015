"""Words of Chinese medical text. In: text. Out: its words, terms of the dictionaries whole.

Terms are found first, by longest match, so that 慢性阻塞性肺疾病 is one word whatever a general
dictionary says; what stands between them is segmented by jieba (longest probable path, and a hidden
Markov model for words it does not know).
Source: [EMR-LLM 1.2] word segmentation with a medical model. Differs: dictionaries in its place.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from medray.corpus.terms.matcher import Matcher
from medray.corpus.terms.vocabulary import Vocabulary

BETWEEN_HAN = re.compile(r"(?<=[\u3400-\u9fff])(?=[\u3400-\u9fff])")


class Segmenter:
    """Cuts text into words; takes a second to make and 200 MB."""

    def __init__(self, vocabulary: Vocabulary | None = None) -> None:
        """Without a vocabulary all words are jieba's."""
        import jieba

        self._matcher = None if vocabulary is None else Matcher(vocabulary)
        self._jieba = jieba.Tokenizer()
        # As `initialize` does, but without its cache in the shared temporary directory.
        self._jieba.FREQ, self._jieba.total = self._jieba.gen_pfdict(self._jieba.get_dict_file())
        self._jieba.initialized = True

    def words(self, text: str) -> list[str]:
        """The words of `text` in order; together they are the text."""
        words, at = [], 0
        for match in self._matcher.find(text) if self._matcher else ():
            words += self._jieba.cut(text[at : match.start])
            words.append(text[match.start : match.end])
            at = match.end
        return [*words, *self._jieba.cut(text[at:])]

    def pieces(self, text: str) -> Iterator[str]:
        """Yields `text` cut where a word ends between two Chinese characters, and nowhere else."""
        ends, at = {0}, 0
        for word in self.words(text):
            at += len(word)
            ends.add(at)
        cuts = [m.start() for m in BETWEEN_HAN.finditer(text) if m.start() in ends]
        for start, end in pairwise([0, *cuts, len(text)]):
            yield text[start:end]
