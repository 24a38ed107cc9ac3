from __future__ import annotations

import multiprocessing
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import flashfw
from flashfw.cluster.environments.overlay import LAUNCHERS, Overlay

PACKAGE = Path(flashfw.__file__).parent


def test_holds_what_a_worker_imports_and_nothing_else(tmp_path: Path) -> None:
    overlay = Overlay(tmp_path).path()

    found = {path.relative_to(overlay).as_posix() for path in overlay.rglob("*") if path.is_file()}
    worker = {path.relative_to(PACKAGE.parent).as_posix() for path in (PACKAGE / "worker").rglob("*.py")}
    shipped = {f"flashfw/{name}" for name in ("__init__.py", "errors.py", "manifest.py", "py.typed")}
    assert worker | shipped | set(LAUNCHERS) == found


def test_is_the_flashfw_that_the_launcher_imports(tmp_path: Path) -> None:
    overlay = Overlay(tmp_path).path()
    code = f"import sys; sys.path[0] = {str(overlay)!r}; import flashfw.worker.main as m; print(m.__file__)"

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)

    assert str(overlay / "flashfw" / "worker" / "main.py") == shown.stdout.strip()


def test_the_launcher_ends_when_nobody_is_at_the_other_end(tmp_path: Path) -> None:
    overlay = Overlay(tmp_path).path()
    ours, theirs = socket.socketpair()
    ours.close()

    with theirs:
        ended = subprocess.run(
            [sys.executable, str(overlay / "run_worker.py"), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
            check=False,
        )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_is_kept_while_the_content_is_the_same(tmp_path: Path) -> None:
    package = _copy(tmp_path)
    first = Overlay(tmp_path / "cache", package=package).path()
    (package / "cli.py").write_text("# not shipped")

    assert first == Overlay(tmp_path / "cache", package=package).path()

    (package / "worker" / "context.py").write_text("# another")

    second = Overlay(tmp_path / "cache", package=package).path()
    assert second != first
    assert (second / "flashfw" / "worker" / "context.py").read_text() == "# another"
    assert {first, second} == set((tmp_path / "cache").iterdir())


def test_mends_a_copy_that_lost_files(tmp_path: Path) -> None:
    overlay = Overlay(tmp_path).path()
    (overlay / "flashfw" / "errors.py").unlink()
    shutil.rmtree(overlay / "flashfw" / "worker")

    assert overlay == Overlay(tmp_path).path()
    assert (overlay / "flashfw" / "errors.py").read_bytes() == (PACKAGE / "errors.py").read_bytes()
    assert (overlay / "flashfw" / "worker" / "main.py").is_file()
    assert [overlay] == list(tmp_path.iterdir())


def test_many_processes_make_one(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        paths = pool.map(_make, [tmp_path] * 6)

    assert len(set(paths)) == 1
    assert [paths[0]] == list(tmp_path.iterdir())


def _make(cache: Path) -> Path:
    return Overlay(cache).path()


def _copy(folder: Path) -> Path:
    package = folder / "flashfw"
    (package / "worker").mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "manifest.py", "py.typed", "worker/run_worker.py", "worker/run_zygote.py"):
        shutil.copy(PACKAGE / name, package / name)
    return package
