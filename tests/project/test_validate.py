"""Everything that one endpoint.toml can get wrong, with its exact line and the nearest right word."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import shop

FILE = "endpoints/gpu/endpoint.toml"


def problems(tmp_path: Path, text: str, **files: str) -> list[str]:
    tree = {FILE: text, "endpoints/gpu/handler.py": shop.JOB, "endpoints/gpu/upscale/handler.py": shop.JOB}
    config = {"flashfw.toml": "[environments.prod]\n[environments.staging]\n"}
    return shop.told(shop.write(tmp_path, {**config, **tree, **files}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\nworker = 3", ":2: unknown key 'worker'; did you mean 'workers'?"),
        ("qqqq = 3", ":1: unknown key 'qqqq'"),
        ("[on.prod]\nworker = 3", ":2: unknown key 'on.prod.worker'; did you mean 'workers'?"),
        ("[function.upscale]\ntimout = 3", ":2: unknown key 'function.upscale.timout'; did you mean 'timeout'?"),
        ("[retries]\nmax = 1\nmaxx = 3", ":3: unknown key 'retries.maxx'; did you mean 'max'?"),
        ("workers = 'x'", ":1: 'workers' must be a number of workers of 1 or more, or [min, max]"),
        ("gpu = [\n 'L40S',\n 'L40SX' ]", ":3: 'gpu[1]' must name a device of the catalogue, not \"L40SX\"; "
         "did you mean 'L40S'?"),
        ("dependencies = ['...',\n 'a',\n 'b=1']", ":3: 'dependencies[2]' must be a requirement such as"),
        ("[on.prd]\nworkers = 3", ":1: [on.prd] is for an environment that the project does not declare; "
         "did you mean 'prod'?"),
        ("[on.live]", ":1: [on.live] is for an environment that the project does not declare; "
         "declare [environments.live] in flashfw.toml"),
        ("[function.upscal]", ":1: [function.upscal] names no function of the endpoint; did you mean 'upscale'?"),
        ("[on.prod.function.nope]", ":1: [function.nope] names no function of the endpoint; "
         "there is: handler, upscale"),
        ("[function.upscale]\ngpu = 'L40S'", ":2: 'gpu' holds for a whole endpoint, not for one function; "
         "functions share workers and hardware: move it to the top"),
        ("[on.prod]\ninherit = false", ":2: 'inherit' cannot stand inside [on.prod]; move it to the top"),
        ("inherit = 1", ":1: 'inherit' must be true or false, not 1"),
        ("on = 1", ":1: 'on' must be a table, not 1"),
        ("on.prod = 1", ":1: 'on.prod' must be a table, not 1"),
        ("function = []", ":1: 'function' must be a table, not a list"),
        ("function.upscale = 'x'", ":1: 'function.upscale' must be a table, not \"x\""),
        ("gpu = 'L40S'\ncpu = 'cpu3g-2-8'", ":2: 'gpu' and 'cpu' exclude each other; "
         "an endpoint runs on one kind of hardware: remove one"),
        ("retries = {max = 1, on = ['...', 'A', 'b c']}", ":1: 'retries.on[2]' must be a dotted name"),
        ("marks = [\n 'a',\n '...' ]", ":3: 'marks[1]' must be a word of letters, digits and _, not \"...\"; "
         '"..." stands for the inherited items, and only as the first item of a list'),
        ("marks = ['...', 'a', '...']", ":1: 'marks[2]' must be a word of letters, digits and _, not \"...\"; \"...\""),
        ("[env]\nA = true", ":2: 'env.A' must be a string, not true; write it in quotes: \"true\""),
        ("[env]\nA = 1.5", ":2: 'env.A' must be a string, not 1.5; write it in quotes: \"1.5\""),
        ("[env]\nA = ['...']", ":2: 'env.A' must be a string without null bytes, not a list"),
        ("env = {\"A B\" = 'x'}", ":1: 'env.A B' must be the name of a variable"),
        ("\r\n[[function.upscale.schedule]]\r\ncron = 'x'\r\n", ":3: 'function.upscale.schedule[0].cron' must be"),
        ("[[function.upscale.schedule]]\ncron = '* * * * *'\ninput.prompt = ''\n"
         "[[on.prod.function.upscale.schedule]]\n\ncorn = 1",
         ":6: unknown key 'on.prod.function.upscale.schedule[0].corn'; did you mean 'cron'?"),
        ("function.upscale = {retries = {max = 1,\tmaxx = 3}}", ":1: unknown key 'function.upscale.retries.maxx'"),
        ('env.A = """\n[b]\nc = 1"""\nworker = 1', ":4: unknown key 'worker'"),
        ("'größe' = 1", ":1: unknown key 'größe'"),
        ("a = = 1", ":1: not TOML: Invalid value"),
        ("a = 1\n\n[a", ":3: not TOML: "),
    ],
)  # fmt: skip
def test_a_problem_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)

    assert len(found) == 1
    assert found[0].startswith(FILE + expected)


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    text = "worker = 1\ntimeout = '1s'\nenv = {A = 1, B = 2}\n[on.prd]\nqqqq = 1\n[function.x]\ny = 1"

    found = problems(tmp_path, text)

    assert sorted(int(text.split(":")[1]) for text in found) == [1, 2, 3, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("text", ["", "gpu = ['...']", "retries = false", "env = {}", "on.dev = {}"])
def test_nothing_is_wrong(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == []


@pytest.mark.parametrize("value", ["false", "{}", "{OTHER = 'x'}"])
def test_a_variable_that_is_unset_where_none_is_inherited_was_meant_as_text(tmp_path: Path, value: str) -> None:
    above = {"endpoints/endpoint.toml": f"env = {value}"}

    assert problems(tmp_path, "\nenv = {DEBUG = false}", **above) == [
        f"{FILE}:2: 'env.DEBUG = false' takes an inherited value away, and there is none; "
        'a variable is text: write "false" in quotes, or remove the line'
    ]


@pytest.mark.parametrize("above", ["env = {A = '1'}", "[on.dev.env]\nA = '1'"])
def test_an_inherited_variable_may_be_unset(tmp_path: Path, above: str) -> None:
    assert problems(tmp_path, "[on.dev]\nenv.A = false", **{"endpoints/endpoint.toml": above}) == []


def test_a_byte_order_mark_counts_for_nothing(tmp_path: Path) -> None:
    problems(tmp_path, "")
    (tmp_path / FILE).write_bytes(b"\xef\xbb\xbfworker = 1")

    assert shop.told(tmp_path) == [f"{FILE}:1: unknown key 'worker'; did you mean 'workers'?"]


def test_only_a_list_knows_of_inherited_items(tmp_path: Path) -> None:
    assert "'workers' must be a number of workers" in problems(tmp_path, "workers = ['...', 3]")[0]


def test_false_is_a_value_for_a_boolean_key(tmp_path: Path) -> None:
    assert problems(tmp_path, "flashboot = false\npublic = false") == []


def test_a_file_above_may_name_functions_of_any_endpoint_below(tmp_path: Path) -> None:
    above = "[function.upscale]\ntimeout = '1m'\n[function.nope]\n"

    found = problems(tmp_path, "", **{"endpoints/endpoint.toml": above, "endpoints/other/handler.py": shop.JOB})

    assert [text.split(";")[0] for text in found] == [
        "endpoints/endpoint.toml:3: [function.nope] names no function of the endpoint"
    ]


def test_names_of_functions_are_not_judged_while_a_handler_is_broken(tmp_path: Path) -> None:
    found = problems(tmp_path, "[function.gone]", **{"endpoints/gpu/handler.py": "def handler(:\n"})

    assert found == ["endpoints/gpu/handler.py:1: syntax error: invalid syntax"]


def test_a_file_of_many_endpoints_is_told_of_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "", **{"endpoints/endpoint.toml": "worker = 1", "endpoints/b/handler.py": shop.JOB})

    assert found == ["endpoints/endpoint.toml:1: unknown key 'worker'; did you mean 'workers'?"]


@pytest.mark.parametrize("place", ["endpoints/later", "endpoints/gpu/later", "endpoints"])
def test_a_file_that_configures_nothing_yet_is_checked_too(tmp_path: Path, place: str) -> None:
    files = {f"{place}/endpoint.toml": "worker = 1\n[function.any]\ntimout = 1"}
    if place == "endpoints":
        shop.write(tmp_path, files)
    else:
        problems(tmp_path, "", **files)

    found = [text for text in shop.told(tmp_path) if "configures nothing" not in text]

    assert [text.partition(";")[0] for text in found] == [
        f"{place}/endpoint.toml:1: unknown key 'worker'",
        f"{place}/endpoint.toml:3: unknown key 'function.any.timout'",
    ]
