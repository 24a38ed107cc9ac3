"""A file that a worker looked for in its release and that is on the laptop: why it did not travel."""

from __future__ import annotations

import re
from collections.abc import Mapping

from flashfw.build.source import EXCLUDED
from flashfw.ship.target import Failure

_WAYS = {
    "credentials": "what is secret belongs into a secret: flashfw secret set",
    "state of a tool": "give it another name: such files never travel",
    EXCLUDED: "take it out of build.exclude in flashfw.toml",
}
"""What to do about those that `include` does not bring along."""


def left_behind(failure: Failure, *, source: str, left_out: Mapping[str, str]) -> tuple[str, str] | None:
    """What to say, and what to do, where a start failed for want of a file that was left out.

    `source` is the digest of the release's source layer; `left_out` says why each path stayed, that of a folder with a
    slash at its end.

    >>> failure = Failure(endpoint="add", message="no such file: '/srv/layers/ab12/data/words.txt' (handler.py:2)")
    >>> left_behind(failure, source="ab12", left_out={"data/": "ignore file"})[1]
    'name it in endpoint.toml: include = ["/data/words.txt"]'
    """
    looked_for = re.search(rf"/{source}/([^'\"\n]+)['\"]", failure.message)
    if looked_for is None:
        return None
    path = looked_for[1]
    above = [path, *(path[: found.end()] for found in re.finditer("/", path))]
    why = next((left_out[part] for part in above if part in left_out), None)
    if why is None:
        return None
    hint = _WAYS.get(why, f'name it in endpoint.toml: include = ["/{path}"]')
    return f"{path} is on this machine and not in the release ({why})", hint
