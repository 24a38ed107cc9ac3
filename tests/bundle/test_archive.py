"""Archives: what goes in comes out, the same bytes each time, and nothing hostile leaves a trace."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfw.bundle import archive, paths, tar
from flashfw.bundle.archive import ArchiveError, Entry, Unpacker, pack, unpack
from flashfw.bundle.release import Layer

NAMES = st.text(st.sampled_from("abcé-_.0 ß漢"), min_size=1, max_size=70).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fit(paths_given: list[str]) -> list[str]:
    """Those of the paths that can lie in one folder."""
    names = paths.Names()
    kept = []
    for path in paths_given:
        try:
            names.add_file(path)
        except ArchiveError:
            continue
        kept.append(path)
    return kept


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of its own, so that a test sees what is left in it."""
    found = tmp_path / "layers"
    found.mkdir()
    return found


def compressed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def layer_of(data: bytes) -> Layer:
    return Layer(digest=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def file_head(path: str, size_bytes: int = 0) -> bytes:
    return tar.head(path, size_bytes)


def foreign(*members: tarfile.TarInfo, format: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar as another program makes it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format) as file:
        for member in members:
            file.addfile(member, io.BytesIO(bytes(member.size)))
    return made.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


@given(
    given_files=st.lists(st.tuples(PATHS, st.binary(max_size=1500), st.booleans()), max_size=12),
    cut=st.integers(1, 4000),
)
@settings(max_examples=60)
def test_what_is_packed_is_unpacked(given_files: list[tuple[str, bytes, bool]], cut: int) -> None:
    kept = set(fit([path for path, _, _ in given_files]))
    entries = {path: Entry(path, data, run) for path, data, run in reversed(given_files) if path in kept}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        layer = pack(entries.values(), place / "a.tar.zst")
        again = pack(reversed(entries.values()), place / "b.tar.zst")
        packed = (place / "a.tar.zst").read_bytes()
        unpack((packed[at : at + cut] for at in range(0, len(packed), cut)), place / "into", layer=layer)

        assert files_below(place / "into") == {path: entry.data for path, entry in entries.items()}
        for path, entry in entries.items():
            assert (place / "into" / path).stat().st_mode & 0o777 == (0o755 if entry.executable else 0o644)
        assert again == layer
        assert (place / "b.tar.zst").read_bytes() == packed
        assert sorted(os.listdir(place)) == ["a.tar.zst", "b.tar.zst", "into"]


@given(given_paths=st.lists(PATHS, max_size=8))
@settings(max_examples=30)
def test_other_programs_read_it(given_paths: list[str]) -> None:
    kept = fit(given_paths)
    with tempfile.TemporaryDirectory() as folder:
        pack([Entry(path, path.encode()) for path in kept], Path(folder) / "a")
        plain = zstandard.ZstdDecompressor().decompressobj().decompress((Path(folder) / "a").read_bytes())

    with tarfile.open(fileobj=io.BytesIO(plain)) as read:
        assert read.getnames() == sorted(kept)
        assert all(entry.isreg() and entry.mtime == 0 and entry.uid == 0 for entry in read)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_other_programs_are_read(place: Path, format: int) -> None:
    long = "/".join(["folder"] * 30)
    members = [member("a/", tarfile.DIRTYPE), member("a/b.py", size=700), member("empty/", tarfile.DIRTYPE)]
    data = foreign(*members, *([member(long, size=3)] if format == tarfile.PAX_FORMAT else []), format=format)

    unpack([compressed(data)], place / "into", layer=layer_of(data))

    assert (place / "into/a/b.py").read_bytes() == bytes(700)
    assert (place / "into/empty").is_dir()
    assert (place / "into" / long).is_file() == (format == tarfile.PAX_FORMAT)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "upwards": (file_head("../evil") + tar.END, "has '..' in it"),
    "upwards inside": (file_head("a/../../evil") + tar.END, "has '..' in it"),
    "absolute": (file_head("/tmp/evil") + tar.END, "is absolute"),
    "a dot": (file_head("./a") + tar.END, "has '.' in it"),
    "no name": (file_head("") + tar.END, "empty name"),
    "a doubled slash": (file_head("a//b") + tar.END, "empty name"),
    "a backslash": (file_head("a\\..\\b") + tar.END, "backslash"),
    "a newline": (file_head("a\nb") + tar.END, "control character"),
    "a long name": (file_head("x" * 256) + tar.END, "is too long"),
    "a long path": (file_head("/".join(["x" * 100] * 11)) + tar.END, "is too long"),
    "upwards in a long name": (file_head("../" * 40 + "evil") + tar.END, "has '..' in it"),
    "a folder upwards": (foreign(member("../evil/", tarfile.DIRTYPE)), "has '..' in it"),
    "not UTF-8": (foreign(member("\udcff\udcfe")), "is not UTF-8"),
    "a link": (foreign(member("link", tarfile.SYMTYPE, "/etc/passwd")), "'link' is a link"),
    "a hard link": (foreign(member("a"), member("link", tarfile.LNKTYPE, "a")), "is a hard link"),
    "a character device": (foreign(member("null", tarfile.CHRTYPE)), "is a device"),
    "a block device": (foreign(member("disk", tarfile.BLKTYPE)), "is a device"),
    "a pipe": (foreign(member("pipe", tarfile.FIFOTYPE)), "is a pipe"),
    "a sparse file": (foreign(member("sparse", tarfile.GNUTYPE_SPARSE), format=tarfile.GNU_FORMAT), "kind b'S'"),
    "through a link": (foreign(member("a", tarfile.SYMTYPE, "/tmp"), member("a/evil")), "is a link"),
    "twice": (file_head("a") + file_head("a") + tar.END, "twice in the archive"),
    "case": (file_head("lib/A.py") + file_head("lib/a.py") + tar.END, "where case does not count"),
    "case of folders": (file_head("lib/a.py") + file_head("Lib/b.py") + tar.END, "where case does not count"),
    "accents": (file_head("e\u0301") + file_head("\u00e9") + tar.END, "where case does not count"),
    "a file as a folder": (file_head("a") + file_head("a/b") + tar.END, "both a file and a folder"),
    "a folder as a file": (file_head("a/b") + file_head("a") + tar.END, "both a file and a folder"),
    "an extended header with more": (
        foreign(member("a" * 120, tarfile.SYMTYPE, "b" * 120), format=tarfile.PAX_FORMAT),
        "extended header that flashfw does not write",
    ),
    "an extended header that fills memory": (
        foreign(member("PaxHeader", tarfile.XHDTYPE, size=1 << 20)),
        "extended header that flashfw does not write",
    ),
    "a folder with bytes": (foreign(member("a/", tarfile.DIRTYPE, size=700)), "'a/' has bytes"),
    "a long link by GNU": (foreign(member("a" * 120), format=tarfile.GNU_FORMAT), "kind b'L'"),
    "larger than all": (file_head("a", 1 << 30) + tar.END, "larger than the whole archive"),
    "no end": (file_head("a"), "is cut off"),
    "half a file": (file_head("a", 600) + bytes(512), "is cut off"),
    "nothing": (b"", "is cut off"),
    "after the end": (tar.END + file_head("a"), "goes on after its end"),
    "garbage": (b"x" * 2048, "no archive of flashfw"),
    "a wrong checksum": (file_head("a").replace(b"a", b"b", 1) + tar.END, "checksum"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(place: Path, case: str) -> None:
    data, told = HOSTILE[case]

    with pytest.raises(ArchiveError, match=".*" + told):
        unpack([compressed(data)], place / "into", layer=layer_of(data))

    assert os.listdir(place) == []
    assert os.listdir(place.parent) == [place.name]


def whole(place: Path) -> tuple[bytes, Layer]:
    layer = pack([Entry("a", os.urandom(5000)), Entry("b", b"b" * 5000)], place / "a")
    data = (place / "a").read_bytes()
    (place / "a").unlink()
    return data, layer


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[:-30],
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "garbage": lambda data: b"garbage" * 100,
    "a flipped bit": lambda data: data[:2000] + bytes([data[2000] ^ 1]) + data[2001:],
    "something after it": lambda data: data + b"more of it",
    "twice": lambda data: data + data,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_archive_is_refused_and_leaves_nothing(place: Path, damage: str) -> None:
    data, layer = whole(place)

    with pytest.raises(ArchiveError):
        unpack([DAMAGES[damage](data)], place / "into", layer=layer)

    assert os.listdir(place) == []


def test_another_layer_than_was_said_is_refused(place: Path) -> None:
    data, layer = whole(place)
    other = Layer(digest="0" * 64, size_bytes=layer.size_bytes)

    with pytest.raises(ArchiveError, match="its SHA-256 is"):
        unpack([data], place / "into", layer=other)
    with pytest.raises(ArchiveError, match="larger than the 512 bytes"):
        unpack([data], place / "into", layer=Layer(digest=layer.digest, size_bytes=512))

    assert os.listdir(place) == []


def test_a_bomb_is_stopped_at_the_size_that_was_said(place: Path) -> None:
    told = 1 << 20
    bomb = compressed(file_head("a", 1 << 28) + bytes(1 << 28))

    assert len(bomb) < 1 << 18
    with pytest.raises(ArchiveError, match="larger than"):
        unpack([bomb], place / "into", layer=Layer(digest="0" * 64, size_bytes=told))
    with pytest.raises(ArchiveError, match="larger than"):  # nor is it by many files that are each small
        unpack([compressed((file_head("a", 512) + bytes(512)) * 9)], place / "into", layer=layer_of(b"x" * 2048))
    with pytest.raises(ArchiveError, match="larger than"):  # nor by what decompresses to nothing at all
        unpack([compressed(b"") * 1000] * 1000, place / "into", layer=Layer(digest="0" * 64, size_bytes=9))

    assert os.listdir(place) == []


def test_no_more_memory_than_a_window_is_taken(place: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    wide = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = wide.compress(bytes(1000)) + wide.flush()

    with pytest.raises(ArchiveError, match="memory"):
        unpack([data], place / "into", layer=Layer(digest="0" * 64, size_bytes=1000))


def test_too_many_entries_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "MAX_ENTRIES", 20)
    data = b"".join(file_head(f"{number}/x") for number in range(11)) + tar.END

    with pytest.raises(ArchiveError, match="more than 20 files and folders"):
        unpack([compressed(data)], place / "into", layer=layer_of(data))

    assert os.listdir(place) == []


def test_an_upload_that_is_given_up_leaves_nothing(place: Path) -> None:
    data, layer = whole(place)
    with Unpacker(place / "into", layer=layer) as unpacker:
        unpacker.feed(data[:3000])
        assert os.listdir(place) != []

    assert os.listdir(place) == []
    with pytest.raises(ArchiveError, match="given up"):
        unpacker.feed(data[3000:])
    with pytest.raises(ArchiveError, match="given up"):
        unpacker.finish()
    unpacker.abort()


def test_a_disk_that_is_full_leaves_nothing(place: Path) -> None:
    data, layer = whole(place)
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from flashfw.bundle.archive import unpack\n"
        "from flashfw.bundle.release import Layer\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        f"    unpack([sys.stdin.buffer.read()], Path({str(place / 'into')!r}), "
        f"layer=Layer(digest={layer.digest!r}, size_bytes={layer.size_bytes}))\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)

    assert b"File too large" in ran.stdout
    assert os.listdir(place) == []


def test_a_layer_that_is_there_stays_as_it_is(place: Path) -> None:
    data, layer = whole(place)
    unpack([data], place / "into", layer=layer, durable=True)
    (place / "into/mark").touch()

    unpack([data], place / "into", layer=layer)

    assert sorted(os.listdir(place / "into")) == ["a", "b", "mark"]
    assert os.listdir(place) == ["into"]


def test_what_a_killed_process_left_is_swept(place: Path) -> None:
    data, layer = whole(place)
    Unpacker(place / "into", layer=layer).feed(data[:4000])  # and nobody ends it
    (place / f"{archive.ASIDE}file").touch()
    (place / "kept").touch()

    archive.sweep(place, before=0.0)
    assert len(os.listdir(place)) == 3
    archive.sweep(place)
    assert os.listdir(place) == ["kept"]
    archive.sweep(place / "nowhere")


def test_names_that_cannot_be_are_not_packed(place: Path) -> None:
    for path in ("../a", "/a", "a//b", "a\nb", "\udcff"):
        with pytest.raises(ArchiveError, match="the name"):
            pack([Entry(path, b"")], place / "a")
    with pytest.raises(ArchiveError, match="twice"):
        pack([Entry("a", b""), Entry("a", b"")], place / "a")
    with pytest.raises(ArchiveError, match="case does not count"):
        pack([Entry("a", b""), Entry("A", b"")], place / "a")

    assert os.listdir(place) == []


def test_files_are_read_from_the_disk(place: Path) -> None:
    (place / "big").write_bytes(os.urandom(3 << 20))
    layer = pack([Entry("x/big", place / "big", executable=True)], place / "a", durable=True)
    with (place / "a").open("rb") as stream:
        unpack(stream, place / "into", layer=layer)

    assert (place / "into/x/big").read_bytes() == (place / "big").read_bytes()


def test_a_file_that_cannot_be_packed_leaves_what_was_there(place: Path) -> None:
    (place / "a").write_bytes(b"before")
    with pytest.raises(FileNotFoundError):
        pack([Entry("x", place / "gone")], place / "a")
    with pytest.raises(ArchiveError, match="changed while it was read"):
        pack([Entry("x", Path("/proc/self/status"))], place / "a")  # of size 0, and yet with bytes

    assert (place / "a").read_bytes() == b"before"
    assert sorted(os.listdir(place)) == ["a"]


@given(st.binary(max_size=2000), st.integers(0, 3))
@settings(max_examples=50)
def test_no_bytes_do_harm(data: bytes, start: int) -> None:
    """Whatever is sent is refused in words."""
    whole_data = [b"", file_head("a", 5), file_head("a") + file_head("x" * 120), tar.END][start] + data
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(ArchiveError):
            unpack([compressed(whole_data)], Path(folder) / "into", layer=Layer(digest="0" * 64, size_bytes=4096))

        assert os.listdir(folder) == []
