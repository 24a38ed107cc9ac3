"""A job: says what kind of content each of many files holds."""

from __future__ import annotations

from magika import Magika
from pydantic import Base64Bytes, BaseModel

from flashfw import Job, injected

from lib.answer import Answer, identify


class File(BaseModel):
    """One file as a caller sends it: JSON carries no bytes, so they come as base64."""

    name: str
    content: Base64Bytes


def handler(files: list[File], job: Job, model: Magika = injected) -> list[Answer]:
    answers = []
    for number, file in enumerate(files, start=1):
        answers.append(identify(model, file.content, name=file.name))
        job.progress(number / len(files))
    return answers
