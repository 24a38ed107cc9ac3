"""What an older release may lack by the time that it is wanted again."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashfw.manifest import Variable
from tests.cluster.bench import an_endpoint
from tests.cluster.releases.releasing import answers, releasing

pytestmark = pytest.mark.anyio


async def test_a_release_whose_secrets_or_layers_are_gone_is_not_rolled_back_to(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        bench.placement.on_start = answers
        bench.secrets.set("ONE", "1" * 20)
        first = (await bench.shipped(an_endpoint("a", secrets=(Variable(name="ONE", value="ONE"),)))).release
        second = (await bench.shipped(an_endpoint("a"))).release
        asked = {"to": None, "expected": second.id, "by": "me"}
        bench.secrets.remove("ONE")

        status, answer = await bench.answer("POST", "rollback", asked)
        assert (status, answer["error"]["reason"], answer["error"]["secrets"]) == (422, "secrets", ["ONE"])

        bench.secrets.set("ONE", "1" * 20)
        bench.releases.layers.remove(first.source.digest)
        status, answer = await bench.answer("POST", "rollback", asked)
        assert (status, answer["error"]["reason"]) == (422, "layers")
        assert answer["error"]["missing"] == [first.source.digest]
        assert not bench.releases.is_busy
        assert bench.releases.current == second.id
