from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from flashfw.cluster import claim
from flashfw.cluster.claim import Claimed, InUse

NAME = "dev"


def test_what_a_killed_server_was_just_starting_is_waited_for(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    with (tmp_path / f"{NAME}.lock").open("w") as child:
        fcntl.flock(child, fcntl.LOCK_EX)
        claim.publish(tmp_path, NAME, Claimed("http://127.0.0.1:1", dead.pid))

        with claim.claimed(tmp_path, NAME, pause=lambda seconds: fcntl.flock(child, fcntl.LOCK_UN)):
            assert claim.holder(tmp_path, NAME) is None


def test_a_server_that_lives_is_not_waited_for(tmp_path: Path) -> None:
    with (tmp_path / f"{NAME}.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        claim.publish(tmp_path, NAME, Claimed("http://127.0.0.1:1", os.getpid()))

        with pytest.raises(InUse, match="at http://127.0.0.1:1"), claim.claimed(tmp_path, NAME, pause=pytest.fail):
            pass
