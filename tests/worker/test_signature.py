from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated, Any, NewType, get_type_hints

import pytest
from starlette.requests import Request
from starlette.websockets import WebSocket

from flashfw import Job, injected
from flashfw.worker.signature import EMPTY, Signature, SignatureError, is_a, read, unwrap

if TYPE_CHECKING:
    from elsewhere import Heavy, Unknown  # type: ignore[import-not-found]


def sig(function: Any, fixtures: tuple[str, ...] = (), path: tuple[str, ...] = (), **options: Any) -> Signature:
    return read(function, fixtures=fixtures, path_parameters=path, owner="shop", **options)


def sources(signature: Signature) -> dict[str, str]:
    return {injection.name: injection.source for injection in signature.injections}


def names(signature: Signature) -> list[str]:
    return [spec.name for spec in signature.inputs]


def test_job_request_and_socket_are_known_by_their_annotation_under_any_name() -> None:
    def handler(
        a: Job, b: Request, c: WebSocket, d: Job | None = None, e: Annotated[Request, "x"] = injected
    ) -> None: ...

    assert sources(sig(handler)) == {"a": "job", "b": "request", "c": "websocket", "d": "job", "e": "request"}


def test_fixtures_path_parameters_and_inputs_are_told_apart_by_name() -> None:
    def get(id: int, db, q: str = "x", model=injected) -> None: ...  # type: ignore[no-untyped-def]

    read_ = sig(get, ("db", "model"), ("id",))

    assert sources(read_) == {"id": "path", "db": "fixture", "model": "fixture"}
    assert names(read_) == ["q"]
    assert (read_.inputs[0].annotation, read_.inputs[0].default) == (str, "x")


def test_a_name_that_only_type_checkers_see_matters_only_where_it_is_an_input() -> None:
    def fine(model: Heavy, n: int = 1) -> Unknown: ...
    def bad(model: Heavy) -> None: ...

    assert sources(sig(fine, ("model",))) == {"model": "fixture"}
    assert sig(fine, ("model",)).return_annotation is EMPTY
    with pytest.raises(
        SignatureError, match=r"shop: the annotation of 'model' does not resolve: name 'Heavy'"
    ) as error:
        sig(bad)
    assert error.value.line == bad.__code__.co_firstlineno
    assert "TYPE_CHECKING" in error.value.hint


def test_injected_without_such_a_fixture_suggests_the_nearest() -> None:
    def handler(modle=injected) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(SignatureError, match="no fixture named 'modle'; did you mean 'model'?"):
        sig(handler, ("model", "db"))
    with pytest.raises(SignatureError, match=r"define 'def modle\(\)' in a fixtures.py"):
        sig(handler)


def test_a_fixture_with_a_plain_annotation_is_a_problem_unless_marked() -> None:
    def unclear(prompt: str) -> None: ...
    def clear(prompt: str = injected, other: list[int] | None = injected) -> None: ...

    with pytest.raises(SignatureError, match="'prompt' is a fixture, but its annotation str reads like an input"):
        sig(unclear, ("prompt",))
    assert sources(sig(clear, ("prompt", "other"))) == {"prompt": "fixture", "other": "fixture"}


def test_a_path_parameter_with_a_fixture_of_its_name_is_a_problem() -> None:
    def get(id: int) -> None: ...

    with pytest.raises(SignatureError, match="'id' is a path parameter and a fixture"):
        sig(get, ("id",), ("id",))


def test_what_cannot_be_passed_by_name_is_refused() -> None:
    def positional(a: int, /) -> None: ...
    def several(*args: int) -> None: ...

    with pytest.raises(SignatureError, match="'a' is positional-only"):
        sig(positional)
    with pytest.raises(SignatureError, match=r"'\*args' cannot be filled"):
        sig(several)


def test_extra_arguments_keep_their_annotation() -> None:
    def typed(**kw: int) -> None: ...
    def untyped(a, **kw) -> None: ...  # type: ignore[no-untyped-def]

    assert (sig(typed).takes_extra, sig(typed).extra) == (True, int)
    assert (sig(untyped).takes_extra, sig(untyped).extra) == (True, EMPTY)


def test_kinds_of_functions() -> None:
    def plain() -> None: ...
    async def coroutine() -> None: ...
    def generator() -> Iterator[int]:
        yield 1

    async def both() -> AsyncIterator[int]:
        yield 1

    kinds = [(read_.is_async, read_.is_generator) for read_ in map(sig, (plain, coroutine, generator, both))]

    assert kinds == [(False, False), (True, False), (False, True), (True, True)]


class Shop:
    def __init__(self, model=injected) -> None: ...  # type: ignore[no-untyped-def]

    async def buy(self, item: str) -> Shop: ...

    def __call__(self, n: int) -> None: ...


class Bare: ...


def test_methods_classes_and_callable_objects() -> None:
    shop = Shop()

    assert names(sig(shop.buy)) == names(sig(Shop.buy, skip_first=True)) == ["item"]
    assert sig(shop.buy).is_async
    assert sig(shop.buy).return_annotation is Shop
    assert names(sig(shop)) == ["n"]
    assert sources(sig(Shop, ("model",))) == {"model": "fixture"}
    assert sig(Bare).inputs == ()


def test_wrapped_and_partial_functions_show_what_they_wrap() -> None:
    def inner(a: int, b: str = "x") -> None: ...

    @functools.wraps(inner)
    def outer(*args: Any, **kw: Any) -> Any:
        return inner(*args, **kw)

    assert names(sig(outer)) == ["a", "b"]
    assert names(sig(functools.partial(inner, b="y"))) == ["a", "b"]


UserId = NewType("UserId", int)


def test_unwrap_finds_the_type_that_decides() -> None:
    def f(a: Annotated[UserId | None, "x"], b: list[int] | None, c: int | str) -> None: ...

    hints = get_type_hints(f, include_extras=True)

    assert unwrap(hints["a"]) is int
    assert is_a(hints["b"], list)
    assert not is_a(hints["c"], (int, str))


def test_what_has_no_caller_may_annotate_a_fixture_as_it_is() -> None:
    def app(words: list[str], port: int) -> None: ...

    found = read(app, fixtures=["words", "port"], owner="site", has_caller=False)

    assert sources(found) == {"words": "fixture", "port": "fixture"}
    with pytest.raises(SignatureError, match="reads like an input"):
        read(app, fixtures=["words"], owner="site")
