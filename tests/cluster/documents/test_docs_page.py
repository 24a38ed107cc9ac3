from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from flashfw.cluster.documents import docs_page
from tests.client.server import Wire, serving
from tests.cluster import browser
from tests.cluster.browser import Page


def test_the_page_is_whole_and_fetches_nothing_from_elsewhere() -> None:
    text = docs_page.page("shop").decode()

    assert "{{" not in text
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", text)
    assert "@import" not in text
    assert "url(" not in text


def test_a_title_is_text() -> None:
    text = docs_page.page("<script>alert(1)</script> & co").decode()

    assert "<title>&lt;script&gt;alert(1)&lt;/script&gt; &amp; co</title>" in text
    assert text.count("<script>") == 1


async def docs(request: Request) -> Response:
    return Response(docs_page.page("shop"), media_type=docs_page.CONTENT_TYPE)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if browser.PATH is None:
        pytest.skip("no Chromium on this machine")
    app = Starlette(routes=[Route("/docs", docs), Mount("/", Wire().app())])
    with serving(app) as url, browser.browsing(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(f"{url}/docs")
        yield opened
        assert opened.failures == []


def card(function: str) -> str:
    return f"document.getElementById('fn:{function}')"


def send(page: Page, function: str, **changes: str) -> dict[str, Any]:
    """Fill the form of a function, send it, and read what it shows."""
    page.run(f"{card(function)}.querySelector('details').open = true")
    for selector, value in changes.items():
        field = f"{card(function)}.querySelector('[name={selector}], [data-in={selector}]')"
        page.run(f"{field}.value = {json.dumps(value)}")
    page.run(f"{card(function)}.querySelector('.outcome').textContent = ''")
    page.run(f"{card(function)}.querySelector('form').requestSubmit()")
    page.until(f"/good|bad/.test({card(function)}.querySelector('.outcome').className)")
    outcome = page.run(f"{card(function)}.querySelector('.outcome').textContent")
    return {"outcome": outcome, "answer": page.run(f"{card(function)}.querySelector('.answer').textContent")}


def choose(page: Page, function: str, mode: str) -> None:
    page.run(f"{card(function)}.querySelector('[value={mode}]').checked = true")


def test_every_function_has_a_card(page: Page) -> None:
    shown = page.run("[...document.querySelectorAll('article')].map(article => article.id)")

    assert shown == [
        "fn:echo",
        "fn:tools::shout",
        "fn:count",
        "fn:fail",
        "fn:gate",
        "fn:strict",
        "fn:api/users/_id_::get",
        "fn:api/users/_id_::put",
        "fn:api/notes::post",
    ]
    assert page.run("document.getElementById('count').textContent") == "8 endpoints, 9 functions"


def test_fields_come_from_the_schema(page: Page) -> None:
    text = page.run(f"{card('count')}.querySelector('.fields').textContent")

    assert text == "ninteger"
    assert page.run(f"{card('count')}.querySelector('textarea').value") == '{\n  "n": 0\n}'


def test_a_job_is_called_and_waited_for(page: Page) -> None:
    shown = send(page, "echo", json='{"a": [1, "<b>"]}')

    assert re.fullmatch(r"200 OK · \d+ ms", shown["outcome"])
    assert shown["answer"] == '{\n  "a": [\n    1,\n    "<b>"\n  ]\n}'


def test_a_job_is_streamed(page: Page) -> None:
    choose(page, "count", "stream")
    shown = send(page, "count", json='{"n": 2}')

    assert shown["outcome"].startswith("completed · ")
    assert 'chunk      {"index": 1, "output": 1}' in shown["answer"]


def test_a_job_is_polled(page: Page) -> None:
    choose(page, "count", "async")
    shown = send(page, "count", json='{"n": 2}')

    assert shown["outcome"].startswith("COMPLETED · ")
    assert '"status": "COMPLETED"' in shown["answer"]


def test_a_polled_job_is_cancelled(page: Page, tmp_path: Path) -> None:
    choose(page, "gate", "async")
    page.run(f"{card('gate')}.querySelector('textarea').value = '{{\"file\": \"{tmp_path}/never\"}}'")
    page.run(f"{card('gate')}.querySelector('form').requestSubmit()")
    page.until(f"{card('gate')}.querySelector('.outcome').textContent.startsWith('IN_PROGRESS')")
    page.run(f"{card('gate')}.querySelector('button.plain').click()")
    page.until(f"{card('gate')}.querySelector('.outcome').textContent.startsWith('CANCELLED')")


def test_a_failure_shows_its_error(page: Page) -> None:
    shown = send(page, "fail", json='{"number": 7}')

    assert shown["outcome"].startswith("500 ")
    assert '"message": "no luck with 7"' in shown["answer"]
    assert shown["answer"].endswith("ValueError: no luck")


def test_a_body_that_is_no_json_is_said_before_it_is_sent(page: Page) -> None:
    shown = send(page, "strict", json="{n: 1}")

    assert shown["outcome"].startswith("the body is no JSON: ")


def test_path_and_query_parameters_have_fields(page: Page) -> None:
    shown = send(page, "api/users/_id_::get", id="3", q="a&b")

    assert shown["answer"] == '{\n  "id": 3,\n  "q": "a&b"\n}'


def test_search_narrows_the_page(page: Page) -> None:
    page.run("(e => { e.value = 'users get'; e.dispatchEvent(new Event('input')); })(document.getElementById('find'))")
    shown = page.run("[...document.querySelectorAll('article:not([hidden])')].map(article => article.id)")
    page.run("(e => { e.value = ''; e.dispatchEvent(new Event('input')); })(document.getElementById('find'))")

    assert shown == ["fn:api/users/_id_::get"]
    assert page.run("document.querySelectorAll('article:not([hidden])').length") == 9


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (
            {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer", "default": 4}}},
            {"a": "", "b": 4},
        ),
        ({"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "number", "minimum": 2}}]}, [2]),
        (
            {"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"enum": ["x", "y"]}}}]},
            {"a": 1, "b": "x"},
        ),
        ({"type": ["null", "boolean"]}, False),
        ({"$ref": "#/components/schemas/Node"}, {"next": {"next": {"next": {}}}}),
        (
            {"type": "array", "prefixItems": [{"type": "string", "format": "date"}, {"type": "null"}]},
            ["2026-01-31", None],
        ),
        ({"type": "integer", "exclusiveMinimum": 0}, 1),
        ({}, {}),
        (True, {}),
    ],
)
def test_examples_fit_their_schema(page: Page, schema: Any, expected: Any) -> None:
    import json

    page.run(
        "doc.components.schemas.Node = {type: 'object', properties: {next: {$ref: '#/components/schemas/Node'}}}; 1"
    )

    assert page.run(f"example({json.dumps(schema)})") == expected
