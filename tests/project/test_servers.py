"""`command` in an endpoint.toml: what makes an endpoint of it, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashfw.project import root
from flashfw.project.collect import collect
from flashfw.project.compile import compile
from tests.served import write


def read(folder: Path, files: dict[str, str]):
    project = collect(root.find(write(folder, files)))
    manifest, problems = compile(project, environment="dev")
    return manifest, (*project.problems, *problems)


def test_a_command_makes_an_endpoint(tmp_path: Path) -> None:
    files = {
        "endpoints/llm/endpoint.toml": "command = \"node 'my server.js' --port $PORT\"\nready = '/health'\n",
        "endpoints/llm/my server.js": "",
        "endpoints/llm/node_modules/x.js": "",
        "endpoints/llm/side/endpoint.toml": "",
        "endpoints/llm/side/handler.py": "def handler(): ...",
    }
    manifest, problems = read(tmp_path, files)

    llm, side = manifest.endpoints
    assert problems == ()
    assert (llm.kind, llm.command, llm.ready) == ("app", ("node", "my server.js", "--port", "$PORT"), "/health")
    assert [(one.id, one.route, one.file, one.line) for one in llm.functions] == [
        ("llm", "/llm", "endpoints/llm/endpoint.toml", 1)
    ]
    assert "endpoints/llm/my server.js" in [source.path for source in llm.sources]
    assert "endpoints/llm/node_modules/x.js" not in [source.path for source in llm.sources]
    assert (side.kind, side.command, side.ready) == ("job", (), "/")


@pytest.mark.parametrize(
    ("files", "what", "place"),
    [
        (
            {"endpoints/a/endpoint.toml": "\ncommand = 'x'", "endpoints/a/handler.py": "def handler(): ..."},
            "'command' runs a server, but endpoints/a/handler.py is there too: an endpoint is one of both",
            ("endpoints/a/endpoint.toml", 2),
        ),
        (
            {"endpoints/a/endpoint.toml": "command = 'x'", "endpoints/a/b/handler.py": "def handler(): ..."},
            "one endpoint is one kind: 'handler' makes it a job, but 'command' makes it a mounted application",
            ("endpoints/a/b/handler.py", 1),
        ),
        (
            {"endpoints/endpoint.toml": "command = 'x'", "endpoints/a/handler.py": "def handler(): ..."},
            "'command' belongs to one endpoint, and endpoints/endpoint.toml holds for all",
            ("endpoints/endpoint.toml", 1),
        ),
        (
            {"endpoints/a/endpoint.toml": "command = 3"},
            "'command' must be a command such as \"node server.js\", or the list of its words, not 3",
            ("endpoints/a/endpoint.toml", 1),
        ),
        (
            {"endpoints/a/endpoint.toml": "command = 'a \"b'"},
            "'command' must be a command such as",
            ("endpoints/a/endpoint.toml", 1),
        ),
        (
            {"endpoints/a/endpoint.toml": "command = 'x'\nready = 'health'"},
            "'ready' must be a path such as \"/health\"",
            ("endpoints/a/endpoint.toml", 2),
        ),
        (
            {"endpoints/a/endpoint.toml": "ready = '/health'", "endpoints/a/handler.py": "def get(): ..."},
            "'ready' has no effect without 'command'",
            ("endpoints/a/endpoint.toml", 1),
        ),
        (
            {"endpoints/a/endpoint.toml": "command = 'x'\n[on.dev]\ncommand = false"},
            "'command' is unset, and there is no handler.py",
            ("endpoints/a/endpoint.toml", 1),
        ),
        (
            {"endpoints/a/_id_/endpoint.toml": "command = 'x'"},
            "'command' makes this a mounted application, but '_id_' in its path is a dynamic segment",
            ("endpoints/a/_id_/endpoint.toml", 1),
        ),
    ],
)
def test_what_is_wrong_with_a_command(tmp_path: Path, files: dict[str, str], what: str, place: tuple[str, int]) -> None:
    _, problems = read(tmp_path, files)

    (problem,) = problems
    assert what in problem.what
    assert (problem.file, problem.line) == place


def test_each_environment_has_its_command(tmp_path: Path) -> None:
    manifest, problems = read(
        tmp_path, {"endpoints/a/endpoint.toml": "command = 'x'\n[on.dev]\ncommand = ['y', '--dev']"}
    )

    assert (manifest.endpoints[0].command, problems) == (("y", "--dev"), ())
