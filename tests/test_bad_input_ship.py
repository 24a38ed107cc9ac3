"""What goes wrong between a laptop and a server, tried with the commands, over HTTP as bytes, and on the disk.

One server serves a shop all the while. Whatever is tried is told in words and by its exit code, and what the server
holds is the same before and after. `COVERED` says which test tries what.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import zstandard

from flashfw.errors import Exit
from tests.covered import untested
from tests.dev_process import wait_until
from tests.ship.builds import write
from tests.ship.end_to_end import Served, answering, flashfw, locked, serving, shipping, shop
from tests.wire import Reply, exchange

REACHING, DATA = "client/test_reaching.py::", "serve/test_data.py::"
CERTIFICATES, SHIP = "serve/test_certificates.py::", "ship/test_ship.py::"
RELEASES, ROLLOUTS = "cluster/releases/test_releases.py::", "cluster/releases/test_rollouts.py::"
SECRETS, STATE = "cluster/secrets/test_store.py::", "cluster/test_state.py::"
COVERED = {
    "no server": "test_nobody_is_there",
    "wrong key": "test_a_key_that_does_not_do",
    "revoked key": "test_a_key_that_does_not_do",
    "a caller's key where an admin's is needed": "test_a_key_that_does_not_do serve/test_pages.py::"
    "test_every_page_of_the_administration_needs_an_admin_key",
    "expired certificate": f"{REACHING}test_a_certificate_that_does_not_do "
    f"{CERTIFICATES}test_one_that_is_over_or_not_begun_is_told_with_its_date",
    "self-signed certificate": f"{REACHING}test_a_certificate_of_nobody_known",
    "certificate of another host": f"{REACHING}test_a_certificate_that_does_not_do",
    "http to a port with TLS, and the reverse": f"{REACHING}test_tls_where_there_is_none_and_the_reverse",
    "certificate files that are wrong": f"{CERTIFICATES}test_files_that_cannot_be_read_or_are_something_else_are_told "
    f"{CERTIFICATES}test_a_key_of_another_certificate_is_told {CERTIFICATES}test_a_key_with_a_password_is_told "
    "cli/test_serve.py::test_certificates_that_cannot_be_used",
    "server older or newer than the client": "ship/test_cluster.py::test_a_server_of_another_protocol "
    "ship/test_cluster.py::test_a_release_of_a_newer_flashfw_cannot_be_read",
    "disk full during an upload": f"test_a_disk_that_is_full {RELEASES}test_a_full_disk_is_told_and_leaves_nothing",
    "disk full during a rollout": "test_a_disk_that_is_full_once_the_workers_are_ready "
    f"{RELEASES}test_a_pointer_that_cannot_be_written_fails_the_rollout_before_traffic_moves",
    "disk full when a job comes": "test_a_disk_that_is_full",
    "corrupted upload": "test_an_upload_that_is_damaged test_an_upload_that_is_cut_off",
    "archive with ../, link or device": "test_an_archive_that_would_do_harm "
    "bundle/test_archive.py::test_a_hostile_archive_is_refused_and_leaves_nothing",
    "lock out of date": f"test_a_tree_that_cannot_be_shipped {SHIP}test_a_lock_that_is_out_of_date_stops_the_ship",
    "lock with the marks of a merge": "test_a_tree_that_cannot_be_shipped "
    "cli/test_lock.py::test_a_lock_that_a_merge_left",
    "secret missing": f"test_a_tree_that_cannot_be_shipped {SHIP}test_missing_secrets_are_problems",
    "a file below an endpoint that cannot be read": "test_a_tree_that_cannot_be_shipped "
    "ship/test_plan.py::test_what_cannot_be_read_is_spared_with_all_below",
    "a handler that fails only in the release": "test_a_release_whose_workers_do_not_get_ready",
    "an endpoint that never gets ready": "test_a_release_whose_workers_do_not_get_ready "
    f"{ROLLOUTS}test_one_that_never_gets_ready_fails_the_rollout",
    "removal of an endpoint with queued jobs": "test_an_endpoint_with_jobs_that_wait "
    f"{SHIP}test_a_deletion_needs_a_yes",
    "any bytes to the pages of administration": "test_bodies_that_are_no_request test_names_with_tricks",
    "a layer that the server's disk lost": "test_a_layer_that_was_lost "
    f"{RELEASES}test_a_server_says_at_its_start_which_layers_it_lacks",
    "a data directory that is none": f"{DATA}test_a_file_in_its_place_is_told "
    f"{DATA}test_a_folder_of_something_else_is_left_alone cluster/test_trouble.py::"
    "test_a_file_of_somebody_else_or_of_another_kind_is_named",
    "data of a newer flashfw": f"{DATA}test_the_data_of_a_newer_flashfw_is_refused_and_not_touched "
    f"{STATE}test_what_a_newer_flashfw_wrote_is_refused",
    "state.sqlite damaged or gone": f"{STATE}test_a_page_that_is_damaged_is_said_at_once "
    f"{STATE}test_a_file_that_is_none_is_said_and_left_as_it_is "
    f"{DATA}test_a_folder_that_has_lost_its_state_is_not_taken_for_a_new_one",
    "secret.key missing or another": f"{SECRETS}test_without_the_right_key_file_it_says_so_and_keeps_everything",
    "two servers on one data directory": f"{DATA}test_a_second_server_names_the_first",
    "port taken": "cli/test_serve.py::test_a_port_that_is_taken",
}
"""Each kind of bad input and the tests that try it: of this file, or of another one below `tests/`."""

NOBODY = "http://127.0.0.1:1"
WAITING = """
import time
from pathlib import Path

def handler(gate: str) -> str:
    while not Path(gate).exists():
        time.sleep(0.01)
    return "done"
"""
STEPS = {"endpoints/slow/handler.py": WAITING, "endpoints/slow/endpoint.toml": "workers = [0, 1]\nconcurrency = 1\n"}


@pytest.fixture(scope="module")
def lock(dev_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    return locked(tmp_path_factory.mktemp("locked") / "shop", dev_environ)


@pytest.fixture(scope="module")
def served(lock: str, dev_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that serves the shop with an endpoint that is slow."""
    base = tmp_path_factory.mktemp("served")
    with serving(base, dev_environ) as running:
        flashfw(tree(base / "shop", running, lock), running, "ship", "prod")
        yield running


@pytest.fixture
def project(served: Served, lock: str, tmp_path: Path) -> Path:
    """The tree that is served, in a folder of its own."""
    return tree(tmp_path / "shop", served, lock)


def tree(folder: Path, served: Served, lock: str) -> Path:
    write(shop(folder, served, lock), STEPS)
    with (folder / "flashfw.toml").open("a") as file:
        file.write(f'[environments.nobody]\nurl = "{NOBODY}"\n')
    return folder


def asked(served: Served, page: str) -> Any:
    with served.client() as client:
        answer = client.get(f"/_flashfw/{page}")
        assert answer.status_code == 200, answer.text
        return answer.json()


def held(served: Served) -> dict[str, Any]:
    """What a server holds: releases, keys, secrets, jobs, and the names of all that lies in its folders."""
    keys = [{**key, "last_used": None} for key in asked(served, "keys")["keys"]]
    jobs = [(job["id"], job["state"]) for job in asked(served, "jobs")["jobs"]]
    folders = [served.data / name for name in ("layers", "environments")]
    files = sorted(str(path) for folder in folders for path in folder.glob("*"))
    return {
        "releases": asked(served, "releases"),
        "keys": keys,
        "secrets": asked(served, "secrets"),
        "jobs": jobs,
        "files": files,
    }


@contextmanager
def unchanged(served: Served) -> Iterator[None]:
    """What the server holds is the same after the block, and it answers as before."""
    before = held(served)
    yield
    wait_until(lambda: served.half_done() == [], "what was received by half is removed")
    assert held(served) == before
    assert served.call("api", None).status_code == 405
    with served.client() as client:
        assert client.get("api").json() == "hello"


def sent(served: Served, method: str, page: str, body: bytes = b"", *, length: int | None = None) -> Reply:
    head = (
        f"{method} /_flashfw/{page} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {served.key}\r\n"
    )
    size = len(body) if length is None else length
    return exchange(served.url, f"{head}content-length: {size}\r\n\r\n".encode("latin-1") + body)


def test_every_item_has_its_test() -> None:
    assert untested(COVERED, Path(__file__)) == set()


# Servers and keys


@pytest.mark.parametrize(
    "command",
    [
        "ship nobody",
        "ship nobody --plan",
        "rollback nobody",
        "remove nobody --yes --confirm nobody",
        "status nobody",
        "logs nobody",
        "secret set nobody TOKEN",
        "key create nobody ci",
        "call add {} --env nobody",
        "jobs list --env nobody",
    ],
)
def test_nobody_is_there(project: Path, served: Served, command: str) -> None:
    _, said = flashfw(project, served, *command.split(), code=Exit.TARGET, stdin=b"x")

    assert NOBODY in said
    assert "Connection refused" in said
    assert "flashfw serve" in said


CHANGING = (
    ("ship", "prod", "--yes"),
    ("rollback", "prod"),
    ("remove", "prod", "--yes", "--confirm", "prod"),
    ("secret", "set", "prod", "TOKEN"),
    ("key", "create", "prod", "me", "--scope", "admin"),
)


def test_a_key_that_does_not_do(project: Path, served: Served) -> None:
    caller, revoked = (flashfw(project, served, "key", "create", "prod", name)[0].strip() for name in ("a", "b"))
    flashfw(project, served, "key", "revoke", "prod", revoked.split("_")[1])
    write(project, answering(5))

    with unchanged(served):
        for key, words in (
            ("fw_00000000_" + "a" * 43, "does not know the key"),
            (revoked, "(b) was revoked"),
            (caller, "scope 'admin'"),
            ("", "wants a key"),
        ):
            stranger = replace(served, environ={**served.environ, "FLASHFW_KEY": key})
            for command in CHANGING:
                _, said = flashfw(project, stranger, *command, code=Exit.TARGET, stdin=b"value")
                assert words in said, command
                assert "flashfw key" in said
                assert ("mend or unset it" in said) == bool(key)
                assert not key or key not in said


# Uploads


def tar(*entries: tuple[str, bytes, str], content: bytes = b"x") -> bytes:
    """An archive with entries of any name, type and link."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, kind, link in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, link
            entry.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def put(
    served: Served, data: bytes, packed: bytes | None = None, *, digest: str = "", size: int | None = None
) -> Reply:
    """Send a tar as a layer, or what was made of it."""
    page = f"layers/{digest or hashlib.sha256(data).hexdigest()}?size={len(data) if size is None else size}"
    return sent(served, "PUT", page, zstandard.compress(data) if packed is None else packed)


REG, LINK, HARD, DEVICE, PIPE = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE


def test_an_archive_that_would_do_harm(served: Served, tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    with unchanged(served):
        for archive, words in (
            (tar(("../../evil", REG, "")), "'..'"),
            (tar(("a/../../evil", REG, "")), "'..'"),
            (tar((str(evil)[:90], REG, "")), "absolute"),
            (tar(("link", LINK, str(tmp_path)[:90]), ("link/evil", REG, "")), "is a link"),
            (tar(("a", REG, ""), ("b", HARD, "a")), "is a hard link"),
            (tar(("device", DEVICE, "")), "is a device"),
            (tar(("pipe", PIPE, "")), "is a pipe"),
            (tar(("a", REG, ""), ("a", REG, "")), "twice"),
            (tar(("a", REG, ""), ("a/b", REG, "")), "both a file and a folder"),
        ):
            answer = put(served, archive)
            assert (answer.status, words in answer.message) == (422, True), answer.raw

    assert not evil.exists()


def test_an_upload_that_is_damaged(served: Served) -> None:
    data = tar(("a", REG, ""), content=bytes(range(256)) * 100)
    packed = zstandard.compress(data)
    bomb = zstandard.compress(bytes(100_000_000))
    with unchanged(served):
        for answer in (
            put(served, data, digest="b" * 64),
            put(served, data, size=len(data) - 1),
            put(served, data, size=len(data) + 1),
            put(served, data, packed[:-9]),
            put(served, data, packed + b"more"),
            put(served, data, packed[:60] + bytes([packed[60] ^ 1]) + packed[61:]),
            put(served, data, b""),
            put(served, data, b"no archive"),
            put(served, data, bomb),
        ):
            assert answer.status == 422, answer.raw
            assert answer.message.startswith("layer ")


def test_an_upload_that_is_cut_off(served: Served) -> None:
    packed = zstandard.compress(bytes(1_000_000))
    page = f"layers/{'c' * 64}?size=1000000"
    with unchanged(served):
        head = f"PUT /_flashfw/{page} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.key}\r\n"
        data = f"{head}content-length: 999999\r\n\r\n".encode() + packed
        assert exchange(served.url, data, half_close=True).status in (0, 400)


# Disks


@contextmanager
def full_disk(served: Served) -> Iterator[None]:
    """The server can write to no file while the block runs; the system says that files may grow no more."""
    gateway = served.gateway()
    soft, hard = gateway.rlimit(psutil.RLIMIT_FSIZE)
    gateway.rlimit(psutil.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        gateway.rlimit(psutil.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full(project: Path, served: Served) -> None:
    write(project, answering(6))
    with unchanged(served):
        with full_disk(served):
            _, upload = flashfw(project, served, "ship", "prod", code=Exit.TARGET)
            job = served.call("add", {"a": 0})
            _, secret = flashfw(project, served, "secret", "set", "prod", "TOKEN", code=Exit.TARGET, stdin=b"value")
            _, key = flashfw(project, served, "key", "create", "prod", "ci", code=Exit.TARGET)
        assert "disk is full" in upload
        assert "sent source" not in upload
        assert job.status_code == 503
        assert "the job store" in job.json()["error"]["message"]
        assert "state.sqlite" in secret
        assert "state.sqlite" in key

    assert served.call("add", {"a": 0}).json() == 1


def test_a_disk_that_is_full_once_the_workers_are_ready(project: Path, served: Served, tmp_path: Path) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    waits = f"import time\nfrom pathlib import Path\n\nPath({str(begun)!r}).touch()\n"
    waits += f"while not Path({str(gate)!r}).exists():\n    time.sleep(0.01)\n\n\n"
    write(project, answering(7, more=waits))
    before = asked(served, "releases")["current"]

    with shipping(project, served) as (process, said):
        wait_until(begun.exists, "the worker is there")
        with full_disk(served):
            gate.touch()
            rest = "".join(said)
        assert process.wait() == Exit.FAILED

    assert "could not be written down" in rest
    assert f"traffic never moved: release {before} serves on" in rest
    assert asked(served, "releases")["current"] == before
    assert served.call("add", {"a": 0}).json() == 1
    assert json.loads(flashfw(project, served, "ship", "prod", "--plan", "--json")[0])["state"] == "planned"


def test_a_layer_that_was_lost(project: Path, served: Served) -> None:
    layers = served.data / "layers"
    lost = [layer.name for layer in layers.iterdir()]
    with unchanged(served):
        for name in lost:
            (layers / name).rename(served.base / name)
        said = flashfw(project, served, "ship", "prod")
        assert "sent source" in said[1]
        assert "it has it again" in said[1]
        assert "nothing to do" in said[0]
        assert "sent" not in flashfw(project, served, "ship", "prod")[1]
        for name in lost:
            if not (layers / name).exists():  # of releases before
                (served.base / name).rename(layers / name)


# Trees


def test_a_tree_that_cannot_be_shipped(project: Path, served: Served) -> None:
    lock = (project / "flashfw.lock").read_text()
    merged = lock.replace(
        "[[environment]]", "<<<<<<< HEAD\n[[environment]]\n=======\n[[environment]]\n>>>>>>> theirs", 1
    )
    sound = (project / "endpoints/add/handler.py").read_text()
    with unchanged(served):
        for file, text, words in (
            ("flashfw.lock", merged, "is left of a merge"),
            ("endpoints/add/endpoint.toml", 'dependencies = ["humanize"]\n', "humanize is new; run `flashfw lock`"),
            ("endpoints/add/endpoint.toml", 'secrets = ["A_TOKEN", "B_TOKEN"]\n', "flashfw secret set prod B_TOKEN"),
            ("endpoints/add/endpoint.toml", "[[[", "endpoints/add/endpoint.toml:1: not TOML"),
            ("endpoints/add/handler.py", "def handler(:\n", "endpoints/add/handler.py:1: syntax error"),
        ):
            write(project, {file: text})
            for options in ((), ("--plan",), ("--yes", "--removes-ok")):
                _, said = flashfw(project, served, "ship", "prod", *options, code=Exit.PROBLEMS)
                assert words in said
            write(project, {"flashfw.lock": lock, "endpoints/add/handler.py": sound})
            (project / "endpoints/add/endpoint.toml").unlink(missing_ok=True)


BROKEN = {
    "a file that is not shipped": (
        {".gitignore": "data/\n", "data/words.txt": "a b c"},
        "from pathlib import Path\n\nWORDS = (Path(__file__).parents[2] / 'data/words.txt').read_text()\n",
        ("No such file or directory", "endpoints/add/handler.py:3", 'include = ["/data/words.txt"]'),
    ),
    "a module that the laptop alone has": ({}, "import laptop_only\n", ("'laptop_only'", "endpoints/add/handler.py:1")),
    "never ready": (
        {"endpoints/add/endpoint.toml": 'start_timeout = "1s"\n'},
        "import time\n\ntime.sleep(600)\n",
        ("not ready within start_timeout (1 s)",),
    ),
    "its process ends": ({}, "import os\n\nos._exit(3)\n", ("exited with code 3",)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_release_whose_workers_do_not_get_ready(project: Path, served: Served, case: str) -> None:
    files, code, words = BROKEN[case]
    write(project, {**files, **answering(9, more=f"{code}\n\n")})
    before = asked(served, "releases")["current"]

    _, said = flashfw(project, served, "ship", "prod", code=Exit.FAILED)

    for expected in (*words, f"traffic never moved: release {before} serves on"):
        assert expected in said
    assert asked(served, "releases")["current"] == before
    assert served.call("add", {"a": 0}).json() == 1


def test_an_endpoint_with_jobs_that_wait(project: Path, served: Served, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    jobs = [served.call("slow", {"gate": str(gate)}, prefer="respond-async").json()["id"] for _ in range(3)]
    wait_until(lambda: "IN_PROGRESS" in {asked(served, f"jobs/{job}")["state"] for job in jobs}, "one runs")
    for name in STEPS:
        (project / name).unlink()

    with unchanged(served):
        _, said = flashfw(project, served, "ship", "prod", code=Exit.USAGE)
        assert "3 jobs" in said
        assert "--removes-ok; nothing was changed" in said
        _, said = flashfw(project, served, "remove", "prod", "--yes", code=Exit.USAGE)
        assert "--confirm prod; nothing was changed" in said
        flashfw(project, served, "remove", "prod", "--yes", "--confirm", "shop", code=Exit.USAGE)

    gate.touch()
    wait_until(lambda: {asked(served, f"jobs/{job}")["state"] for job in jobs} == {"COMPLETED"}, "all jobs are done")


# Requests

PAGES = ("POST releases", "POST layers/missing", "POST rollback", "POST remove", "PUT secrets/TOKEN", "POST keys")
BODIES = (
    b"",
    b"hello",
    b"\0",
    b"null",
    b"[]",
    b"1",
    b"[" * 5000,
    b'{"a":' * 1000,
    b'{"name": "\xff"}',
    b'{"release": NaN, "digests": NaN, "to": NaN, "confirm": NaN, "value": NaN, "name": NaN}',
    b'{"release": 1, "digests": 1, "removes": "x", "to": 1, "confirm": 1, "value": 1, "name": 1}',
    b'{"release": {}, "digests": ["x", 1], "removes": [1], "to": [], "confirm": [], "value": [], "name": ""}',
    b'{"digests": ["\\u0000"], "to": "\\u0000", "confirm": "\\u0000", "value": "\\u0000", "name": "\\u0000"}',
    b'{"release": {"manifest": {"version": 99}}, "digests": {}, "to": {}, "confirm": {}, "value": {}, "scope": "root"}',
)
HALF = (
    '{"release": "\\ud800", "digests": ["\\ud800"], "to": "\\ud800", "expected": %s, '
    '"value": "\\ud800", "name": "\\ud800"}'
)
TRICKS = ("..", "../x", "..%2f..%2fx", "%2e%2e/x", "a%00b", "a/b", "%ff", "A" * 3000, "", "%0a", "TOKEN%0a", "9" * 5000)
QUERIES = ("logs?endpoint=../../state.sqlite", "logs?lines=-1", "logs?since=nan", "logs?follow=2", "logs?job=x")


def is_refused(answer: Reply) -> bool:
    return 400 <= answer.status < 500 and "error" in answer.json()


def test_bodies_that_are_no_request(served: Served) -> None:
    half = (HALF % json.dumps(asked(served, "releases")["current"])).encode()
    with unchanged(served):
        for page in PAGES:
            method, _, path = page.partition(" ")
            for body in (*BODIES, half):
                answer = sent(served, method, path, body)
                assert is_refused(answer), (page, body[:80], answer.raw)


def test_names_with_tricks(served: Served) -> None:
    with unchanged(served):
        for name in TRICKS:
            for method, path in (
                ("PUT", f"secrets/{name}"),
                ("DELETE", f"secrets/{name}"),
                ("DELETE", f"keys/{name}"),
                ("GET", f"releases/{name or 'x'}"),
                ("PUT", f"layers/{name}?size=1"),
                ("GET", f"rollouts/{name}"),
                ("GET", f"logs?endpoint={name}"),
            ):
                answer = sent(served, method, path, b'{"value": "a value"}' if method == "PUT" else b"")
                assert is_refused(answer), (method, path[:80], answer.raw)
        for query in (*QUERIES, "rollouts/1?after=-1", "rollouts/1?wait=nan", f"layers/{'a' * 64}?size=-1"):
            answer = sent(served, "PUT" if query.startswith("layers") else "GET", query)
            assert is_refused(answer), (query, answer.raw)
