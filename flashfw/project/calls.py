"""What a configuration says of calls, against the parameters that the function takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from flashfw.errors import Problem
from flashfw.project.annotations import JOB, LISTS, PLAIN, type_name
from flashfw.project.cascade import Setting, Settings, find
from flashfw.project.fixtures import Fixtures
from flashfw.project.functions import FunctionTree
from flashfw.project.model import Parameter
from flashfw.project.values import did_you_mean, dotted


def of_function(function: FunctionTree, settings: Settings, fixtures: Fixtures) -> Iterator[Problem]:
    """What does not fit the parameters of a function, as far as the source tells."""
    inputs = fixtures.inputs(function)
    if function.handler.kind != "job" or inputs is None:
        return
    if "batch" in settings:
        for what, hint in _unfit(function, inputs, fixtures):
            yield settings["batch"].problem((), what, hint=hint)
    elif "schedule" in settings and not _takes_anything(inputs):
        for index, schedule in enumerate(settings["schedule"].value):
            yield from _scheduled(function, settings["schedule"], index, schedule.input, inputs)


def _unfit(function: FunctionTree, inputs: Sequence[Parameter], fixtures: Fixtures) -> Iterator[tuple[str, str]]:
    """Why a function cannot be handed many calls at once, with what to do."""
    place = f"{function.handler.file}:{function.line}"
    listed = [item for item in inputs if item.kind in ("positional", "keyword")]
    kind = type_name(listed[0].annotation) if listed else ""
    if len(inputs) != 1 or len(listed) != 1 or kind in PLAIN - LISTS:
        shown = {"args": "*", "kwargs": "**"}
        taken = " and ".join(f"'{shown.get(item.kind, '')}{item.name}'" for item in inputs) or "none"
        what = f"'batch' needs one list parameter, and '{function.id}' takes {taken} ({place})"
        yield what, "write `items: list[T]`; each caller sends one T"
    job = next((item.name for item in function.parameters or () if type_name(item.annotation) == JOB), None)
    if job is not None:
        what = f"'batch' hands many jobs over at once, and '{function.id}' takes one as '{job}' ({place})"
        yield what, "remove the parameter, or the key"
    elif spot := fixtures.per_job(function):
        there = f"{fixtures.files[spot.path].file}:{fixtures.definition(spot).line}"
        what = f"'batch' hands many jobs over at once, and '{function.id}' takes '{spot.name}', built for one ({there})"
        yield what, "make a fixture without `Job`"
    if function.yields:
        what = f"'batch' wants a list of results, and '{function.id}' yields ({place})"
        yield what, "return a list, one result for each item"


def _takes_anything(inputs: Sequence[Parameter]) -> bool:
    """Whether one parameter takes the whole input, or may."""
    if len(inputs) != 1:
        return False
    kind = type_name(inputs[0].annotation)
    if inputs[0].name == "input" or (inputs[0].name in ("job", "event") and not inputs[0].annotation):
        return True
    return bool(inputs[0].annotation) and kind not in PLAIN - {"dict", "Dict"}


def _scheduled(
    function: FunctionTree, setting: Setting, index: int, given: Any, inputs: Sequence[Parameter]
) -> Iterator[Problem]:
    where, place = find(setting.node, (index, "input")), f"{function.handler.file}:{function.line}"
    name = dotted(where.path)
    named = {item.name: item for item in inputs if item.kind in ("positional", "keyword")}
    if given is not None and not isinstance(given, dict):
        what = f"'{name}' must be a table of the parameters of '{function.id}' ({place})"
        yield setting.problem((index, "input"), what)
        return
    given = {} if given is None or given == {"__empty": True} else given
    for missing in (item.name for item in named.values() if not item.has_default and item.name not in given):
        what = f"'{name}' lacks '{missing}', which '{function.id}' requires ({place})"
        yield setting.problem((index, "input"), what)
    if any(item.kind == "kwargs" for item in inputs):
        return
    for extra in (key for key in given if key not in named):
        what = f"unknown key '{name}.{extra}': '{function.id}' has no such parameter ({place})"
        yield setting.problem((index, "input", extra), what, hint=did_you_mean(extra, named))
