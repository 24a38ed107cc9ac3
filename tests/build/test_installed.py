"""What an installer left, made the same for everybody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flashfw.build import installed
from flashfw.bundle.archive import ArchiveError
from flashfw.project.ignore import Ignores


def put(folder: Path, path: str, data: bytes = b"x", mode: int = 0o644) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    os.chmod(folder / path, mode)


def contents(found: installed.Installed) -> dict[str, bytes]:
    return {
        entry.path: entry.data if isinstance(entry.data, bytes) else entry.data.read_bytes() for entry in found.entries
    }


@pytest.mark.parametrize(
    "line",
    [
        b"#!/home/me/.venv/bin/python3.11\n",
        b"#!/usr/bin/env python3\n",
        b"#!/bin/sh\n'''exec' '/a long/path/to/python' \"$0\" \"$@\"\n' '''\n",
    ],
)
def test_scripts_name_no_interpreter_of_this_machine(tmp_path: Path, line: bytes) -> None:
    put(tmp_path, "bin/tool", line + b"# -*- coding: utf-8 -*-\nimport tool\n", 0o755)
    found = installed.read(tmp_path, exclude=Ignores())

    assert contents(found) == {"bin/tool": b"#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\nimport tool\n"}
    assert found.entries[0].executable


def test_programs_and_other_scripts_stay_as_they_are(tmp_path: Path) -> None:
    put(tmp_path, "bin/program", b"\x7fELF\0", 0o755)
    put(tmp_path, "bin/shell", b"#!/bin/sh\necho python\n", 0o700)
    put(tmp_path, "a/script.py", b"#!/home/me/bin/python\n")

    assert contents(installed.read(tmp_path, exclude=Ignores())) == {
        "a/script.py": b"#!/home/me/bin/python\n",
        "bin/program": b"\x7fELF\0",
        "bin/shell": b"#!/bin/sh\necho python\n",
    }


def test_lists_of_files_say_what_is_there(tmp_path: Path) -> None:
    rows = b"b.py,sha256=y,1\na.py,sha256=x,1\nbin/tool,sha256=z,9\na_b-1.dist-info/RECORD,,\n"
    rows += b"gone.py,sha256=q,1\n__pycache__/a.pyc,,\n"
    for path in ("a.py", "b.py", "__pycache__/a.pyc", "tests/t.py", "a_b-1.dist-info/METADATA"):
        put(tmp_path, path)
    put(tmp_path, "bin/tool", b"#!/x/python\n")
    put(tmp_path, "A_b-1.dist-info/RECORD", rows + b"tests/t.py,,\n")
    found = installed.read(tmp_path, exclude=Ignores.of(("tests/",)))

    record = contents(found)["A_b-1.dist-info/RECORD"]
    assert record == b"a.py,sha256=x,1\nb.py,sha256=y,1\nbin/tool,,\n"
    assert "tests/t.py" not in contents(found)
    assert "__pycache__/a.pyc" not in contents(found)
    assert found.sizes == {"a-b==1": 2 + len(b"#!/x/python\n")}


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")

    with pytest.raises(ArchiveError, match="'link', which is no regular file"):
        installed.read(tmp_path, exclude=Ignores())
