from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from flashfw import Job

from endpoints.critic.handler import handler as Critic
from endpoints.fixtures import model as learn
from endpoints.tell.handler import handler as tell
from lib.journal import Journal
from lib.markov import Markov


@pytest.fixture(scope="module")
def model() -> Markov:
    return learn()


def test_a_story_has_as_many_words_as_asked_for(model: Markov, tmp_path: Path) -> None:
    async def listen() -> list[str]:
        async with Journal.running(tmp_path / "told.jsonl") as journal:
            return [word async for word in tell(job, "The cat", words=5, model=model, journal=journal)]

    job = Job()
    story = asyncio.run(listen())

    assert len(story) == 5
    assert job.latest == {"value": 1.0, "words": 5}
    assert json.loads((tmp_path / "told.jsonl").read_text())["story"] == " ".join(story)


def test_the_critic_knows_the_sea(model: Markov) -> None:
    critic = Critic(model)

    assert critic("The sea was grey.").verdict == "I have heard this before"
    assert critic("Quarterly revenue exceeded guidance.").verdict == "unheard of"
    assert critic.better("A fish was the.", "The sea was calm.") == "The sea was calm."
    assert critic.vocabulary("le") == ["letter", "letters"]
