"""BentoML with one worker process."""

from __future__ import annotations

from typing import Any

import bentoml


@bentoml.service(workers=1, traffic={"timeout": 60}, metrics={"enabled": True})
class Echo:
    @bentoml.api(route="/echo")
    async def echo(self, prompt: str, steps: int) -> dict[str, Any]:
        return {"prompt": prompt, "steps": steps}
