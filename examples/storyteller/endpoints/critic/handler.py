"""A class: one instance per worker, each public method a function with a URL of its own."""

from __future__ import annotations

from dataclasses import dataclass

from lib.markov import Markov


@dataclass
class Opinion:
    surprise: float
    verdict: str


class handler:
    def __init__(self, model: Markov) -> None:
        self._model = model
        self._usual = model.surprise("The keeper looked at the sea.")

    def __call__(self, text: str) -> Opinion:
        """POST /critic"""
        surprise = self._model.surprise(text)
        verdict = "I have heard this before" if surprise <= self._usual * 1.2 else "unheard of"
        return Opinion(round(surprise, 2), verdict)

    def better(self, first: str, second: str) -> str:
        """POST /critic/better: the text that surprises less."""
        return min(first, second, key=self._model.surprise)

    def vocabulary(self, prefix: str = "") -> list[str]:
        """POST /critic/vocabulary"""
        return sorted(word for word in self._model.vocabulary if word.startswith(prefix))

    def close(self) -> None:
        print("critic: goes home")  # when the worker goes
