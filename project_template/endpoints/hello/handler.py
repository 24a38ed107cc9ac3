"""A job on the CPU: counts the words of a text."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass


@dataclass
class Statistics:
    words: int
    different: int
    longest: str
    most_common: dict[str, int]


def handler(text: str, top: int = 3) -> Statistics:
    words = re.findall(r"[\w']+", text.lower())
    counts = Counter(words)
    return Statistics(
        words=len(words),
        different=len(counts),
        longest=max(words, key=len, default=""),
        most_common=dict(counts.most_common(top)),
    )
