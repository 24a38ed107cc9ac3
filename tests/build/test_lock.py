"""The records of `flashfw.lock` and their text."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfw.build import lock, lock_changes, lock_failures, lock_inputs
from flashfw.build.lock import (
    FILE,
    PLATFORM,
    Lock,
    LockedEnvironment,
    LockedPackage,
    LockError,
    dumps,
    key_of,
    load,
    loads,
    save,
    toml_value,
)
from flashfw.build.lock_changes import Change, changes
from flashfw.errors import Exit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
PACKAGES = st.builds(LockedPackage, name=TEXT, version=TEXT, url=TEXT, path=TEXT, hashes=TEXTS)
ENVIRONMENTS = st.builds(
    LockedEnvironment,
    key=TEXT,
    python=TEXT,
    platform=TEXT,
    asked=TEXT,
    endpoints=TEXTS,
    requirements=TEXTS,
    packages=st.lists(PACKAGES, max_size=3).map(tuple),
)
LOCKS = st.builds(Lock, environments=st.lists(ENVIRONMENTS, max_size=3).map(tuple))
PLAIN = st.recursive(
    TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def environment(*packages: LockedPackage, endpoints: tuple[str, ...] = ("a",)) -> LockedEnvironment:
    return LockedEnvironment(
        key=key_of("3.12", PLATFORM, packages),
        python="3.12",
        platform=PLATFORM,
        asked="0" * 16,
        endpoints=endpoints,
        requirements=("six",),
        packages=packages,
    )


SIX = LockedPackage(name="six", version="1.16.0", hashes=("sha256:aa",))


@pytest.mark.parametrize("module", [lock, lock_changes, lock_failures, lock_inputs])
def test_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@given(LOCKS)
@settings(max_examples=60)
def test_what_is_written_is_read_again(made: Lock) -> None:
    assert loads(dumps(made)) == made


@given(st.dictionaries(TEXT, PLAIN, max_size=4))
@settings(max_examples=60)
def test_any_plain_value_is_toml(value: dict[str, object]) -> None:
    assert tomllib.loads(f"value = {toml_value(value)}") == {"value": value}


def test_a_package_is_a_line() -> None:
    one, two = dumps(Lock(environments=(environment(SIX),))), dumps(Lock(environments=(environment(),)))

    assert '    { name = "six", version = "1.16.0", hashes = ["sha256:aa"] },\n' in one
    assert len(one.splitlines()) == len(two.splitlines()) + 1
    assert one.startswith("# Made by `flashfw lock`")


WHOLE = dumps(Lock(environments=(environment(SIX),)))


@given(st.text(max_size=60) | st.integers(0, len(WHOLE)).map(lambda end: WHOLE[:end]))
@settings(max_examples=60)
def test_anything_else_is_refused(text: str) -> None:
    try:
        found = loads(text)
    except LockError:
        return
    assert loads(dumps(found)) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<<<<<<< ours\nversion = 1\n", "line 1 is left of a merge"),
        ("version = 2\n", "has version 2, this flashfw reads 1"),
        ("[[environment]]\n", "is damaged: version is missing"),
        ("", "is damaged: version is missing"),
        ("version = 1\n[[environment]]\nkey = 1\n", "key is 1 where a string belongs"),
        ("version = 1\nenvironment = 3\n", "damaged"),
        ("version = ", "not TOML"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(text: str, said: str) -> None:
    with pytest.raises(LockError, match=said) as caught:
        loads(text)
    assert caught.value.exit is Exit.PROBLEMS


def test_a_lock_on_disk(tmp_path: Path) -> None:
    made = Lock(environments=(environment(SIX),))

    assert load(tmp_path) is None
    save(tmp_path, made)
    assert load(tmp_path) == made
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_lock_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(LockError, match="cannot be read"):
        load(tmp_path)
    with pytest.raises(LockError, match="cannot be written"):
        save(tmp_path, Lock(environments=()))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_what_an_environment_is_shipped_to_may_ask_for_something_else() -> None:
    usual, special = environment(SIX, endpoints=("a", "b")), environment(endpoints=("a@prod",))
    made = Lock(environments=(usual, special))

    assert made.environment_of("a") is usual
    assert made.environment_of("a", "staging") is usual
    assert made.environment_of("a", "prod") is special
    assert made.environment_of("b", "prod") is usual
    assert made.environment_of("c") is None


def test_a_key_is_of_what_is_installed() -> None:
    other = LockedPackage(name="six", version="1.16.0", hashes=("sha256:bb",))

    assert environment(SIX).key == environment(SIX, endpoints=("z",)).key
    keys = [key_of("3.12", PLATFORM, [SIX]), key_of("3.12", PLATFORM, [other]), key_of("3.11", PLATFORM, [SIX])]
    assert len(set(keys)) == 3


def test_what_moved() -> None:
    new = LockedPackage(name="six", version="1.17.0", hashes=("sha256:bb",))
    lib = LockedPackage(name="lib", path="libs/lib", hashes=("sha256:0123456789",))
    before, after = Lock(environments=(environment(SIX),)), Lock(environments=(environment(lib, new),))

    assert changes(before, before) == ()
    assert changes(None, before) == (Change("six", "", "1.16.0", ("a",)),)
    assert changes(before, after) == (
        Change("lib", "", "libs/lib (01234567)", ("a",)),
        Change("six", "1.16.0", "1.17.0", ("a",)),
    )
