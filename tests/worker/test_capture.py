from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from flashfw.worker.frames import Kind
from tests.worker.harness import Worker, endpoint, job, write

HANDLER = """
    import asyncio, logging, os, subprocess, sys, threading, warnings
    from pathlib import Path
    from flashfw import Job

    logging.getLogger("shop").info("imported")

    def handler():
        print("to stdout")
        print("to stderr", file=sys.stderr)
        print("no newline", end="")

    async def waits():
        print("before")
        while not Path("go").exists():
            await asyncio.sleep(0.005)
        print("after")

    def threaded():
        thread = threading.Thread(target=lambda: print("from my own thread"))
        thread.start()
        thread.join()

    def below():
        os.write(1, "naïve\\n".encode())
        os.write(2, b"unended")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)

    def logs():
        print("printed first")
        logging.getLogger("shop").info("at %d", 3)
        try:
            1 / 0
        except ZeroDivisionError:
            logging.getLogger("shop").exception("it failed")

    def buffered():
        sys.stdout.buffer.write("é".encode()[:1])
        sys.stdout.buffer.write("é".encode()[1:] + b"\\n")
        sys.stdout.writelines(["a\\n", "b\\n"])
        sys.stdout.flush()
        return [sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.fileno()]

    def secret():
        print("key=hunter22-hunter22")
        os.write(1, b"key=hunter22-hunter22\\n")

    def forks(job: Job):
        warnings.simplefilter("ignore")
        child = os.fork()
        if not child:
            print("from a fork")
            logging.getLogger("shop").warning("logged in a fork")
            job.progress("from a fork")
            os._exit(0)
        os.waitpid(child, 0)
        return "whole"

    def floods():
        line = "x" * 999
        for _ in range(100_000):
            print(line)
        return peak()

    def one_line():
        print("y" * 50_000_000)
        return peak()

    def floods_below():
        subprocess.run([sys.executable, "-c", "for _ in range(300_000): print('z' * 99)"], check=True)
        return peak()

    def progress():
        for step in (1, 2):
            sys.stderr.write(f"\\r{step}0%")
        while not Path("seen").exists():
            sys.stderr.write("\\r30%")
        sys.stderr.write("\\r100%\\n")

    def peak():
        return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) // 1024
"""
NAMES = re.findall(r"^    (?:async )?def (\w+)\(", HANDLER, re.MULTILINE)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    root = write(tmp_path_factory.mktemp("capture"), {"endpoints/a/handler.py": HANDLER})
    functions = [job(f"a/{name}", name, directory="a") for name in NAMES if name != "handler"]
    config = endpoint(job("a"), *functions, concurrency=4)
    with Worker(root, config, env={"KEY": "hunter22-hunter22"}, secrets=("KEY",)) as worker:
        worker.ready()
        worker.until_logged("shop: imported\n")
        yield worker
        assert worker.drain() == 0


def run(worker: Worker, function: str) -> str:
    """Runs a job; its id."""
    call = worker.call(function)
    assert worker.end(call).kind is Kind.RESULT
    return f"j{call}"


def test_output_comes_with_the_job_before_its_result(worker: Worker) -> None:
    id = run(worker, "a")
    assert worker.logs(job=id, stream="stdout") == "to stdout\nno newline"
    assert worker.logs(job=id, stream="stderr") == "to stderr\n"


def test_jobs_beside_each_other_keep_their_output_apart(worker: Worker) -> None:
    first, second = worker.call("a/waits"), worker.call("a/waits")
    id = run(worker, "a")
    (worker.root / "go").touch()
    for call in (first, second):
        worker.end(call)
        assert worker.logs(job=f"j{call}") == "before\nafter\n"
    assert "to stdout" in worker.logs(job=id)


def test_what_the_only_job_causes_elsewhere_is_its_own(worker: Worker) -> None:
    assert worker.logs(job=run(worker, "a/threaded")) == "from my own thread\n"
    id = run(worker, "a/below")
    assert worker.logs(job=id, stream="stdout") == "naïve\nfrom a child\n"
    assert worker.logs(job=id, stream="stderr") == "unended"


def test_logging_keeps_its_level_and_order(worker: Worker) -> None:
    id = run(worker, "a/logs")
    frames = [frame for frame in worker.frames if frame.kind is Kind.LOG and frame.meta["job"] == id]
    assert [frame.meta["level"] for frame in frames] == ["", "info", "error"]
    assert frames[0].body == b"printed first\n"
    assert frames[1].body == b"shop: at 3\n"
    assert b"ZeroDivisionError" in frames[2].body


def test_the_streams_behave_as_files(worker: Worker) -> None:
    call = worker.call("a/buffered")
    assert json.loads(worker.end(call).body) == [False, "utf-8", 1]
    assert worker.logs(job=f"j{call}") == "é\na\nb\n"


def test_a_forked_child_keeps_off_the_link(worker: Worker) -> None:
    call = worker.call("a/forks")
    assert worker.end(call).body == b'"whole"'
    assert "from a fork\n" in worker.logs(job=f"j{call}")
    assert "shop: logged in a fork\n" in worker.logs(job=f"j{call}")


def test_secrets_do_not_reach_the_log(worker: Worker) -> None:
    assert worker.logs(job=run(worker, "a/secret")) == "key=[redacted]\nkey=[redacted]\n"


@pytest.mark.parametrize(("function", "size"), [("floods", 100_000_000), ("floods_below", 30_000_000)])
def test_floods_of_output_leave_memory_alone(worker: Worker, function: str, size: int) -> None:
    before = json.loads(worker.result("a/peak"))
    call = worker.call(f"a/{function}")
    printed = 0
    while (frame := worker.next(Kind.LOG, Kind.RESULT, call=None)).kind is Kind.LOG:
        if frame.meta["job"] == f"j{call}":
            assert frame.body.endswith(b"\n")
            printed += len(frame.body)
    assert printed == size
    assert json.loads(frame.body) - before < 30


def test_a_line_without_end_is_cut(worker: Worker) -> None:
    worker.call("a/one_line")
    printed = 0
    while (frame := worker.next(Kind.LOG, Kind.RESULT, call=None)).kind is Kind.LOG:
        printed += len(frame.body)
        assert len(frame.body) <= 1 << 16
    assert printed == 50_000_001


def test_a_progress_bar_is_seen_before_it_ends(worker: Worker) -> None:
    call = worker.call("a/progress")
    first = worker.next(Kind.LOG, call=None)
    (worker.root / "seen").touch()

    assert first.body in (b"20%\n", b"30%\n")
    assert worker.end(call).kind is Kind.RESULT
