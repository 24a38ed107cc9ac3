"""What both endpoints are given by the parameter's name; each worker builds what its handlers ask for, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from flashfw import volume

from lib.journal import Journal
from lib.markov import Markov

CORPUS = Path(__file__).parents[1] / "data" / "corpus.txt"


def model() -> Markov:
    return Markov.learn(CORPUS.read_text(encoding="utf-8"))


async def journal() -> AsyncIterator[Journal]:
    async with Journal.running(volume("stories") / "told.jsonl") as journal:
        yield journal
    print("journal: written and closed")  # runs when the worker goes
