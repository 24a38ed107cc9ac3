from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flashfw.cluster.environments.system_dependencies import install_line, missing_system_dependencies

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="no Debian")


@needs_dpkg
def test_tells_what_is_not_installed_in_the_order_of_the_names() -> None:
    missing = missing_system_dependencies(["zz-no-such-package", "dpkg", "base-files", "aa-no-such-package"])

    assert missing == ["zz-no-such-package", "aa-no-such-package"]


@needs_dpkg
def test_a_name_is_never_taken_for_an_option() -> None:
    assert missing_system_dependencies(["--version"]) == ["--version"]


def test_no_names_need_nothing() -> None:
    assert missing_system_dependencies([]) == []


def test_the_line_that_installs() -> None:
    assert install_line(["ffmpeg", "libgl1"]) == "sudo apt-get install -y ffmpeg libgl1"


def test_nothing_is_missing_where_dpkg_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "dpkg-query"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert missing_system_dependencies(["zz-no-such-package"]) == []
