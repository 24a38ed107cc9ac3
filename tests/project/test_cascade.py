"""Merging, checked against a model that knows nothing of places."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.project.cascade import Cascade, cascade, find, origins, raw
from flashfw.project.tomlkeys import Document, parse


def documents(*texts: str) -> list[Document]:
    found = [parse(f"{index}.toml", text) for index, text in enumerate(texts)]
    return [document for document in found if isinstance(document, Document)]


def merged(*texts: str, environment: str = "dev") -> Cascade:
    return cascade(documents(*texts), environment)


def values(*texts: str, environment: str = "dev") -> dict[str, Any]:
    return {name: raw(node) for name, node in merged(*texts, environment=environment).nodes.items()}


def places(key: str, *texts: str, environment: str = "dev") -> list[str]:
    node = merged(*texts, environment=environment).nodes[key]
    return [f"{origin.file}:{origin.line}" for origin in origins(node)]


def test_the_leaf_wins_over_the_root() -> None:
    assert values("workers = 1\ntimeout = 10", "workers = 2") == {"workers": 2, "timeout": 10}


def test_an_environment_wins_over_every_plain_value() -> None:
    texts = ("workers = 1\n[on.prod]\nworkers = 9", "workers = 2\n[on.prod]\ntimeout = 10")

    assert values(*texts) == {"workers": 2}
    assert values(*texts, environment="prod") == {"workers": 9, "timeout": 10}


def test_tables_merge_key_by_key() -> None:
    texts = ("env = {A = '1', B = '2'}", "[env]\nB = '3'\nC = '4'", "env.A = false")

    assert values(*texts) == {"env": {"B": "3", "C": "4"}}
    assert places("env", *texts) == ["1.toml:2", "1.toml:3"]


def test_lists_are_replaced_unless_they_begin_with_the_inherited_ones() -> None:
    assert values("marks = ['a']", "marks = ['b']") == {"marks": ["b"]}
    assert values("marks = ['a']", "marks = ['...', 'b']", "marks = [\n'...',\n'c']") == {"marks": ["a", "b", "c"]}
    assert places("marks", "marks = ['a']", "marks = [\n'...',\n'b']") == ["0.toml:1", "1.toml:3"]
    assert values("marks = ['...', 'b']") == {"marks": ["b"]}
    assert values("marks = ['...']") == {}


def test_lists_inside_tables_take_the_inherited_items_too() -> None:
    texts = ("retries = {max = 1, on = ['A']}", "[retries]\non = ['...', 'B']", "[on.dev]\nretries.on = ['...', 'C']")

    assert values(*texts) == {"retries": {"max": 1, "on": ["A", "B", "C"]}}
    assert places("retries", *texts) == ["0.toml:1", "0.toml:1", "1.toml:2", "2.toml:2"]


def test_what_stands_inside_an_item_of_a_list_is_data() -> None:
    text = "schedule = [{cron = 'x', input = {a = ['...', 1], b = false}}]"

    assert values("schedule = [{cron = 'y'}]", text)["schedule"] == [
        {"cron": "x", "input": {"a": ["...", 1], "b": False}}
    ]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("secrets = ['A']", "secrets = {B = 'b'}"), {"A": "A", "B": "b"}),
        (("secrets = {A = 'a'}", "secrets = ['...', 'B']"), {"A": "a", "B": "B"}),
        (("secrets = ['A', 'B']", "secrets = {A = false}"), {"B": "B"}),
        (("secrets = {A = 'a'}", "secrets = ['B']"), ["B"]),
    ],
)
def test_a_list_of_secrets_is_short_for_a_table(texts: tuple[str, ...], expected: Any) -> None:
    assert values(*texts) == {"secrets": expected}


def test_one_inherited_value_is_a_list_of_one() -> None:
    assert values("gpu = 'L40S'", "gpu = ['...', 'A40']") == {"gpu": ["L40S", "A40"]}
    assert values("volume = {name = 'a'}", "volume = ['...', {name = 'b'}]") == {
        "volume": [{"name": "a"}, {"name": "b"}]
    }


def test_false_unsets_what_is_not_boolean() -> None:
    texts = (
        "retries = 3\npublic = true\nschedule = [{cron = 'x'}]",
        "retries = false\npublic = false\nschedule = false",
    )

    assert values(*texts) == {"public": False}


def test_gpu_and_cpu_drop_each_other() -> None:
    assert values("cpu = 'x'", "gpu = 'L40S'") == {"gpu": "L40S"}
    assert values("gpu = 'L40S'\n[on.dev]\ncpu = 'x'") == {"cpu": "x"}
    assert values("cpu = 'x'", "gpu = false") == {"cpu": "x"}
    assert values("cpu = 'x'", "gpu = ['...']") == {"cpu": "x"}
    assert values("gpu = 'L40S'", "cpu = 'x'", "gpu = ['...', 'A40']") == {"gpu": ["A40"]}


def test_files_above_are_cut_off() -> None:
    texts = ("workers = 1\n[on.dev]\ntimeout = 9", "inherit = false\nconcurrency = 2", "marks = ['...', 'a']")

    assert values(*texts) == {"concurrency": 2, "marks": ["a"]}


def test_a_function_has_the_endpoint_s_values_and_its_own() -> None:
    found = merged(
        "timeout = 1\nmarks = ['a']\nworkers = 3\n[function.up]\ntimeout = 2\nmarks = ['...', 'b']",
        "[function.up]\nretries = 1\n[on.dev]\ntimeout = 3\n[on.dev.function.up]\nretries = false",
    )

    assert {name: raw(node) for name, node in found.function("up").items()} == {"timeout": 2, "marks": ["a", "b"]}
    assert {name: raw(node) for name, node in found.function("other").items()} == {"timeout": 3, "marks": ["a"]}


def test_a_part_of_a_value_is_found_where_it_is_written() -> None:
    node = merged("scaler = {type = 'queue_delay'}", "\n[scaler]\nvalue = 0").nodes["scaler"]

    assert find(node, ("value",)).line == 3
    assert find(node, ("type",)).file == "0.toml"
    assert find(node, ("nope",)).line == 2


KEYS = st.sampled_from(["workers", "concurrency", "marks", "env", "gpu", "cpu", "public"])
LISTS = st.lists(st.sampled_from(["a", "b"]), max_size=2)
VALUES = {
    "marks": LISTS | LISTS.map(lambda items: ["...", *items]) | st.just(False),
    "env": st.dictionaries(st.sampled_from(["A", "B"]), st.sampled_from(["1", "2", False]), max_size=2),
    "gpu": st.sampled_from(["L40S", ["L40S", "A40"], ["...", "B200"], False]),
    "cpu": st.sampled_from(["x", False]),
    "public": st.booleans(),
}
TABLES = st.lists(KEYS, unique=True, max_size=5).flatmap(
    lambda names: st.fixed_dictionaries({name: VALUES.get(name, st.integers(1, 3) | st.just(False)) for name in names})
)
TREES = st.tuples(TABLES, st.dictionaries(st.sampled_from(["dev", "prod"]), TABLES, max_size=2), st.booleans())


def spelled(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {spelled(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(spelled, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def model(trees: list[tuple[dict[str, Any], dict[str, dict[str, Any]], bool]], environment: str) -> dict[str, Any]:
    start = max((index for index, tree in enumerate(trees) if tree[2]), default=0)
    layers = [plain for plain, _, _ in trees[start:]] + [on.get(environment, {}) for _, on, _ in trees[start:]]
    result: dict[str, Any] = {}
    for layer in layers:
        for name, other in (("gpu", "cpu"), ("cpu", "gpu")):
            if layer.get(name, False) is not False:
                result.pop(other, None)
        for name, value in layer.items():
            before = result.pop(name, None)
            if value is False and name != "public":
                continue
            if isinstance(value, dict):
                value = {k: v for k, v in {**(before or {}), **value}.items() if v is not False}
            if isinstance(value, list) and value[:1] == ["..."]:
                inherited = before if isinstance(before, list) else [] if before is None else [before]
                value = inherited + value[1:]
                if value == [] and before is None and len(layer[name]) == 1:
                    continue
            result[name] = value
    return result


@given(st.lists(TREES, min_size=1, max_size=4), st.sampled_from(["dev", "prod", "other"]))
def test_any_files_merge_as_the_model_says(
    trees: list[tuple[dict[str, Any], dict[str, dict[str, Any]], bool]], environment: str
) -> None:
    texts = []
    for plain, on, cut in trees:
        lines = [f"{name} = {spelled(value)}" for name, value in plain.items()] + ["inherit = false"] * cut
        for name, table in on.items():
            lines += [f"[on.{name}]", *(f"{key} = {spelled(value)}" for key, value in table.items())]
        texts.append("\n".join(lines))

    assert values(*texts, environment=environment) == model(trees, environment)
    for key, node in merged(*texts, environment=environment).nodes.items():
        for origin in origins(node):
            line = origin.document.text.split("\n")[origin.line - 1]
            assert line.startswith(key)


def spelled_table(table: dict[str, Any]) -> str:
    return "\n".join(f"{name} = {spelled(value)}" for name, value in table.items())


@given(st.lists(TABLES, min_size=1, max_size=5), st.integers(0, 5))
def test_files_may_be_merged_in_any_grouping(tables: list[dict[str, Any]], at: int) -> None:
    """What the files above say is all that counts of them: they could as well be one file."""
    texts = [spelled_table(table) for table in tables]

    above = spelled_table(values(*texts[:at]))

    assert values(above, *texts[at:]) == values(*texts)


@given(st.lists(TREES, min_size=1, max_size=4), st.sampled_from(["dev", "prod"]))
def test_a_file_without_a_word_changes_nothing(trees: list[Any], environment: str) -> None:
    texts = []
    for plain, on, _ in trees:
        tables = [f"[on.{name}]\n{spelled_table(table)}" for name, table in on.items()]
        texts.append("\n".join([spelled_table(plain), *tables]))

    whole = values(*texts, environment=environment)

    for place in range(len(texts) + 1):
        assert values(*texts[:place], "", *texts[place:], environment=environment) == whole
