"""Which names an archive may hold: those that mean the same file below one folder on every system, each once."""

from __future__ import annotations

import unicodedata

from flashfw.errors import Exit, FlashfwError

NAME_BYTES = 255
PATH_BYTES = 1024
MAX_ENTRIES = 500_000
"""Files and folders of one archive."""


class ArchiveError(FlashfwError):
    """An archive is damaged or unsafe, or cannot be made of what was given."""

    exit = Exit.PROBLEMS


def flaw(path: str) -> str | None:
    """Why a path cannot be in an archive, None if it can.

    >>> flaw("lib/model.py"), flaw("../etc/passwd"), flaw("/etc")
    (None, "has '..' in it", 'is absolute')
    """
    try:
        length = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not UTF-8"
    if path.startswith("/"):
        return "is absolute"
    parts = path.split("/")
    for forbidden in ("..", ".", ""):
        if forbidden in parts:
            return f"has {forbidden!r} in it" if forbidden else "has an empty name in it"
    if "\\" in path or any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return "has a backslash or a control character in it"
    if length > PATH_BYTES or any(
        len(part.encode("utf-8")) > NAME_BYTES for part in parts if len(part) * 4 > NAME_BYTES
    ):
        return f"is too long: at most {PATH_BYTES} bytes, {NAME_BYTES} for each name"
    return None


def fold(path: str) -> str:
    """What two paths have in common that some systems take for the same file.

    >>> fold("Lib/A.py") == fold("lib/a.PY")
    True
    """
    return (
        path.lower() if path.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
    )


class Names:
    """The names that one archive holds. What `add_...` lets pass can be made below one folder."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, bool]] = {}
        self._folders: set[str] = {""}

    def add_file(self, path: str) -> list[str]:
        """Takes a file in and returns the folders that are new with it, parents first.

        Raises:
            ArchiveError: the path may not be there, or means the same as another one.
        """
        self._check(path)
        made = self._add_folders(path.rpartition("/")[0])
        self._add(path, is_folder=False)
        return made

    def add_folder(self, path: str) -> list[str]:
        """As `add_file`, for a folder; one that is known is no fault."""
        self._check(path)
        return self._add_folders(path)

    def _check(self, path: str) -> None:
        if found := flaw(path):
            raise ArchiveError(f"the name {path[:PATH_BYTES]!r} {found}")

    def _add_folders(self, path: str) -> list[str]:
        missing = []
        while path not in self._folders:
            missing.append(path)
            path = path.rpartition("/")[0]
        missing.reverse()
        for folder in missing:
            self._add(folder, is_folder=True)
            self._folders.add(folder)
        return missing

    def _add(self, path: str, *, is_folder: bool) -> None:
        key = fold(path)
        if key in self._seen:
            other, was_folder = self._seen[key]
            if other != path:
                what = f"{other!r} and {path!r} are the same name where case does not count"
                raise ArchiveError(what, hint="rename one of them")
            what = "is twice in the archive" if is_folder is was_folder else "is both a file and a folder"
            raise ArchiveError(f"{path!r} {what}")
        if len(self._seen) >= MAX_ENTRIES:
            raise ArchiveError(f"more than {MAX_ENTRIES} files and folders in one archive")
        self._seen[key] = (path, is_folder)
