"""Values that are fine by themselves and do not fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import shop

JOB = {"endpoints/a/handler.py": shop.JOB}
LIST = {"endpoints/a/handler.py": "def handler(items: list[str], model=injected): ...",
        "endpoints/a/fixtures.py": "def model(): ..."}  # fmt: skip
TWO = {**JOB, "endpoints/a/b/handler.py": shop.JOB}
HTTP = {"endpoints/a/handler.py": shop.HTTP}


@pytest.mark.parametrize(
    ("files", "text", "expected"),
    [
        (TWO, "batch = {max_size = 2}", "1: 'batch' is for one function, and 'a' has 2; put it under [function.NAME]"),
        (TWO, "[[schedule]]\ncron = '* * * * *'", "1: 'schedule' is for one function, and 'a' has 2; put it under "
         "[function.NAME]"),
        ({**TWO, **LIST}, "[function.handler.batch]\nmax_size = 2", None),
        (LIST, "batch = {max_size = 2}", None),
        (LIST, "[batch]\nmax_wait = 1", "1: 'batch' must have \"max_size\""),
        (HTTP, "batch = {max_size = 2}", "1: 'batch' is for jobs, and 'a' answers HTTP"),
        (HTTP, "\nretries = 2", "2: 'retries' has no effect: it is for jobs, and 'a' answers HTTP"),
        (JOB, "env = {A = '1'}\nsecrets = ['A']", "2: 'A' is a secret and a plain variable too "
         "(endpoints/a/endpoint.toml:1)"),
        (JOB, "[[volume]]\nname = 'a'\n[[volume]]\nname = 'a'", "4: there are two volumes 'a'"),
        (JOB, "datacenters = 'EU-RO-1'\nvolume = {name = 'm', datacenter = 'US-CA-2'}", "2: volume 'm' is in US-CA-2, "
         "which 'datacenters' leaves out"),
        (JOB, "disk = '30GB'", "1: 'disk' is 30GB, and a cpu3g-2-8 has at most 20GB"),
        (JOB, "disk = '30GB'\ncpu = 'cpu3g-4-16'", None),
        (JOB, "disk = '300GB'\ngpu = 'any'", None),
        (JOB, "gpu_count = 2", "1: 'gpu_count' has no effect: the endpoint has no 'gpu'"),
        (JOB, "cuda = '12.8'\ncpu = 'cpu3g-2-8'", None),
    ],
)  # fmt: skip
def test_agreement(tmp_path: Path, files: dict[str, str], text: str, expected: str | None) -> None:
    shop.write(tmp_path, {**files, "endpoints/a/endpoint.toml": text})

    assert shop.told(tmp_path) == ([] if expected is None else [f"endpoints/a/endpoint.toml:{expected}"])


def test_a_default_for_jobs_may_pass_by_an_http_endpoint(tmp_path: Path) -> None:
    shop.write(tmp_path, {**HTTP, "endpoints/b/handler.py": shop.JOB, "endpoints/endpoint.toml": "retries = 2"})

    assert shop.sound(tmp_path).endpoints[1].functions[0].retries.max == 2


def test_tables_that_are_whole_only_together(tmp_path: Path) -> None:
    above = {"endpoints/endpoint.toml": "retries = {backoff = '2s'}", "endpoints/a/endpoint.toml": "retries.max = 2"}

    retries = shop.sound(shop.write(tmp_path, {**JOB, **above})).endpoints[0].functions[0].retries

    assert (retries.max, retries.backoff_s) == (2, 2.0)


VOLUMES = {**JOB, "endpoints/b/handler.py": shop.JOB}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("{name = 'm', size = '10GB'}", "{name = 'm', size = '20GB'}",
         "volume 'm' has size 20GB here and 10GB at endpoints/a/endpoint.toml:1"),
        ("[{name = 'x'},\n{name = 'm', size = '10GB'}]", "{name = 'm', size = '20GB'}",
         "volume 'm' has size 20GB here and 10GB at endpoints/a/endpoint.toml:2"),
        ("{name = 'm', datacenter = 'EU-RO-1'}", "{name = 'm', datacenter = 'US-CA-2'}",
         "volume 'm' has datacenter US-CA-2 here and EU-RO-1 at endpoints/a/endpoint.toml:1"),
        ("{name = 'm', size = '10GB', mount = '/a'}", "{name = 'm', mount = '/b'}", None),
        ("{name = 'm', size = '10GB'}", "{name = 'm', size = '10000MB'}", None),
        ("{name = 'm', size = '10GB'}", "{name = 'n', size = '20GB'}", None),
    ],
)  # fmt: skip
def test_a_volume_is_the_same_in_all_endpoints(tmp_path: Path, one: str, other: str, expected: str | None) -> None:
    files = {"endpoints/a/endpoint.toml": f"volume = {one}", "endpoints/b/endpoint.toml": f"volume = {other}"}
    manifest, problems = shop.compiled(shop.write(tmp_path, {**VOLUMES, **files}))

    hint = "a name is one volume in the whole project: say the same in both, or rename one"
    assert [str(problem) for problem in problems] == (
        [] if expected is None else [f"endpoints/b/endpoint.toml:1: {expected}; {hint}"]
    )
    assert [endpoint.id for endpoint in manifest.endpoints] == (["a", "b"] if expected is None else [])
