"""Python source to top-level names and signatures, without running it."""

from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfw.errors import Problem
from flashfw.project import handlers, source
from flashfw.project.handlers import COUNTED
from flashfw.project.model import Definition


def read(text: str) -> dict[str, Definition]:
    return source.read(ast.parse(textwrap.dedent(text)), COUNTED).definitions


@pytest.mark.parametrize(
    ("text", "form", "line"),
    [
        ("def handler(): ...", "function", 1),
        ("async def handler(): ...", "function", 1),
        ("class handler: ...", "class", 1),
        ("handler = make()", "assignment", 1),
        ("handler: Job = make()", "assignment", 1),
        ("a, (handler, b) = make()", "assignment", 1),
        ("a = handler = make()", "assignment", 1),
        ("from lib import handler", "import", 1),
        ("from lib import run as handler", "import", 1),
        ("if x:\n    def handler(): ...", "function", 2),
        ("if x: ...\nelif y:\n    def handler(): ...", "function", 3),
        ("if x: ...\nelse:\n    handler = 1", "assignment", 3),
        ("try:\n    from lib import handler\nexcept E: ...", "import", 2),
        ("try: ...\nexcept E:\n    handler = None", "assignment", 3),
        ("try: ...\nfinally:\n    handler = None", "assignment", 3),
        ("try: ...\nexcept E: ...\nelse:\n    handler = None", "assignment", 4),
        ("try:\n    if x:\n        def handler(): ...\nfinally: ...", "function", 3),
        ("def handler(): ...\nhandler = wrap(handler)", "assignment", 2),
    ],
)
def test_a_top_level_name_counts(text: str, form: str, line: int) -> None:
    found = read(text)["handler"]

    assert (found.form, found.line) == (form, line)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "handler: Job",
        "handler += 1",
        "import handler",
        "handler()",
        "handler.x = 1",
        "handler[0] = 1",
        "def f():\n    def handler(): ...",
        "class f:\n    def handler(self): ...",
        "for handler in x: ...",
        "with x as handler: ...",
        "while x:\n    handler = 1",
        "if TYPE_CHECKING:\n    from lib import handler",
        "if typing.TYPE_CHECKING:\n    def handler(): ...",
        "if __name__ == '__main__':\n    handler = 1",
        "from lib import *",
        "from lib import handler as other",
    ],
)
def test_other_names_do_not_count(text: str) -> None:
    assert "handler" not in read(text)


def test_a_signature_is_told_as_written() -> None:
    found = read("def get(a, /, b: int, *rest: str, c: list[int] | None = None, d, **more): 'Doc.'")["get"]

    assert found.doc == "Doc."
    assert [(item.name, item.annotation, item.has_default, item.kind) for item in found.parameters or ()] == [
        ("a", "", False, "positional"),
        ("b", "int", False, "positional"),
        ("rest", "str", False, "args"),
        ("c", "list[int] | None", True, "keyword"),
        ("d", "", False, "keyword"),
        ("more", "", False, "kwargs"),
    ]


def test_defaults_belong_to_the_last_positional_parameters() -> None:
    found = read("def get(a, b=1, c=2): ...")["get"]

    assert [item.has_default for item in found.parameters or ()] == [False, True, True]


def test_a_class_has_the_public_methods_of_its_body() -> None:
    found = read("""
        class handler(Base):
            def __init__(self, model, size=3): ...
            def __call__(self, x): ...
            async def upscale(self, image: bytes): ...
            @staticmethod
            def plain(a): ...
            @classmethod
            def of(cls, b): ...
            @property
            def name(self): ...
            @functools.cached_property
            def cached(self): ...
            @name.setter
            def name(self, value): ...
            if x:
                def extra(self): ...
            def _private(self): ...
            def close(self): ...
            async def aclose(self): ...
            def __len__(self): ...
            alias = upscale
            class Inner:
                def no(self): ...
    """)["handler"]

    parameters = {item.name: [p.name for p in item.parameters or ()] for item in found.methods}
    assert parameters == {"__call__": ["x"], "upscale": ["image"], "plain": ["a"], "of": ["b"], "extra": []}
    assert [item.name for item in found.parameters or ()] == ["model", "size"]


@pytest.mark.parametrize(
    ("text", "known"),
    [("class handler: ...", True), ("class handler(Base): ...", False), ("@dataclass\nclass handler: ...", False)],
)
def test_parameters_of_a_class_without_init_are_known_only_if_nothing_else_brings_one(text: str, known: bool) -> None:
    assert read(text)["handler"].parameters == (() if known else None)


ANNOTATIONS = st.recursive(
    st.sampled_from(["int", "None", "a.b.C", "'T'", "Literal['x']", "Annotated[int, Field(ge=1)]", "dict[str, int]"]),
    lambda inner: st.one_of(inner.map("list[{}]".format), st.tuples(inner, inner).map(" | ".join)),
    max_leaves=4,
)


@given(ANNOTATIONS)
def test_an_annotation_is_told_as_python_writes_it(annotation: str) -> None:
    (parameter,) = read(f"def get(a: {annotation}): ...")["get"].parameters or ()

    assert parameter.annotation == ast.unparse(ast.parse(annotation, mode="eval").body)


@pytest.mark.parametrize(
    ("decorator", "known"),
    [("torch.inference_mode()", True), ("cache", True), ("app.wrap(1)", False), ("wrap", False)],
)
def test_parameters_under_a_decorator_are_known_only_if_it_leaves_them(decorator: str, known: bool) -> None:
    assert (read(f"@{decorator}\ndef get(a): ...")["get"].parameters is not None) is known


def test_routes_are_read_as_constants() -> None:
    tree = ast.parse("route = '/a'\nif x:\n    route: Final = '/b'\nelse:\n    route = f'/{x}'\n")

    assert source.read(tree, ()).routes == (("/a", 1), ("/b", 3), (None, 5))


@pytest.mark.parametrize(
    ("data", "what", "line"),
    [
        (b"def get(:\n", "syntax error: invalid syntax", 1),
        (b"x = 1\n\ndef get()\n    pass\n", "syntax error", 3),
        (b"if x:\npass\n", "syntax error", 2),
        (b"x = 1\ny = '\xff\xfe'\n", "is not UTF-8: byte 0xff", 2),
        (b"x = 1\ny = 2\0\n", "holds a null byte", 2),
        (b"# -*- coding: nonsense -*-\n", "syntax error", 1),
        (b"x = " + b"(" * 500 + b")" * 500, "syntax error: too many nested parentheses", 1),
        (b"x = " + b"-" * 200_000 + b"1", "nested too deeply", 1),
    ],
)
def test_a_file_that_is_no_python_is_a_problem_with_its_line(data: bytes, what: str, line: int) -> None:
    problem = source.parse(data, "endpoints/a/handler.py")

    assert isinstance(problem, Problem)
    assert what in problem.what
    assert (problem.file, problem.line) == ("endpoints/a/handler.py", line)


@pytest.mark.parametrize(
    "data", [b"", b"\xef\xbb\xbfx = 1\n", b"# coding: latin-1\nx = '\xe9'\n", b"x = '\\d'\r\n", b"x = 1 is 1\n"]
)
def test_odd_but_valid_files_are_read_without_a_warning(data: bytes) -> None:
    assert isinstance(source.parse(data, "f.py"), ast.Module)


@given(st.binary())
def test_any_bytes_are_a_module_or_a_problem_with_a_line(data: bytes) -> None:
    found = source.parse(data, "f.py")

    assert isinstance(found, ast.Module) or (found.line is not None and found.file == "f.py")


NAME = st.sampled_from(["handler", "app", "get", "post", "other"])


@settings(max_examples=60)
@given(st.lists(st.tuples(NAME, st.sampled_from(["def {}(): ...", "class {}: ...", "{} = 1", "from m import {}"]))))
def test_reading_agrees_with_running(items: list[tuple[str, str]]) -> None:
    """What Python binds when it runs the file, with imports that count for `handler` and `app` only."""
    text = "\n".join(form.format(name) for name, form in items)
    found = source.read(ast.parse(text), COUNTED)
    last = dict(items)

    assert {name: item.form for name, item in found.definitions.items()} == {
        name: {"def": "function", "cla": "class", "fro": "import"}.get(form[:3], "assignment")
        for name, form in last.items()
    }
    counted = {name for name, item in found.definitions.items() if handlers.kind_of(item)}
    assert counted == {
        name
        for name, form in last.items()
        if name in ("handler", "app") or (name != "other" and not form.startswith("from"))
    }
