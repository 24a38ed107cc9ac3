"""Which files of a project travel: all that it needs, nothing that is secret, nothing from outside."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from flashfw.build import source
from flashfw.build.digests import Digests
from flashfw.build.source import Sources
from flashfw.bundle import archive
from flashfw.project.ignore import Ignores

LATER_NS = 1 << 62
"""A time at which every file has settled."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "shop"
    put(found, "endpoints/a/handler.py", "def handler(): ...")
    return found


def put(root: Path, path: str, text: str | bytes = "") -> Path:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(text.encode() if isinstance(text, str) else text)
    return root / path


def find(root: Path, *, exclude: tuple[str, ...] = (), counted: tuple[str, ...] = ()) -> Sources:
    known = {path: sha for path, sha in ((path, sha_of(root, path)) for path in counted) if sha}
    digests = Digests(root.parent / "digests.json", now_ns=LATER_NS)
    found = source.find(root, exclude=Ignores.of(exclude), counted=known, digests=digests)
    digests.save()
    return found


def sha_of(root: Path, path: str) -> str:
    import hashlib

    return hashlib.sha256((root / path).read_bytes()).hexdigest()


def why(found: Sources) -> dict[str, str]:
    return {item.path: item.why for item in found.left_out}


def test_files_travel_by_their_paths(root: Path) -> None:
    put(root, "lib/data/words.txt", "words")
    put(root, "lib/empty.py")
    os.chmod(put(root, "run.sh", "#!/bin/sh"), 0o744)
    (root / "an_empty_folder").mkdir()
    found = find(root)

    assert [*found.files] == ["endpoints/a/handler.py", "lib/data/words.txt", "lib/empty.py", "run.sh"]
    assert [path for path, file in found.files.items() if file.executable] == ["run.sh"]
    assert (found.problems, found.left_out) == ([], [])


def test_ignore_files_and_exclude_leave_out(root: Path) -> None:
    put(root, ".gitignore", "/data\n*.log\n!keep.log\n")
    put(root, "lib/.flashfwignore", "big.bin")
    for path in ("data/x", "a.log", "keep.log", "lib/big.bin", "lib/x.py", "notes/n.md", "tests/t.py"):
        put(root, path)
    found = find(root, exclude=("tests/", "*.md"))

    assert [*found.files] == ["endpoints/a/handler.py", "keep.log", "lib/x.py"]
    assert why(found) == {
        ".gitignore": "hidden",
        "a.log": "ignore file",
        "data/": "ignore file",
        "lib/.flashfwignore": "hidden",
        "lib/big.bin": "ignore file",
        "notes/n.md": "build.exclude",
        "tests/": "build.exclude",
    }


@pytest.mark.parametrize(
    "path",
    [
        *(".env", ".env.local", "prod.env", ".netrc", ".npmrc", ".pypirc", "certs/server.pem", "tls.key", "id_rsa"),
        *("deploy/ID_ED25519", "credentials.json", "service-account.json", "my-service-account.json", "secrets.toml"),
        *("kubeconfig", "infra/terraform.tfstate", ".aws/credentials", "home/.ssh/config", "x/.kube/config"),
    ],
)
def test_credentials_never_travel(root: Path, path: str) -> None:
    put(root, path, "secret")
    put(root, ".flashfwignore", f"!{path}\n!.*\n")
    found = find(root)

    assert [*found.files] == ["endpoints/a/handler.py"]
    assert "credentials" in why(found).values()


def test_credentials_are_known_by_their_content(root: Path) -> None:
    put(root, "deploy_key", "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n")
    put(root, "gcp.json", '{"type": "service_account", "private_key": "x"}')
    put(root, "schema.json", '{"properties": {"private_key": {"type": "string"}}}')
    put(root, "broken.json", '{"private_key"')
    found = find(root)

    assert why(found) == {"deploy_key": "credentials", "gcp.json": "credentials"}
    assert "schema.json" in found.files
    assert "broken.json" in found.files


def test_state_of_tools_does_not_travel(root: Path) -> None:
    for path in (".git/config", ".venv/x.py", "lib/__pycache__/x.pyc", "node_modules/x.js", "my_env/pyvenv.cfg"):
        put(root, path)
    put(root, "my_env/lib/x.py")
    put(root, ".flashfw/jobs.sqlite")
    put(root, "flashfw.lock")
    found = find(root)

    assert [*found.files] == ["endpoints/a/handler.py"]
    assert set(why(found).values()) == {"state of a tool", "part of the release itself"}


def test_what_an_endpoint_runs_by_travels_although_it_is_ignored(root: Path) -> None:
    put(root, ".gitignore", "generated/\n")
    put(root, "generated/api_pb2.py", "X = 1")
    put(root, ".prompts/hello.txt", "hello")
    found = find(root, counted=("generated/api_pb2.py", ".prompts/hello.txt"))

    assert [*found.files] == [".prompts/hello.txt", "endpoints/a/handler.py", "generated/api_pb2.py"]
    assert found.problems == []


def test_what_an_endpoint_runs_by_cannot_be_excluded_or_secret(root: Path) -> None:
    put(root, "lib/x.py")
    put(root, "certs/ca.pem")
    found = find(root, exclude=("lib/",), counted=("lib/x.py", "certs/ca.pem"))

    assert {problem.file: problem.what for problem in found.problems} == {
        "lib/x.py": "is imported or included by an endpoint, and excluded by 'build.exclude'",
        "certs/ca.pem": "counts for an endpoint, and is protected: it never travels",
    }


def test_a_file_that_changed_since_it_was_compiled_is_a_problem(root: Path) -> None:
    digests = Digests(root.parent / "digests.json", now_ns=0)
    counted = {"endpoints/a/handler.py": "0" * 64}
    found = source.find(root, exclude=Ignores(), counted=counted, digests=digests)

    assert [str(problem) for problem in found.problems] == [
        "endpoints/a/handler.py: changed while it was built; build again"
    ]


def test_links_inside_the_project_are_followed(root: Path) -> None:
    put(root, "lib/x.py", "X = 1")
    (root / "y.py").symlink_to("lib/x.py")
    (root / "also_lib").symlink_to("lib")
    (root / "secret").symlink_to(put(root, ".env", "KEY=1"))
    found = find(root)

    assert [*found.files] == ["also_lib/x.py", "endpoints/a/handler.py", "lib/x.py", "y.py"]
    assert found.files["y.py"].data == b"X = 1"
    assert why(found)["secret"] == "credentials"
    assert found.problems == []


def test_links_that_lead_elsewhere_are_problems(root: Path) -> None:
    outside = put(root.parent, "outside.txt", "not of the project")
    (root / "out").symlink_to(outside)
    (root / "outer").symlink_to(root.parent)
    (root / "nowhere").symlink_to("gone")
    (root / "itself").symlink_to("itself")
    (root / "lib").mkdir()
    (root / "lib/up").symlink_to("..")
    (root / "fine").symlink_to("/etc")
    put(root, ".flashfwignore", "/fine")
    found = find(root)

    assert {problem.file: problem.what for problem in found.problems} == {
        "out": f"is a link that leads out of the project, to {outside}",
        "outer": f"is a link that leads out of the project, to {root.parent}",
        "nowhere": "is a link to nothing",
        "itself": "is a link that leads to itself",
        "lib/up": "is a link that leads back to '.'",
    }
    assert [*found.files] == ["endpoints/a/handler.py"]


def test_what_is_no_regular_file_is_a_problem(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(root)  # names of sockets are short
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        found = find(root)

    assert {problem.file: problem.what for problem in found.problems} == {
        "pipe": "is no regular file",
        "socket": "cannot be read: No such device or address",
    }


def test_names_that_no_archive_holds_are_problems(root: Path) -> None:
    for name in (b"\xff\xfe.txt", b"new\nline", b"back\\slash"):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).touch()
    put(root, "Read.me")
    put(root, "read.ME")
    found = find(root)

    assert sorted(problem.what for problem in found.problems) == [
        "'Read.me' and 'read.ME' are the same name where case does not count",
        "has a name that has a backslash or a control character in it",
        "has a name that has a backslash or a control character in it",
        "has a name that is not UTF-8",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_a_problem(root: Path) -> None:
    put(root, "closed.txt").chmod(0)
    (root / "folder").mkdir(mode=0)
    found = find(root)

    assert {problem.file: problem.what for problem in found.problems} == {
        "closed.txt": "cannot be read: Permission denied",
        "folder": "cannot be read: Permission denied",
    }


def test_a_file_that_is_too_large_is_a_problem(root: Path) -> None:
    os.truncate(put(root, "weights.bin"), 9 << 30)  # a hole
    found = find(root)

    assert [str(problem) for problem in found.problems] == [
        "weights.bin: has more than 8 GiB; keep it on a volume, and leave it out"
    ]


def test_the_listing_follows_the_content_alone(root: Path, tmp_path: Path) -> None:
    put(root, "lib/x.py", "X = 1")
    listing = find(root).listing
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (1, 1))
    os.chmod(root / "lib/x.py", 0o600)

    assert find(root).listing == listing
    os.chmod(root / "lib/x.py", 0o700)
    assert find(root).listing != listing


def test_a_large_file_is_hashed_again_when_it_changes(root: Path) -> None:
    large = put(root, "weights.bin", bytes(2 << 20))
    before = find(root).files["weights.bin"].sha256
    known = (root.parent / "digests.json").read_text()
    assert find(root).files["weights.bin"].sha256 == before
    assert (root.parent / "digests.json").read_text() == known
    status = large.stat()
    put(root, "weights.bin", b"x" + bytes((2 << 20) - 1))
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))  # a date that was set back

    assert find(root).files["weights.bin"].sha256 == sha_of(root, "weights.bin") != before


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": [1]}', "[" * 99_999])
def test_damaged_notes_of_hashes_are_none(root: Path, text: str) -> None:
    put(root, "weights.bin", bytes(2 << 20))
    (root.parent / "digests.json").write_text(text)

    assert find(root).files["weights.bin"].sha256 == sha_of(root, "weights.bin")


def test_a_file_that_changes_while_it_is_packed_is_refused(root: Path) -> None:
    put(root, "weights.bin", bytes(2 << 20))
    found = find(root)
    put(root, "weights.bin", b"x" + bytes((2 << 20) - 1))

    with pytest.raises(archive.ArchiveError, match="'weights.bin' changed while it was read; build again"):
        archive.pack((file.entry for file in found.files.values()), root.parent / "source")
