"""What one caller of a batch handler sends: an item of its list, bound as the whole input of a job would be."""

from __future__ import annotations

import typing
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from flashfw import manifest
from flashfw.worker.bind import JobBinder
from flashfw.worker.signature import EMPTY, Signature, unwrap

_LISTS = (list, Sequence, Iterable, Collection)


def binder_of(function: manifest.Function, signature: Signature) -> JobBinder:
    """What binds the input of one job; with `batch` that of one item, so that each is refused by itself.

    Raises:
        SignatureError: a type that JSON cannot carry, what only an HTTP call has, or no handler of batches.
    """
    if function.batch is None:
        return JobBinder(signature)
    return JobBinder(_of_one(signature), whole=True)


def item_type(annotation: Any) -> Any:
    """The `T` of `list[T]`, `Any` for a list of anything, `EMPTY` for what is no list.

    >>> item_type(list[int]), item_type(dict)
    (<class 'int'>, <class 'inspect._empty'>)
    """
    inner = unwrap(annotation)
    if inner is EMPTY or inner is Any:
        return Any
    if (typing.get_origin(inner) or inner) not in _LISTS:
        return EMPTY
    return (*typing.get_args(inner), Any)[0]


def _of_one(signature: Signature) -> Signature:
    """The signature as one caller sees it: the list parameter takes one item."""
    if signature.is_generator or signature.yields:
        raise signature.error("'batch' and 'yield' do not go together", "return a list, one result for each item")
    if any(injection.source == "job" for injection in signature.injections):
        raise signature.error("'batch' and 'Job' do not go together: a batch is many jobs", "remove the parameter")
    if len(signature.inputs) != 1 or signature.takes_extra:
        names = [f"'{spec.name}'" for spec in signature.inputs] + ["'**kw'"] * signature.takes_extra
        what = f"'batch' needs one list parameter, and this takes {' and '.join(names) or 'none'}"
        raise signature.error(what, "write 'items: list[T]'; each caller sends one T")
    (spec,) = signature.inputs
    item = item_type(spec.annotation)
    if item is EMPTY:
        raise signature.error(
            f"'batch' hands over a list, and '{spec.name}' is none",
            f"write '{spec.name}: list[T]'; each caller sends T",
        )
    return replace(signature, inputs=(replace(spec, annotation=item, default=EMPTY),))
