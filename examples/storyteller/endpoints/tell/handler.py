"""A job that streams: each word goes to the caller when it is made, the list of all of them is the output."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import Field

from flashfw import Job, injected

from lib.journal import Journal
from lib.markov import Markov


async def handler(
    job: Job,
    prompt: str = "The sea",
    words: Annotated[int, Field(ge=1, le=1000)] = 30,
    seed: int = 0,
    pace: Annotated[float, Field(ge=0, le=1)] = 0.0,
    model: Markov = injected,
    journal: Journal = injected,
) -> AsyncIterator[str]:
    told = []
    for word in model.words(prompt, seed=seed):
        told.append(word)
        yield word
        job.progress(len(told) / words, words=len(told))
        if len(told) == words:
            break
        await asyncio.sleep(pace)
    journal.add(job=job.id, prompt=prompt, story=" ".join(told))
