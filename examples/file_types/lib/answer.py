"""What both endpoints answer about one file."""

from __future__ import annotations

from dataclasses import dataclass

from magika import Magika


@dataclass(frozen=True)
class Answer:
    name: str
    label: str
    mime_type: str
    description: str
    score: float


def identify(model: Magika, content: bytes, *, name: str) -> Answer:
    result = model.identify_bytes(content)
    return Answer(
        name=name,
        label=str(result.output.label),
        mime_type=result.output.mime_type,
        description=result.output.description,
        score=round(result.score, 3),
    )
