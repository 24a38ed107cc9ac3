"""Who runs, told to the guard and noted on the disk, so that nobody outlives the server."""

from __future__ import annotations

from pathlib import Path

from flashfw.cluster.placement.guarding import Guarding
from flashfw.cluster.placement.records import Records
from flashfw.cluster.placement.tree import kill_tree


class Register:
    """The processes of one server, each the leader of its group. `folder` holds the notes. From any thread."""

    def __init__(self, folder: Path) -> None:
        self._records = Records(folder)
        self._guarding = Guarding()

    def add(self, name: str, pid: int) -> Path:
        """A process was started; its note, to be unlinked once it is gone.

        Raises:
            OSError: it cannot be noted, or no guard can be started. Nothing is known of it then.
        """
        try:
            self._guarding.add(pid)
            return self._records.write(name, pid)
        except OSError:
            self._guarding.remove(pid)
            raise

    def remove(self, pid: int) -> None:
        """It ended; to be called while its id is still its own."""
        self._guarding.remove(pid)

    def sweep(self) -> list[int]:
        """Kill what a dead server left behind; the process ids."""
        swept: list[int] = []
        for path, record in self._records.read():
            if record is not None and record.is_orphan:
                kill_tree(record.worker.pid)
                swept.append(record.worker.pid)
            elif record is not None and not record.is_over:
                continue  # its server lives
            path.unlink(missing_ok=True)
        return swept

    def close(self) -> None:
        """End the guard. All processes have ended before."""
        self._guarding.close()
