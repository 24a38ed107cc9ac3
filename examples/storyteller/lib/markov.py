"""A language model small enough to read: which word follows which, counted in a text."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random

WORD = re.compile(r"\w+|[.,]")


@dataclass(frozen=True)
class Markov:
    """`after[word]` counts the words that came after it; `vocabulary` is every word there is."""

    after: dict[str, Counter[str]]
    vocabulary: tuple[str, ...]

    @classmethod
    def learn(cls, text: str) -> Markov:
        words = WORD.findall(text.lower())
        after: dict[str, Counter[str]] = {}
        for word, following in pairwise(words):
            after.setdefault(word, Counter())[following] += 1
        return cls(after, tuple(dict.fromkeys(words)))

    def words(self, prompt: str, *, seed: int) -> Iterator[str]:
        """Words that go on from the prompt, without an end."""
        choose = Random(seed)
        word = (WORD.findall(prompt.lower()) or ["."])[-1]
        while True:
            counts = self.after.get(word) or Counter(self.vocabulary)
            word = choose.choices([*counts], [*counts.values()])[0]
            yield word

    def surprise(self, text: str) -> float:
        """Bits per word that the text costs to say: high for what the model would not have said."""
        pairs = list(pairwise(["."] + WORD.findall(text.lower())))
        return sum(self._bits(*pair) for pair in pairs) / max(len(pairs), 1)

    def _bits(self, word: str, following: str) -> float:
        counts = self.after.get(word, Counter())
        # One more of each, so that what was never seen costs much and not without end.
        return -math.log2((counts[following] + 1) / (counts.total() + len(self.vocabulary) + 1))
