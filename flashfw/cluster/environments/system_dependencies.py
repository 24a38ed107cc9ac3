"""System packages that endpoints name: which of them this machine lacks, and the line that installs them."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence


def missing_system_dependencies(names: Sequence[str]) -> list[str]:
    """Those of the Debian packages `names` that are not installed, in their order.

    Nothing is missing where that cannot be told: outside Linux, and where there is no dpkg. A process
    is started, so call it in a thread. A package that another one provides under its name counts as missing.
    """
    if not names or sys.platform != "linux" or shutil.which("dpkg-query") is None:
        return []
    asked = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", "--", *names]
    # It ends with 1 as soon as one is unknown, and still shows the others.
    try:
        shown = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    except OSError:  # a dpkg-query that does not run tells nothing
        return []
    installed = {package for package, _, status in map(_columns, shown.splitlines()) if status == "installed"}
    return [name for name in names if name.partition(":")[0] not in installed]


def install_line(names: Sequence[str]) -> str:
    """What a person runs to install them.

    >>> install_line(["ffmpeg", "libgl1"])
    'sudo apt-get install -y ffmpeg libgl1'
    """
    return f"sudo apt-get install -y {shlex.join(names)}"


def _columns(line: str) -> tuple[str, str, str]:
    return line.partition(" ")
