"""Scratch projects on disk to a `Project`: what is found, and every problem with its place."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from flashfw.project.collect import collect
from flashfw.project.functions import functions
from flashfw.project.model import Project, Root

Tree = Callable[[Mapping[str, str]], Project]

JOB = "def handler(x): ...\n"
MODEL = """class Model:
    def __call__(self): ...
    def up(self): ...
    def down(self): ...
    def _own(self): ...
"""
GET = "def get(): ...\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Writes files below `endpoints/` and collects the project around them."""

    def build(files: Mapping[str, str]) -> Project:
        for name, text in files.items():
            path = tmp_path / "endpoints" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return collect_at(tmp_path)

    return build


def collect_at(root: Path) -> Project:
    (root / "flashfw.toml").touch()
    return collect(Root(root, root / "flashfw.toml"))


def ids(project: Project) -> list[str]:
    return [function.id for endpoint in project.endpoints for function in functions(endpoint)]


def errors(project: Project) -> list[str]:
    return [str(problem) for problem in project.problems if problem.level == "error"]


def only(project: Project) -> str:
    (text,) = errors(project)
    return text


def test_the_example_of_the_convention(tree: Tree) -> None:
    project = tree(
        {
            "endpoint.toml": "",
            "gpu_a100/endpoint.toml": "",
            "gpu_a100/handler.py": "def handler(prompt: str, steps: int = 20) -> dict: ...",
            "gpu_a100/fixtures.py": "def model(): ...",
            "gpu_a100/upscale/handler.py": JOB,
            "gpu_a100/helpers.py": "",
            "api/handler.py": GET,
            "api/middleware.py": "async def middleware(request, call_next): ...",
            "api/users/handler.py": "def get(): ...\ndef post(user: User): ...",
            "api/users/_id_/handler.py": "def get(id: int): ...\ndef delete(id: int): ...",
        }
    )

    assert project.problems == ()
    assert [(item.id, item.kind, item.configs) for item in project.endpoints] == [
        ("api", "http", ("endpoints/endpoint.toml",)),
        ("gpu_a100", "job", ("endpoints/endpoint.toml", "endpoints/gpu_a100/endpoint.toml")),
    ]
    assert ids(project) == [
        "api::get",
        "api/users::get",
        "api/users::post",
        "api/users/_id_::get",
        "api/users/_id_::delete",
        "gpu_a100",
        "gpu_a100/upscale",
    ]


def test_collection_never_runs_user_code(tree: Tree, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    project = tree({"a/handler.py": f"open({str(mark)!r}, 'w')\nraise SystemExit\n{JOB}"})

    assert ids(project) == ["a"]
    assert not mark.exists()


def test_the_order_is_that_of_paths_whatever_the_disk_says(tree: Tree) -> None:
    files = {f"{name}/handler.py": JOB for name in ("b", "a_b", "a/c", "ab", "a")}

    assert ids(tree(files)) == ["a", "a/c", "a_b", "ab", "b"]
    assert tree(files) == tree({})


def test_the_top_handler_is_the_index(tree: Tree) -> None:
    project = tree({"handler.py": GET, "a/handler.py": JOB})

    assert project.problems == ()
    assert [(item.id, item.directory) for item in project.endpoints] == [("index", "endpoints"), ("a", "endpoints/a")]
    assert [(f.id, f.route) for f in functions(project.endpoints[0])] == [("index::get", "/")]


def test_a_class_has_one_function_per_method(tree: Tree) -> None:
    source = "class handler:\n    def __call__(self): ...\n    def up(self): ...\n    def close(self): ...\n"
    (endpoint,) = tree({"a/handler.py": source}).endpoints

    assert [(f.id, f.route, f.attribute) for f in functions(endpoint)] == [
        ("a", "/a", "handler"),
        ("a::up", "/a/up", "handler.up"),
    ]


def test_skipped_directories_and_ordinary_files_make_no_route(tree: Tree) -> None:
    project = tree(
        {
            "a/handler.py": JOB,
            "a/_private/handler.py": JOB,
            "a/.hidden/handler.py": JOB,
            "a/__pycache__/handler.py": JOB,
            "a/model.py": JOB,
            "a/Assets-2/data.py": "not python",
            "test_handler.py": JOB,
        }
    )

    assert (ids(project), project.problems) == (["a"], ())


@pytest.mark.parametrize("where", ["", "endpoints/", "endpoints/a/"])
@pytest.mark.parametrize("file", [".gitignore", ".flashfwignore"])
def test_ignored_directories_are_skipped(tree: Tree, tmp_path: Path, where: str, file: str) -> None:
    (tmp_path / "endpoints" / "a").mkdir(parents=True)
    (tmp_path / where / file).write_text("# generated\nbuild/\n")

    assert ids(tree({"a/handler.py": JOB, "a/build/handler.py": JOB})) == ["a"]


def test_a_deeper_ignore_file_and_flashfwignore_win(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("old/\nb\n")
    (tmp_path / ".flashfwignore").write_text("!b\n/endpoints/c/handler.py\n")
    files = {"a/.gitignore": "!old/\n", "a/old/handler.py": JOB, "b/handler.py": JOB, "c/old/handler.py": JOB}

    assert ids(tree({**files, "c/handler.py": JOB})) == ["a/old", "b"]


def test_a_bad_line_of_an_ignore_file_is_told_and_the_others_apply(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("old/\n[z-a]\n")
    project = tree({"a/handler.py": JOB, "old/handler.py": JOB})

    assert ids(project) == ["a"]
    assert only(project).startswith(".gitignore:2: '[z-a]' is no pattern")


def test_a_group_has_one_endpoint_per_child(tree: Tree) -> None:
    project = tree({"ml/a/endpoint.toml": "", "ml/a/handler.py": JOB, "ml/b/endpoint.toml": "", "ml/b/handler.py": GET})

    assert [(item.id, item.kind) for item in project.endpoints] == [("ml/a", "job"), ("ml/b", "http")]
    assert project.problems == ()


def test_a_nested_endpoint_is_its_own(tree: Tree) -> None:
    project = tree(
        {
            "ml/endpoint.toml": "",
            "ml/handler.py": JOB,
            "ml/a/endpoint.toml": "",
            "ml/a/handler.py": GET,
            "ml/a/b/handler.py": GET,
        }
    )

    assert project.problems == ()
    assert [(item.id, len(item.handlers), len(item.configs)) for item in project.endpoints] == [
        ("ml", 1, 1),
        ("ml/a", 2, 2),
    ]


@pytest.mark.parametrize(
    ("stray", "mend"),
    [("ml", "move the handler into one of its endpoints (ml/a)"), ("ml/b", "add endpoints/ml/b/endpoint.toml")],
)
def test_a_handler_that_a_group_leaves_out_is_told_both_mends(tree: Tree, stray: str, mend: str) -> None:
    project = tree({"ml/a/endpoint.toml": "", "ml/a/handler.py": JOB, f"{stray}/handler.py": JOB})

    assert only(project).startswith(f"endpoints/{stray}/handler.py: belongs to no endpoint: 'ml' is a group")
    assert mend in only(project)
    assert "or add endpoints/ml/endpoint.toml to make 'ml' one endpoint" in only(project)
    assert [(item.id, item.broken) for item in project.endpoints] == [("ml", True), ("ml/a", False)]


@pytest.mark.parametrize(
    ("files", "place", "what"),
    [
        ({"a/handler.py": "def handler(): ...\ndef get(): ...\n"}, "a/handler.py:2", "one endpoint is one kind"),
        ({"a/handler.py": "app = 1\ndef handler(): ...\n"}, "a/handler.py:2", "(endpoints/a/handler.py:1)"),
        ({"a/handler.py": "from x import app\ndef get(): ...\n"}, "a/handler.py:2", "'app' makes it a mounted"),
        ({"a/handler.py": JOB, "a/b/handler.py": GET}, "a/b/handler.py:1", "(endpoints/a/handler.py:1)"),
        ({"a/handler.py": ""}, "a/handler.py:1", "defines no handler, app or HTTP verb"),
        ({"a/handler.py": "\ndef handle(): ...\n"}, "a/handler.py:2", "did you mean 'handler'?"),
        ({"a/handler.py": "def GET(): ...\n"}, "a/handler.py:1", "did you mean 'get'?"),
        ({"a/handler.py": "from x import get\n"}, "a/handler.py:1", "'get' is imported"),
        ({"a/handler.py": "class handler:\n    x = 1\n"}, "a/handler.py:1", "has no function"),
        ({"a/handler.py": "def get(): ...\ndef get(): ...\n"}, "a/handler.py:2", "'get' is defined twice"),
        ({"handler.py": JOB}, "handler.py:1", "is '/', for HTTP only"),
        ({"handler.py": "app = 1"}, "handler.py:1", "is '/', for HTTP only"),
        ({"a/_id_/handler.py": JOB}, "a/_id_/handler.py:1", "dynamic segment, for HTTP only"),
        ({"a/handler.py": "route = f'/{x}'\n" + GET}, "a/handler.py:1", "'route' must be a plain string"),
        ({"a/handler.py": "route = 'a'\n" + GET}, "a/handler.py:1", "'a' is no route: it must begin with '/'"),
        ({"a/handler.py": "route = '/a'\nroute = '/b'\n" + GET}, "a/handler.py:2", "'route' is set twice"),
        ({"Bad-Name/handler.py": JOB}, "Bad-Name", "rename it to 'bad_name'"),
        ({"a/class/handler.py": JOB}, "a/class", "it is a Python keyword"),
        ({"a/2d/x/handler.py": JOB}, "a/2d", "rename it to 'n2d'"),
        ({"a/_Id_/handler.py": "def get(Id): ..."}, "a/_Id_", "cannot be a dynamic segment"),
        ({"v2/handler.py": JOB}, "v2", "belongs to flashfw"),
        ({"docs/x/handler.py": JOB}, "docs", "belongs to flashfw"),
        ({"openapi/handler.py": JOB}, "openapi", "belongs to flashfw"),
        ({"a/handler.py": JOB, "a/x.py": "", "a/x/handler.py": JOB}, "a/x", "only one of them can be imported"),
        ({"handler.py": GET, "index/handler.py": GET}, "index", "is called 'index' too"),
        ({"a/handler.py": JOB, "a/fixtures.py": "def f(:\n"}, "a/fixtures.py:1", "syntax error"),
        ({"a/handler.py": GET, "middleware.py": "def f(:\n"}, "middleware.py:1", "syntax error"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tree: Tree, files: dict[str, str], place: str, what: str) -> None:
    project = tree(files)

    assert only(project).startswith(f"endpoints/{place}: ")
    assert what in only(project)
    assert all(item.broken for item in project.endpoints)


@pytest.mark.parametrize(
    ("files", "place", "what"),
    [
        (
            {"a/handler.py": "route = '/b'\n" + GET, "b/handler.py": GET},
            "b/handler.py:1",
            "GET /b is taken twice: by 'b::get' and by 'a::get' (endpoints/a/handler.py:2)",
        ),
        (
            {"a/handler.py": JOB, "b/handler.py": "route = '/a'\ndef post(): ..."},
            "b/handler.py:2",
            "POST /a is taken twice",
        ),
        (
            {"a/handler.py": "app = 1", "b/handler.py": "route = '/a'\ndef put(): ..."},
            "b/handler.py:2",
            "PUT /a is taken twice",
        ),
        (
            {"a/_x_/handler.py": "def get(x): ...", "a/_y_/handler.py": "def put(y): ..."},
            "a/_y_/handler.py:1",
            "one dynamic level has two names, 'y' and 'x', at '/a/{}'",
        ),
        (
            {"a/_x_/b/handler.py": "def get(x): ...", "a/_y_/c/handler.py": "def get(y): ..."},
            "a/_y_/c/handler.py:1",
            "two names",
        ),
        (
            {"a/_x_/b/_x_/handler.py": "def get(x): ..."},
            "a/_x_/b/_x_/handler.py:1",
            "the parameter 'x' stands twice in '/a/{x}/b/{x}'",
        ),
        (
            {"a/handler.py": "route = '/Users'\n" + GET, "users/handler.py": GET},
            "users/handler.py:1",
            "'/users' and '/Users' differ by case only",
        ),
        (
            {"a/handler.py": "class handler:\n    def up(self): ...\n    def Up(self): ..."},
            "a/handler.py:3",
            "differ by case only",
        ),
        (
            {"a/handler.py": "class handler:\n    def up(self): ...", "a/up/handler.py": JOB},
            "a/handler.py:2",
            "the method 'up' has the URL of the directory endpoints/a/up",
        ),
        (
            {"a/_id_/handler.py": "def get(): ..."},
            "a/_id_/handler.py:1",
            "no parameter takes 'id' of '/a/{id}'; write `def get(id: ...)`",
        ),
        ({"a/_id_/b/handler.py": "def get(ID): ..."}, "a/_id_/b/handler.py:1", "no parameter takes 'id'"),
    ],
)
def test_a_conflict_is_told_with_both_sides(tree: Tree, files: dict[str, str], place: str, what: str) -> None:
    project = tree(files)

    assert only(project).startswith(f"endpoints/{place}: ")
    assert what in only(project)
    assert all(item.broken for item in project.endpoints)


@pytest.mark.parametrize(
    "files",
    [
        {"a/_id_/handler.py": "def get(id): ...", "a/me/handler.py": GET},
        {"a/_id_/handler.py": "def get(id): ...\ndef options(): ..."},
        {"a/_id_/handler.py": "def get(**path): ..."},
        {"a/_id_/handler.py": "def get(r: Request): ..."},
        {"a/_id_/handler.py": "async def websocket(r: 'starlette.websockets.WebSocket'): ..."},
        {"a/_id_/handler.py": "get = make()"},
        {"a/_id_/handler.py": "route = '/a/{path:path}'\ndef get(path): ..."},
        {"a/handler.py": "route = '/b/{x:path}'\ndef get(x): ...", "b/_id_/handler.py": "def get(id): ..."},
        {"a/handler.py": "route = '/b'\n" + GET, "b/handler.py": "def post(): ..."},
        {"a/handler.py": "if x:\n    def get(): ...\nelse:\n    def get(): ..."},
        {"a/handler.py": "@overload\ndef get(): ...\ndef get(x): ..."},
        {"a/handler.py": "class handler(Base):\n    def up(self): ...", "a/down/handler.py": JOB},
        {"a/handler.py": "class Model:\n    def __call__(self): ...\n    def close(self): ...\nhandler = Model"},
        {"a/handler.py": MODEL + "class handler(Model):\n    def up(self): ..."},
        {"a/handler.py": MODEL + "handler = Model\ndef handler(): ..."},
        {"a/handler.py": "from lib import Model\nhandler = Model"},
        {"index/handler.py": JOB},
        {"a/v2/handler.py": JOB},
        {"a/handler/handler.py": JOB},
    ],
)
def test_what_does_not_conflict(tree: Tree, files: dict[str, str]) -> None:
    assert tree(files).problems == ()


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (
            {"a/handlers.py": JOB},
            "endpoints/a/handlers.py: 'handlers.py' is no special name, so this is an ordinary file; "
            "did you mean 'handler.py'?",
        ),
        ({"a/handler.py": JOB, "a/fixture.py": ""}, "did you mean 'fixtures.py'?"),
        ({"a/handler.py": JOB, "a/endpoints.toml": ""}, "did you mean 'endpoint.toml'?"),
        ({"a/endpoint.toml": ""}, "endpoints/a/endpoint.toml: configures nothing"),
        ({"a/handler.py": "route = '/b'\n" + JOB}, "endpoints/a/handler.py:1: 'route' has no effect"),
        (
            {"a/handler.py": MODEL + "handler = Model"},
            "endpoints/a/handler.py:6: 'handler' is assigned the class 'Model', of which only '__call__' is served: "
            "'up' and 'down' get no URL; write `class handler(Model):`",
        ),
        ({"a/handler.py": MODEL + "handler: object = Model(1)"}, "only '__call__' is served: 'up' and 'down' get no"),
    ],
)
def test_what_is_odd_is_a_warning_and_breaks_nothing(tree: Tree, files: dict[str, str], text: str) -> None:
    project = tree(files)

    (problem,) = project.problems
    assert problem.level == "warning"
    assert text in str(problem)
    assert not any(item.broken for item in project.endpoints)


def test_a_broken_file_is_kept_and_hides_nothing(tree: Tree) -> None:
    project = tree({"a/handler.py": "def handler(:\n", "a/b/handler.py": JOB, "c/handler.py": JOB})

    assert only(project).startswith("endpoints/a/handler.py:1: syntax error")
    assert [(item.id, item.broken) for item in project.endpoints] == [("a", True), ("c", False)]
    assert ids(project) == ["a/b", "c"]


def test_all_problems_are_told_at_once_in_the_order_of_files(tree: Tree) -> None:
    project = tree({"b/handler.py": "def get(:\n", "A-1/handler.py": JOB, "a/handler.py": "\0", "c/handler.py": ""})

    assert [problem.file for problem in project.problems] == [
        "endpoints/A-1",
        "endpoints/a/handler.py",
        "endpoints/b/handler.py",
        "endpoints/c/handler.py",
    ]


def test_a_problem_of_many_handlers_is_told_once(tree: Tree) -> None:
    assert len(tree({f"Bad/{name}/handler.py": JOB for name in "abc"}).problems) == 1


@pytest.mark.parametrize("target", [".", "..", "../..", "loop", "../a", "/"])
def test_a_symlink_loop_is_a_problem_and_ends(tree: Tree, tmp_path: Path, target: str) -> None:
    (tmp_path / "endpoints" / "a").mkdir(parents=True)
    (tmp_path / "endpoints" / "a" / "loop").symlink_to(target)
    project = tree({"a/handler.py": JOB})

    assert only(project).startswith("endpoints/a/loop: symlink loop")
    assert ids(project) == ["a"]


def test_a_loop_through_two_links_ends(tree: Tree, tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / "endpoints" / name).mkdir(parents=True)
        (tmp_path / "endpoints" / name / "to").symlink_to(f"../{other}")
    project = tree({"a/handler.py": JOB, "b/handler.py": JOB})

    assert [problem.file for problem in project.problems] == ["endpoints/a/to/to", "endpoints/b/to/to"]
    assert ids(project) == ["a", "a/to", "b", "b/to"]


def test_a_link_to_a_directory_is_followed(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "handler.py").write_text(JOB)
    (tmp_path / "endpoints").mkdir()
    (tmp_path / "endpoints" / "a").symlink_to("../shared")

    assert ids(tree({})) == ["a"]


def test_handler_files_that_are_none(tree: Tree, tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / "endpoints" / name).mkdir(parents=True)
    os.mkfifo(tmp_path / "endpoints" / "a" / "handler.py")
    (tmp_path / "endpoints" / "b" / "handler.py").symlink_to("nowhere")
    (tmp_path / "endpoints" / "c" / "handler.py").symlink_to("handler.py")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(tmp_path / "endpoints" / "d" / "handler.py"))
        project = tree({"e/handler.py": JOB})

    assert [problem.what for problem in project.problems] == [
        "is no regular file",
        "cannot be read: No such file or directory",
        "cannot be read: Too many levels of symbolic links",
        "is no regular file",
    ]
    assert [item.id for item in project.endpoints if item.broken] == ["a", "b", "c", "d"]


def test_a_handler_that_is_a_directory(tree: Tree) -> None:
    project = tree({"a/handler.py/handler.py": JOB})

    assert only(project) == "endpoints/a/handler.py: is no regular file; replace it by a file, or remove it"
    assert [(item.id, item.broken) for item in project.endpoints] == [("a", True)]


def test_bytes_that_are_no_text_are_a_problem(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "endpoints" / "a").mkdir(parents=True)
    (tmp_path / "endpoints" / "a" / "handler.py").write_bytes(b"# fine\n# \xff\xfe\n")

    assert only(tree({})) == "endpoints/a/handler.py:2: is not UTF-8: byte 0xff; save it as UTF-8"


def test_files_and_folders_that_may_not_be_read(tree: Tree, tmp_path: Path) -> None:
    """By a process without the rights of root, which may read anything."""
    tree({"a/handler.py": JOB, "b/handler.py": JOB, "c/handler.py": JOB, "g/x/endpoint.toml": "", "g/y/handler.py": ""})
    (tmp_path / "endpoints" / "a" / "handler.py").chmod(0)
    (tmp_path / "endpoints" / "b").chmod(0)
    (tmp_path / "endpoints" / "g" / "y").chmod(0)
    tmp_path.chmod(0o755)
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom flashfw.project.collect import collect\n"
        "from flashfw.project.model import Root\n"
        "os.chdir(sys.argv[1])\nroot = Root(Path('.'), Path('flashfw.toml'))\ncollect(root)\n"  # loads every import
        "if os.getuid() == 0:\n    os.setuid(65534)\nproject = collect(root)\n"
        "print([(item.id, item.broken) for item in project.endpoints], *project.problems, sep='\\n')"
    )
    try:
        done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True)
    finally:
        (tmp_path / "endpoints" / "b").chmod(0o755)
        (tmp_path / "endpoints" / "g" / "y").chmod(0o755)

    assert done.stdout.splitlines() == [
        "[('a', True), ('b', True), ('c', False), ('g', True)]",
        "endpoints/a/handler.py: cannot be read: Permission denied; make it readable, or remove it",
        "endpoints/b: cannot be read: Permission denied; make it readable",
        "endpoints/g/x/endpoint.toml: configures nothing: there is no handler.py in or below its directory",
        "endpoints/g/y: cannot be read: Permission denied; make it readable",
    ], done.stderr


def test_a_deep_tree_and_a_name_of_odd_bytes(tree: Tree, tmp_path: Path) -> None:
    deep = "/".join(["a"] * 300)
    odd = os.fsdecode(b"caf\xe9")
    project = tree({f"{deep}/handler.py": JOB, f"{odd}/handler.py": JOB})

    assert ids(project) == [deep, odd]
    assert "cannot be part of a path" in only(project)


def test_no_endpoints_folder_and_one_that_is_a_file(tmp_path: Path) -> None:
    assert collect_at(tmp_path).problems == ()

    (tmp_path / "endpoints").write_text("")
    assert only(collect_at(tmp_path)).startswith("endpoints: is no directory")
