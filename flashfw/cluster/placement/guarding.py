"""The server's side of the guard: the process that ends workers when the server itself was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from flashfw.cluster.placement import guard


class Guarding:
    """Tells a guard which workers run. The guard is started with the first worker.

    It leads a session of its own, so that neither Ctrl-C nor a kill of the server's group reaches it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._workers: set[int] = set()

    def add(self, pid: int) -> None:
        """A worker was started. From any thread.

        Raises:
            OSError: no guard could be started.
        """
        with self._lock:
            self._workers.add(pid)
            if self._process is None or not _told(self._process, f"+{pid}\n"):
                self._restart()

    def remove(self, pid: int) -> None:
        """A worker ended; to be called while its id is still its own."""
        with self._lock:
            self._workers.discard(pid)
            if self._process is not None:
                _told(self._process, f"-{pid}\n")

    def close(self) -> None:
        """End the guard. The workers have ended before."""
        with self._lock:
            self._end()

    def _restart(self) -> None:
        self._end()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__],
            cwd="/",
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)  # a guard that was stopped must not stop the server
        _told(self._process, "".join(f"+{pid}\n" for pid in sorted(self._workers)))

    def _end(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process = None


def _told(process: subprocess.Popen[bytes], text: str) -> bool:
    """Whether the guard still lives to hear it."""
    assert process.stdin is not None
    try:
        process.stdin.write(text.encode())
    except BlockingIOError:
        pass
    except BrokenPipeError:
        return False
    return True
