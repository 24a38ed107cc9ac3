from __future__ import annotations

from pathlib import Path

from flashfw.project import root
from flashfw.project.collect import collect
from flashfw.project.functions import functions, relative_name
from tests.project import shop

CLASS = """
class handler:
    def __init__(self, model): ...
    def __call__(self, prompt: str): ...
    def upper(self, prompt: str): ...
    def close(self): ...
    def _private(self): ...
"""


def test_every_function_of_every_kind(tmp_path: Path) -> None:
    shop.write(
        tmp_path,
        {
            "endpoints/handler.py": shop.HTTP,
            "endpoints/gpu/handler.py": CLASS,
            "endpoints/gpu/upscale/handler.py": shop.JOB,
            "endpoints/api/handler.py": shop.HTTP,
            "endpoints/api/users/_id_/handler.py": "def get(id: int): ...\nasync def websocket(socket, id: int): ...\n",
            "endpoints/mount/handler.py": "app = make()\n",
        },
    )

    found = [function for tree in collect(root.find(tmp_path)).endpoints for function in functions(tree)]

    assert {(f.id, f.name, f.attribute, f.method, f.route, f.line) for f in found} == {
        ("index::get", "get", "get", "GET", "/", 1),
        ("gpu", "handler", "handler", "", "/gpu", 2),
        ("gpu::upper", "upper", "handler.upper", "", "/gpu/upper", 5),
        ("gpu/upscale", "upscale", "handler", "", "/gpu/upscale", 1),
        ("api::get", "get", "get", "GET", "/api", 1),
        ("api/users/_id_::get", "users/_id_::get", "get", "GET", "/api/users/{id}", 1),
        ("api/users/_id_::websocket", "users/_id_::websocket", "websocket", "WEBSOCKET", "/api/users/{id}", 2),
        ("mount", "app", "app", "*", "/mount", 1),
    }


def test_a_name_keeps_what_is_not_the_endpoint_s() -> None:
    assert [relative_name("a/b", node) for node in ("a/b", "a/b/c::get", "a/b::get")] == ["handler", "c::get", "get"]
