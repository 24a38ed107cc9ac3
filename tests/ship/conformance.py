"""What every server that takes releases must do, seen from the side that ships: over the fake and over `flashfw serve`.

A class with these tests provides `target`, an admin's, of a server that has served nothing yet, and `make`, which
builds what it can run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flashfw.errors import TargetError
from flashfw.ship.plan import plan
from flashfw.ship.rollouts import follow
from flashfw.ship.target import ConflictError, Rollout, Target
from tests.ship.builds import SHOP, Make, Shippable, build

EDITED = {"endpoints/add/handler.py": "def handler(a: int, b: int = 2) -> int:\n    return a + b\n"}


def ship(target: Target, built: Shippable, *, expected: str | None, removes: tuple[str, ...] = ()) -> Rollout:
    target.upload(built.release.layers, built.archives, lambda *_: None)
    number = target.apply(built.release, expected=expected, removes=removes, by="me@here")
    return follow(target, number, lambda _: None)


class Conformance:
    """Every test begins with a server that serves nothing (`emptied`) or the first release (`at_first`)."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls) -> Make:
        return build

    @pytest.fixture(scope="class")
    @classmethod
    def first(cls, make: Make, tmp_path_factory: pytest.TempPathFactory) -> Shippable:
        return make(tmp_path_factory.mktemp("first") / "shop", SHOP)

    @pytest.fixture(scope="class")
    @classmethod
    def second(cls, make: Make, tmp_path_factory: pytest.TempPathFactory) -> Shippable:
        return make(tmp_path_factory.mktemp("second") / "shop", {**SHOP, **EDITED})

    @pytest.fixture
    def emptied(self, target: Target) -> None:
        if target.situation().current is not None:
            target.remove("shop/prod", by="me@here")

    @pytest.fixture
    def at_first(self, target: Target, first: Shippable) -> None:
        current = target.situation().current
        if current is None or current.id != first.release.id:
            assert ship(target, first, expected=current and current.id).state == "done"

    @pytest.mark.usefixtures("emptied")
    def test_an_empty_server(self, target: Target) -> None:
        found = target.situation()

        assert (found.host.api, found.current, found.rollout) == (1, None, None)
        assert (found.jobs, found.secrets, target.releases()) == ({}, frozenset(), ())

    def test_layers_that_are_missing_travel_once(self, target: Target, make: Make, tmp_path: Path) -> None:
        built = make(tmp_path / "shop", {**SHOP, "lib/once.py": ""})
        heard: dict[str, tuple[int, int]] = {}

        sent = target.upload(built.release.layers, built.archives, lambda digest, *at: heard.update({digest: at}))
        again = target.upload(built.release.layers, built.archives, lambda *_: None)

        assert built.release.source in sent
        assert again == ()
        assert all(sent == total for sent, total in heard.values())

    def test_a_damaged_layer_is_refused(self, target: Target, make: Make, tmp_path: Path) -> None:
        built = make(tmp_path / "shop", {**SHOP, "lib/damaged.py": ""})
        layer = built.release.source
        damaged = tmp_path / "damaged"
        data = built.archives[layer.digest].read_bytes()
        damaged.write_bytes(data[: len(data) // 2])

        with pytest.raises(TargetError):
            target.upload([layer], {layer.digest: damaged}, lambda *_: None)
        other = first_other(built)
        with pytest.raises(TargetError):
            target.upload([layer], {layer.digest: built.archives[other]}, lambda *_: None)

        assert target.upload([layer], built.archives, lambda *_: None) == (layer,)

    @pytest.mark.usefixtures("emptied")
    def test_a_release_without_its_layers_is_refused(self, target: Target, first: Shippable) -> None:
        lacking = replace(first.release, source=replace(first.release.source, digest="f" * 64))

        with pytest.raises(TargetError):
            target.apply(lacking, expected=None, removes=(), by="me@here")
        assert target.situation().current is None

    @pytest.mark.usefixtures("emptied")
    def test_the_first_release(self, target: Target, first: Shippable) -> None:
        rollout = ship(target, first, expected=None)
        found = target.situation()

        assert (rollout.state, rollout.before, rollout.by) == ("done", None, "me@here")
        assert [event.seq for event in target.wait(rollout.number).events] == sorted(
            event.seq for event in target.wait(rollout.number).events
        )
        assert found.current is not None
        assert (found.current.id, found.current.by) == (first.release.id, "me@here")
        assert (found.release, found.host.project, found.host.environment) == (first.release, "shop", "prod")
        assert plan(first.release, found).is_done

    @pytest.mark.usefixtures("at_first")
    def test_another_release_than_expected_is_a_conflict(
        self, target: Target, first: Shippable, second: Shippable
    ) -> None:
        target.upload(second.release.layers, second.archives, lambda *_: None)
        with pytest.raises(ConflictError) as raised:
            target.apply(second.release, expected=None, removes=(), by="you@there")

        assert (raised.value.current, raised.value.by) == (first.release.id, "me@here")

    @pytest.mark.usefixtures("at_first")
    def test_deletions_must_be_agreed_to(self, target: Target, first: Shippable, make: Make, tmp_path: Path) -> None:
        less = make(tmp_path / "shop", {name: text for name, text in SHOP.items() if "/api/" not in name})
        target.upload(less.release.layers, less.archives, lambda *_: None)

        with pytest.raises(TargetError, match="api"):
            target.apply(less.release, expected=first.release.id, removes=(), by="me@here")

    @pytest.mark.usefixtures("at_first")
    def test_missing_secrets_are_named_at_once(
        self, target: Target, first: Shippable, make: Make, tmp_path: Path
    ) -> None:
        wanting = make(tmp_path / "shop", {**SHOP, "endpoints/add/endpoint.toml": 'secrets = ["ONE", "TWO"]\n'})
        target.upload(wanting.release.layers, wanting.archives, lambda *_: None)

        with pytest.raises(TargetError, match=r"ONE.*TWO"):
            target.apply(wanting.release, expected=first.release.id, removes=(), by="me@here")

    @pytest.mark.usefixtures("at_first")
    def test_a_second_release_and_back(self, target: Target, first: Shippable, second: Shippable) -> None:
        there = ship(target, second, expected=first.release.id)
        number = target.rollback(to=None, expected=second.release.id, by="me@here")
        back = follow(target, number, lambda _: None)

        assert (there.state, there.before, back.state, back.release) == (
            "done",
            first.release.id,
            "done",
            first.release.id,
        )
        assert {found.id for found in target.releases()} == {first.release.id, second.release.id}
        assert target.release(second.release.id) == second.release

    @pytest.mark.usefixtures("at_first")
    def test_a_rollback_expects_too(self, target: Target, second: Shippable) -> None:
        with pytest.raises(ConflictError):
            target.rollback(to=None, expected=second.release.id, by="me@here")
        with pytest.raises(TargetError):
            target.release("000000000000")

    @pytest.mark.usefixtures("at_first")
    def test_all_goes_only_by_its_name(self, target: Target, first: Shippable) -> None:
        with pytest.raises(TargetError):
            target.remove("shop/staging", by="me@here")
        assert target.situation().current is not None

        target.remove("shop/prod", by="me@here")

        assert target.situation().current is None


def first_other(built: Shippable) -> str:
    """The digest of a layer that is not the source's."""
    return next(layer.digest for layer in built.release.layers if layer != built.release.source)
