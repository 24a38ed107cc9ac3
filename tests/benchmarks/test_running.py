"""What benchmarks start, they end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import run
from running import process
from turns import Missing

from tests.dev_process import wait_until

ROW = """
import subprocess, sys
started = subprocess.Popen(["sleep", "600"])
print(started.pid, file=open(sys.argv[1], "w"), flush=True)
try:
    started.wait()
except KeyboardInterrupt:  # as a peer that starts another process while it is told to end
    late = subprocess.Popen(["sleep", "600"])
    print(late.pid, file=open(sys.argv[1] + " late", "w"), flush=True)
"""
MAIN = """
import sys
sys.path.append({benchmarks!r})
import pathlib, run
run.HERE = pathlib.Path({folder!r})
run.ROWS["cli"] = run.script("row.py", {folder!r} + "/started")
sys.argv = ["run.py", "--only", "cli", "--results", {folder!r} + "/deeper/results.json"]
run.main()
"""


def has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_row_that_is_cut_short_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "row.py").write_text(ROW)
    main = MAIN.format(benchmarks=str(run.HERE), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", main], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bench:
        pid = tmp_path / "started"
        wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"), "a row that runs")

        bench.send_signal(signal.SIGTERM)

        bench.wait()
    wait_until(lambda: has_ended(int(pid.read_text())), "its end")
    wait_until(lambda: has_ended(int((tmp_path / "started late").read_text())), "the end of what it started late")


@pytest.mark.parametrize("text", ["0", "-1", "x", "nan", "1e9"])
@pytest.mark.parametrize("read", [run.at_least_one, run.seconds])
def test_sizes_that_measure_nothing_are_refused(read: Callable[[str], float], text: str) -> None:
    with pytest.raises(run.argparse.ArgumentTypeError, match=text):
        read(text)


def test_a_program_that_is_missing_is_told_as_it_is_and_other_errors_with_what_was_said(tmp_path: Path) -> None:
    def failing(error: Exception) -> None:
        with process(["sh", "-c", "echo no port; exec sleep 600"], tmp_path):
            raise error

    with pytest.raises(Missing, match="^no wrk$"):
        failing(Missing("no wrk"))
    with pytest.raises(RuntimeError, match="^too late; sh said: "):
        failing(TimeoutError("too late"))
