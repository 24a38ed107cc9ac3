"""Saved files in a running worker: new code for the calls that come, the old one for those that run, fixtures kept."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from flashfw.manifest import Batch, Endpoint
from flashfw.worker.frames import Kind
from tests.worker.harness import Worker, endpoint, http, job, write

ONE = {
    "endpoints/a/handler.py": "from lib.words import GREETING\ndef handler(model):\n    return [GREETING, model]\n",
    "endpoints/fixtures.py": """
        import itertools
        COUNT = itertools.count(1)
        def model():
            yield next(COUNT)
            print("closed")
        def other(model):
            return f"other {model}"
        def broken():
            raise RuntimeError("no weights")
        """,
    "lib/words.py": "GREETING = 'one'\n",
    "lib/apart.py": "LOADS = []\n",
}


def started(root: Path, of: Endpoint | None = None, files: dict[str, str] = ONE) -> Worker:
    worker = Worker(write(root, files), of or endpoint(job("a")), reloads=True)
    worker.ready()
    return worker


def result(worker: Worker, function: str = "a") -> object:
    return json.loads(worker.result(function))


def test_a_module_that_a_handler_imports_is_taken_in_and_fixtures_stay(tmp_path: Path) -> None:
    with started(tmp_path) as worker:
        before = result(worker)
        answer = worker.reload({"lib/words.py": "GREETING = 'two'\n"})

        assert (before, result(worker)) == (["one", 1], ["two", 1])
        assert "why" not in answer
        assert answer["files"] == ["endpoints/a/handler.py", "endpoints/fixtures.py", "lib/words.py"]
        assert worker.drain() == 0
        assert worker.logs() == "closed\n"


def test_edits_of_the_same_length_are_seen_however_soon(tmp_path: Path) -> None:
    with started(tmp_path) as worker:
        times = os.stat(tmp_path / "lib/words.py")
        for word in ("two", "six", "ten", "one"):
            write(tmp_path, {"lib/words.py": f"GREETING = '{word}'\n"})
            os.utime(tmp_path / "lib/words.py", ns=(times.st_atime_ns, times.st_mtime_ns))
            worker.ask_reload("lib/words.py")
            assert "why" not in worker.next(Kind.RELOADED).meta
            assert result(worker) == [word, 1]


def test_a_file_that_was_only_touched_imports_nothing(tmp_path: Path) -> None:
    files = {
        **ONE,
        "endpoints/a/handler.py": "import itertools\nN = itertools.count()\ndef handler(): return next(N)\n",
    }
    with started(tmp_path, files=files) as worker:
        assert result(worker) == 0
        worker.ask_reload("endpoints/a/handler.py")
        assert "why" not in worker.next(Kind.RELOADED).meta
        assert result(worker) == 1


def test_modules_that_did_not_change_and_import_nothing_changed_stay(tmp_path: Path) -> None:
    handler = """
        from lib import apart, words
        apart.LOADS.append(1)
        def handler(): return [words.GREETING, len(apart.LOADS)]
        """
    with started(tmp_path, files={**ONE, "endpoints/a/handler.py": handler}) as worker:
        worker.reload({"lib/words.py": "GREETING = 'two'\n"})
        assert result(worker) == ["two", 2]  # of `from lib import words` the package's attribute is new, too


def test_a_file_that_is_loaded_by_two_names_is_imported_anew_by_both(tmp_path: Path) -> None:
    handler = """
        import sys
        sys.path.append("lib")
        import words
        from lib import words as again
        def handler(): return [words.GREETING, again.GREETING]
        """
    with started(tmp_path, files={**ONE, "endpoints/a/handler.py": handler}) as worker:
        before = result(worker)
        worker.reload({"lib/words.py": "GREETING = 'two'\n"})

        assert (before, result(worker)) == (["one", "one"], ["two", "two"])


def test_a_module_that_only_calls_import_and_that_refuses_a_second_time_asks_for_a_new_process(tmp_path: Path) -> None:
    once = """
        import builtins
        assert not hasattr(builtins, "once"), "twice"
        builtins.once = True
        V = "one"
        """
    handler = "def handler():\n    from lib.once import V\n    return V\n"
    with started(tmp_path, files={"endpoints/a/handler.py": handler, "lib/once.py": once}) as worker:
        assert result(worker) == "one"
        answer = worker.reload({"lib/once.py": once.replace("one", "two")})

        assert answer["why"] == "AssertionError as it was taken into the running worker"
        assert result(worker) == "one"


def test_a_module_that_went_is_not_missed_where_nothing_imports_it(tmp_path: Path) -> None:
    handler = "def handler():\n    import lib.words\n    return lib.words.GREETING\n"
    with started(tmp_path, files={**ONE, "endpoints/a/handler.py": handler}) as worker:
        assert result(worker) == "one"
        (tmp_path / "lib/words.py").unlink()
        write(tmp_path, {"endpoints/a/handler.py": "def handler(): return 'two'\n"})
        worker.ask_reload("endpoints/a/handler.py", "lib/words.py")

        assert "why" not in worker.next(Kind.RELOADED).meta
        assert result(worker) == "two"


def test_a_call_that_runs_ends_on_the_code_it_began_with(tmp_path: Path) -> None:
    handler = """
        import time
        from pathlib import Path
        def said(): return "old"
        def handler(gate: str):
            Path(gate + ".began").touch()
            while not Path(gate).exists(): time.sleep(0.001)
            return said()
        """
    gate = tmp_path / "gate"
    body = json.dumps({"gate": str(gate)}).encode()
    with started(tmp_path, endpoint(job("a"), concurrency=2), {"endpoints/a/handler.py": handler}) as worker:
        call = worker.call("a", body)
        while not Path(f"{gate}.began").exists():
            pass
        worker.reload({"endpoints/a/handler.py": handler.replace("old", "new")})
        gate.touch()

        assert worker.end(call).body == b'"old"'
        assert worker.result("a", body) == b'"new"'


def test_a_file_is_told_before_its_code_runs(tmp_path: Path) -> None:
    handler = "def handler(gate: str):\n    import lib.waits\n    return lib.waits.wait(gate)\n"
    waits = """
        from pathlib import Path
        def wait(gate):
            while not Path(gate).exists(): pass
        """
    files = {"endpoints/a/handler.py": handler, "lib/waits.py": waits}
    with started(tmp_path, files=files) as worker:
        assert worker.next(Kind.LOADED).meta["files"] == ["endpoints/a/handler.py"]
        call = worker.call("a", json.dumps({"gate": str(tmp_path / "gate")}).encode())
        assert worker.next(Kind.LOADED).meta["files"] == ["lib/waits.py"]
        (tmp_path / "gate").touch()
        worker.end(call)


def test_functions_come_and_go(tmp_path: Path) -> None:
    with started(tmp_path) as worker:
        now = endpoint(dataclasses.replace(job("b", "second", directory="a"), id="a::second"))
        answer = worker.reload({"endpoints/a/handler.py": "def second(other): return other\n"}, endpoint=now)

        assert "why" not in answer
        assert result(worker, "a::second") == "other 1"  # a fixture that nobody needed before, over one that was there
        assert worker.failure("a")["reason"] == "function_gone"


def test_a_function_takes_a_fixture_that_was_written_before_anybody_took_one(tmp_path: Path) -> None:
    handler = "def handler(): return 'none'\n"
    with started(tmp_path, files={**ONE, "endpoints/a/handler.py": handler}) as worker:
        assert result(worker) == "none"
        write(tmp_path, {"endpoints/fixtures.py": "def late(): return 'late'\n"})  # concerns no worker yet
        answer = worker.reload({"endpoints/a/handler.py": "def handler(late): return late\n"})

        assert "why" not in answer
        assert result(worker) == "late"


def test_modules_are_imported_on_the_thread_that_async_calls_run_on(tmp_path: Path) -> None:
    handler = """
        import threading
        MADE = threading.get_ident()
        async def handler(): return ["one", MADE == threading.get_ident()]
        """
    with started(tmp_path, files={"endpoints/a/handler.py": handler}) as worker:
        before = result(worker)
        worker.reload({"endpoints/a/handler.py": handler.replace("one", "two")})

        assert (before, result(worker)) == (["one", True], ["two", True])


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        ("def handler(:\n", "SyntaxError"),
        ("import lib.words\n1 / 0\n", "ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", "SystemExit"),
        ("def other(): ...\n", "LoadError"),
        ("def handler(x: 'Nope'): ...\n", "SignatureError"),
        ("def handler(broken): ...\n", "FixtureFailed"),
        ("class handler:\n    def __init__(self): 1 / 0\n    def __call__(self): ...\n", "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_taken_in_changes_nothing(tmp_path: Path, handler: str, why: str) -> None:
    with started(tmp_path) as worker:
        before = result(worker)
        changed = {"endpoints/a/handler.py": handler, "lib/words.py": "GREETING = 'two'\n"}
        answer = worker.reload(changed)

        assert why in answer["why"]
        assert result(worker) == before
        mended = {"endpoints/a/handler.py": ONE["endpoints/a/handler.py"] + "# again\n"}
        assert "why" not in worker.reload({**changed, **mended})
        assert result(worker) == ["two", 1]


def test_changed_fixtures_ask_for_a_new_process(tmp_path: Path) -> None:
    with started(tmp_path) as worker:
        answer = worker.reload({"endpoints/fixtures.py": "def model(): return 5\n"})

        assert answer["why"] == "endpoints/fixtures.py: fixtures are built anew"
        assert result(worker) == ["one", 1]


CLASS = """
    from pathlib import Path
    class handler:
        def __init__(self, model): self.model = model
        def __call__(self, gate: str = ""):
            Path(gate + ".began").touch()
            while gate and not Path(gate).exists(): pass
            return "one"
        def close(self): print("one closed")
    """


def test_instances_are_made_anew_and_the_old_ones_closed_after_their_last_call(tmp_path: Path) -> None:
    files = {**ONE, "endpoints/a/handler.py": CLASS, "endpoints/a/kept/handler.py": CLASS.replace("one", "kept")}
    gate = tmp_path / "gate"
    of = endpoint(job("a"), job("a/kept"), concurrency=2)
    with started(tmp_path, of, files) as worker:
        call = worker.call("a", json.dumps({"gate": str(gate)}).encode())
        while not Path(f"{gate}.began").exists():
            pass
        answer = worker.reload({"endpoints/a/handler.py": CLASS.replace("one", "two")})
        during = result(worker), result(worker, "a/kept")
        logged = worker.logs()
        gate.touch()
        worker.end(call)

        assert "why" not in answer
        assert (during, logged) == (("two", "kept"), "")
        assert worker.until_logged("one closed\n") == "one closed\n"
        assert worker.drain() == 0
        assert sorted(worker.logs().splitlines()) == ["closed", "kept closed", "one closed", "two closed"]


def test_an_instance_that_nobody_uses_is_closed_at_once(tmp_path: Path) -> None:
    with started(tmp_path, files={**ONE, "endpoints/a/handler.py": CLASS}) as worker:
        worker.reload({"endpoints/a/handler.py": CLASS.replace("one", "two")})
        assert worker.until_logged("one closed\n") == "one closed\n"


def test_an_http_function_is_taken_in(tmp_path: Path) -> None:
    files = {"endpoints/api/handler.py": "async def get(): return 'one'\n"}
    of = endpoint(http("api::get", "GET", route="/api", directory="api"), concurrency=2)
    with started(tmp_path, of, files) as worker:
        answer = worker.reload({"endpoints/api/handler.py": "def get(): return 'two'\n"})
        call = worker.request("api::get")

        assert "why" not in answer
        assert worker.next(Kind.HEAD, call=call).body == b'"two"'


def test_a_batch_ends_on_the_code_it_began_with(tmp_path: Path) -> None:
    batched = dataclasses.replace(job("a"), batch=Batch(max_size=2, max_wait_s=0.1))
    old = "def handler(items: list[int]): return ['old'] * len(items)\n"
    with started(tmp_path, endpoint(batched), {"endpoints/a/handler.py": old}) as worker:
        first = worker.call("a", b"1", batch="b", of=2)
        worker.reload({"endpoints/a/handler.py": old.replace("old", "new")})
        second = worker.call("a", b"1", batch="b", of=2)

        assert [worker.end(call).body for call in (first, second)] == [b'"old"'] * 2
        assert worker.end(worker.call("a", b"1")).body == b'"new"'
