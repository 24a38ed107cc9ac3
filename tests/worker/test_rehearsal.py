from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from flashfw.worker.rehearsal import rehearse


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are listed on Linux")
def test_starts_no_thread_and_leaves_nothing_open() -> None:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    rehearse()

    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, descriptors)
