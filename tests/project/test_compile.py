"""From a tree on disk to the manifest: every value in base units, every endpoint that is sound."""

from __future__ import annotations

import hashlib
import os
import sys
import tracemalloc
from pathlib import Path

import pytest

from flashfw.errors import UsageError
from flashfw.manifest import (
    Batch,
    Endpoint,
    Function,
    Retries,
    Scaler,
    Schedule,
    Variable,
    Volume,
    dumps,
    loads,
)
from flashfw.project.cascade import Settings
from flashfw.project.compile import derived
from tests.project import shop

EVERYTHING = """
gpu = ["L40S", "AMPERE_48"]
gpu_count = 2
cuda = "12.8"
memory = "32GB"
workers = [1, 9]
idle_timeout = "5m"
concurrency = 4
scaler = { type = "request_count" }
start_timeout = "20m"
drain_timeout = "1m"
max_queue = 50
max_body = "1MB"
strategy = "replace"
dependencies = ["torch>=2.4"]
system_dependencies = ["ffmpeg"]
python = "3.12"
preload = ["torch"]
image = "shop:1"
disk = "100GB"
registry = "ghcr"
datacenters = ["EU-RO-1"]
flashboot = false
env = { B = "2", A = "1" }
secrets = { TOKEN = "hf" }
volume = { name = "models", size = "50GB", datacenter = "EU-RO-1" }
include = ["*.txt"]
timeout = "1h"
ttl = "2h"
result_ttl = "3h"
retries = { max = 2, backoff = "2s", on = ["OSError"] }
batch = { max_size = 8 }
schedule = [{ cron = "0 6 * * *", input = { n = 1 } }]
public = true
marks = ["slow"]
"""


def test_every_key_arrives_in_the_manifest(tmp_path: Path) -> None:
    shop.write(
        tmp_path,
        {
            "flashfw.toml": "[project]\nname = 'shop'",
            "pyproject.toml": "[project]\ndependencies = ['numpy', 'torch>=2.4']",
            "endpoints/a/endpoint.toml": EVERYTHING,
            "endpoints/a/handler.py": "def handler(n: list[int]): ...",
            "endpoints/a/words.txt": "x",
        },
    )

    manifest = shop.sound(tmp_path)

    endpoint = manifest.endpoints[0]
    assert (manifest.project, manifest.environment) == ("shop", "dev")
    assert endpoint == Endpoint(
        id="a",
        kind="job",
        directory="endpoints/a",
        functions=(
            Function(
                id="a",
                kind="job",
                module="endpoints.a.handler",
                attribute="handler",
                file="endpoints/a/handler.py",
                line=1,
                route="/a",
                timeout_s=3600.0,
                ttl_s=7200.0,
                result_ttl_s=10_800.0,
                retries=Retries(max=2, backoff_s=2.0, on=("OSError",)),
                batch=Batch(max_size=8, max_wait_s=0.02),
                schedule=(Schedule(cron="0 6 * * *", input={"n": 1}),),
                public=True,
                marks=("slow",),
            ),
        ),
        gpu=("NVIDIA L40S", "NVIDIA A40", "NVIDIA RTX A6000"),
        gpu_count=2,
        cuda="12.8",
        memory_bytes=32 * 10**9,
        workers_min=1,
        workers_max=9,
        idle_timeout_s=300.0,
        concurrency=4,
        scaler=Scaler(type="request_count", value=0.7 * 4),
        start_timeout_s=1200.0,
        drain_timeout_s=60.0,
        max_queue=50,
        max_body_bytes=10**6,
        max_upload_bytes=10**6,
        strategy="replace",
        dependencies=("numpy", "torch>=2.4"),
        system_dependencies=("ffmpeg",),
        python="3.12",
        preload=("torch",),
        image="shop:1",
        disk_bytes=10**11,
        registry="ghcr",
        datacenters=("EU-RO-1",),
        flashboot=False,
        env=(Variable(name="A", value="1"), Variable(name="B", value="2")),
        secrets=(Variable(name="TOKEN", value="hf"),),
        volumes=(Volume(name="models", size_bytes=50 * 10**9, datacenter="EU-RO-1"),),
        include=("endpoints/a/*.txt",),
        sources=endpoint.sources,
        fingerprint=endpoint.fingerprint,
    )
    assert [source.path for source in endpoint.sources] == [
        "endpoints/a/endpoint.toml",
        "endpoints/a/handler.py",
        "endpoints/a/words.txt",
    ]
    assert loads(dumps(manifest)) == manifest


def test_the_defaults_of_a_job(tmp_path: Path) -> None:
    endpoint = shop.sound(shop.write(tmp_path, {"endpoints/a/handler.py": shop.JOB})).endpoints[0]

    assert (endpoint.gpu, endpoint.cpu) == ((), "cpu3g-2-8")
    assert (endpoint.concurrency, endpoint.max_body_bytes) == (1, 10_000_000)
    assert (endpoint.workers_min, endpoint.workers_max) == (0, 3)
    assert endpoint.scaler == Scaler(type="queue_delay", value=4.0)
    assert endpoint.python == f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_the_defaults_of_http(tmp_path: Path) -> None:
    shop.write(tmp_path, {"endpoints/a/handler.py": shop.HTTP, "endpoints/b/handler.py": "app = make()"})

    for endpoint in shop.sound(tmp_path).endpoints:
        assert (endpoint.concurrency, endpoint.max_body_bytes) == (100, None)
        assert endpoint.scaler == Scaler(type="request_count", value=70.0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("job", Scaler(type="queue_delay", value=4.0)), ("http", Scaler(type="request_count", value=70.0))],
)
def test_nothing_set_is_the_kind_s_default(kind: str, expected: Scaler) -> None:
    nothing: Settings = {}

    assert derived(kind, nothing)["scaler"] == expected  # type: ignore[arg-type]


def test_the_project_s_python_is_the_endpoint_s(tmp_path: Path) -> None:
    config = {"flashfw.toml": "[project]\npython = '3.13'", "endpoints/b/endpoint.toml": "python = '3.10'"}
    shop.write(tmp_path, {**config, "endpoints/a/handler.py": shop.JOB, "endpoints/b/handler.py": shop.JOB})

    assert [endpoint.python for endpoint in shop.sound(tmp_path).endpoints] == ["3.13", "3.10"]


def test_what_is_said_of_gpus_is_void_without_one(tmp_path: Path) -> None:
    text = "gpu = 'L40S'\ngpu_count = 2\ncuda = '12.8'\n[on.dev]\ncpu = 'cpu3g-4-16'"
    shop.write(tmp_path, {"endpoints/a/handler.py": shop.JOB, "endpoints/a/endpoint.toml": text})

    endpoint = shop.sound(tmp_path).endpoints[0]

    assert (endpoint.gpu, endpoint.gpu_count, endpoint.cuda, endpoint.cpu) == ((), 1, None, "cpu3g-4-16")


def test_functions_have_their_own_values(tmp_path: Path) -> None:
    text = "timeout = '1m'\n[function.b]\ntimeout = '2m'\n[on.prod.function.handler]\ntimeout = '3m'"
    files = {"endpoints/a/handler.py": shop.JOB, "endpoints/a/b/handler.py": shop.JOB}
    shop.write(tmp_path, {"flashfw.toml": "[environments.prod]", **files, "endpoints/a/endpoint.toml": text})

    dev, prod = (shop.sound(tmp_path, name).endpoints[0].functions for name in ("dev", "prod"))

    assert {function.id: function.timeout_s for function in dev} == {"a": 60.0, "a/b": 120.0}
    assert {function.id: function.timeout_s for function in prod} == {"a": 180.0, "a/b": 120.0}


@pytest.mark.parametrize(
    "broken",
    [
        {"endpoints/b/endpoint.toml": "worker = 1"},
        {"endpoints/b/endpoint.toml": "a = "},
        {"endpoints/b/endpoint.toml": "disk = '900GB'"},
        {"endpoints/b/handler.py": "def handler(:"},
        {"endpoints/b/handler.py": "def handler(): ...\ndef get(): ...\n"},
        {"endpoints/b/endpoint.toml": "env = { A = '1' }\n[on.dev]\nsecrets = ['A']"},
    ],
)
def test_an_endpoint_with_an_error_is_left_out_and_no_other(tmp_path: Path, broken: dict[str, str]) -> None:
    shop.write(tmp_path, {"endpoints/a/handler.py": shop.JOB, "endpoints/b/handler.py": shop.JOB, **broken})

    manifest, problems = shop.compiled(tmp_path)

    assert any(problem.level == "error" for problem in problems)
    assert [endpoint.id for endpoint in manifest.endpoints] == ["a"]


@pytest.mark.parametrize("file", ["lib/deep.py", "endpoints/fixtures.py", "lib/warm.py"])
def test_a_module_that_does_not_parse_takes_out_who_imports_it(tmp_path: Path, file: str) -> None:
    files = {"lib/deep.py": "", "lib/x.py": "import lib.deep", "lib/warm.py": "", "endpoints/fixtures.py": ""}
    config = {"endpoints/a/endpoint.toml": "preload = ['lib.warm']", "endpoints/b/handler.py": shop.JOB}
    shop.write(tmp_path, {**files, **config, "endpoints/a/handler.py": f"import lib.x\n{shop.JOB}", file: "\ndef ("})

    manifest, problems = shop.compiled(tmp_path)

    assert [problem.where for problem in problems] == [f"{file}:2"]
    assert [endpoint.id for endpoint in manifest.endpoints] == ([] if "fixtures" in file else ["b"])


def test_a_module_that_nobody_imports_may_be_anything(tmp_path: Path) -> None:
    shop.write(tmp_path, {"endpoints/a/handler.py": shop.JOB, "endpoints/a/template.py": "{{ x }} = (", "x.py": "("})

    assert [endpoint.id for endpoint in shop.sound(tmp_path).endpoints] == ["a"]


def test_a_nested_endpoint_s_error_is_its_own(tmp_path: Path) -> None:
    nested = {"endpoints/a/b/handler.py": shop.JOB, "endpoints/a/b/endpoint.toml": "worker = 1"}
    shop.write(tmp_path, {"endpoints/a/handler.py": shop.JOB, "endpoints/a/endpoint.toml": "", **nested})

    manifest, _ = shop.compiled(tmp_path)

    assert [endpoint.id for endpoint in manifest.endpoints] == ["a"]


def test_both_sides_of_a_conflict_are_left_out(tmp_path: Path) -> None:
    files = {"endpoints/a/handler.py": shop.HTTP, "endpoints/b/handler.py": f"route = '/a'\n{shop.HTTP}"}
    shop.write(tmp_path, {**files, "endpoints/c/handler.py": shop.JOB})

    manifest, problems = shop.compiled(tmp_path)

    assert [endpoint.id for endpoint in manifest.endpoints] == ["c"]
    assert len(problems) == 1


def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    shop.write(tmp_path, {"endpoints/a/handler.py": shop.JOB})
    (tmp_path / "endpoints/a/endpoint.toml").write_bytes(b"\xff\n")

    manifest, problems = shop.compiled(tmp_path)

    assert manifest.endpoints == ()
    assert [str(problem) for problem in problems] == [
        "endpoints/a/endpoint.toml:1: is not UTF-8: byte 0xff; save it as UTF-8"
    ]


def test_an_unknown_environment_is_wrong_usage(tmp_path: Path) -> None:
    shop.write(tmp_path, {"flashfw.toml": "[environments.prod]", "endpoints/a/handler.py": shop.JOB})

    with pytest.raises(UsageError, match="no environment 'prd'; did you mean 'prod'"):
        shop.compiled(tmp_path, "prd")


def test_an_empty_project(tmp_path: Path) -> None:
    manifest = shop.sound(shop.write(tmp_path, {}))

    assert manifest.endpoints == ()
    assert loads(dumps(manifest)) == manifest


@pytest.mark.parametrize("name", ["handler.py", "fixtures.py", "endpoint.toml", "x.py"])
@pytest.mark.parametrize("kind", ["pipe", "device", "directory"])
def test_what_is_no_file_holds_nobody_up(tmp_path: Path, name: str, kind: str) -> None:
    text = "from . import x\n" + shop.JOB if name == "x.py" else shop.JOB
    shop.write(tmp_path, {"endpoints/a/handler.py": text, "endpoints/b/handler.py": shop.JOB})
    place = tmp_path / "endpoints/a" / name
    place.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    else:
        place.mkdir()

    manifest, problems = shop.compiled(tmp_path)

    if (name, kind) == ("x.py", "directory"):  # an empty package, as far as an import goes
        assert problems == ()
        return
    assert [str(problem) for problem in problems] == [
        f"endpoints/a/{name}: is no regular file; replace it by a file, or remove it"
    ]
    assert [endpoint.id for endpoint in manifest.endpoints] == ["b"]


def test_data_is_hashed_piece_by_piece(tmp_path: Path) -> None:
    files = {"endpoints/a/handler.py": shop.JOB, "endpoints/a/endpoint.toml": "include = ['data']"}
    shop.write(tmp_path, {**files, "endpoints/a/data": ""})
    with open(tmp_path / "endpoints/a/data", "r+b") as file:
        file.truncate(64 << 20)  # a hole, which takes no room on the disk

    tracemalloc.start()
    (endpoint,) = shop.sound(tmp_path).endpoints
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    (data,) = [source for source in endpoint.sources if source.path == "endpoints/a/data"]
    assert data.sha256 == hashlib.sha256(bytes(64 << 20)).hexdigest()
    assert peak < 32 << 20


def test_a_link_that_leads_to_itself_hides_no_module_beside_it(tmp_path: Path) -> None:
    shop.write(tmp_path, {"endpoints/a/handler.py": f"import lib.x\n{shop.JOB}", "lib/x.py": ""})
    (tmp_path / "lib" / "loop").symlink_to("loop")
    (tmp_path / "loop.py").symlink_to("loop.py")

    (endpoint,) = shop.sound(tmp_path).endpoints

    assert [source.path for source in endpoint.sources] == ["endpoints/a/handler.py", "lib/x.py"]
