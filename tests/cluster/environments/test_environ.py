from __future__ import annotations

import doctest

import pytest

from flashfw.cluster.environments import environ
from flashfw.cluster.environments.environ import SecretMissing, worker_environ
from flashfw.errors import Exit
from flashfw.manifest import Endpoint, Variable

MACHINE = {
    "PATH": "/bin",
    "LC_ALL": "C.UTF-8",
    "https_proxy": "http://proxy",
    "CUDA_VISIBLE_DEVICES": "0",
    "AWS_SECRET_ACCESS_KEY": "the machine's",
    "VIRTUAL_ENV": "/venv",
    "PYTHONPATH": "/stray",
    "PYTHONHOME": "/stray",
}


def endpoint(**values: tuple[Variable, ...]) -> Endpoint:
    return Endpoint(id="a", kind="job", directory="endpoints/a", functions=(), python="3.11", fingerprint="f", **values)


def test_examples() -> None:
    assert doctest.testmod(environ).failed == 0


def test_a_worker_sees_little_of_its_machine() -> None:
    inherited = {"PATH": "/bin", "LC_ALL": "C.UTF-8", "https_proxy": "http://proxy", "CUDA_VISIBLE_DEVICES": "0"}

    assert worker_environ(endpoint(), machine=MACHINE, secrets={"TOKEN": "t"}) == inherited


def test_what_is_nearer_to_the_endpoint_wins() -> None:
    asking = endpoint(
        env=(Variable(name="PATH", value="/own"), Variable(name="KEY", value="plain")),
        secrets=(Variable(name="KEY", value="kept-under"),),
    )

    made = worker_environ(asking, machine=MACHINE, secrets={"kept-under": "secret", "other": "not asked for"})

    assert (made["PATH"], made["KEY"]) == ("/own", "secret")
    assert "other" not in made


def test_missing_secrets_are_all_named() -> None:
    asking = endpoint(secrets=(Variable(name="B", value="b-token"), Variable(name="A", value="a-token")))

    with pytest.raises(SecretMissing, match="a needs the secrets a-token, b-token; in dev a secret is") as failed:
        worker_environ(asking, machine={"b-TOKEN": ""}, secrets={})

    assert failed.value.exit is Exit.PROBLEMS
