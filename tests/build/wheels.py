"""Tiny wheels made on the fly, so that what installs packages is tested without an index."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

NEEDS = {
    "anyio": "4.6.0",
    "h11": "0.14.0",
    "pydantic": "2.9.0",
    "python-multipart": "0.0.27",
    "starlette": "0.49.1",
    "wsproto": "1.2.0",
}
"""What every environment holds for the worker."""


def wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    files: Mapping[str, bytes] | None = None,
    requires: tuple[str, ...] = (),
    scripts: Mapping[str, str] | None = None,
    tag: str = "py3-none-any",
) -> Path:
    """A wheel of one module `<name>.py`, or of `files`; `scripts` are console scripts: `{"run": "module:function"}`."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {line}\n" for line in requires)
    content = dict(
        files if files is not None else {f"{name.replace('-', '_')}.py": f"VERSION = {version!r}\n".encode()}
    )
    content[f"{info}/METADATA"] = metadata.encode()
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n".encode()
    if scripts:
        lines = "".join(f"{script} = {target}\n" for script, target in scripts.items())
        content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{lines}".encode()
    rows = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in content.items()]
    content[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, data in content.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), data)
    return file


def links(folder: Path) -> str:
    """Puts the worker's needs into a folder; what a pyproject.toml says for uv to take packages from there alone."""
    for name, version in NEEDS.items():
        wheel(folder, name, version)
    return f'[tool.uv]\nno-index = true\nfind-links = ["{folder.as_posix()}"]\n'


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
