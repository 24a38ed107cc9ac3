"""A function to its Description: JSON Schemas for the docs and for early refusals. Builds no fixture, calls nothing."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import AsyncIterable, Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError
from starlette.responses import Response

from flashfw import manifest
from flashfw.worker.batch_input import binder_of, item_type
from flashfw.worker.bind import schema_of
from flashfw.worker.frames import Description
from flashfw.worker.http_bind import FORMS, HttpBinder
from flashfw.worker.http_plan import Parameter
from flashfw.worker.signature import EMPTY, Signature, is_a

JSON = "application/json"
BINARY = "application/octet-stream"


def describe(function: manifest.Function, signature: Signature | None) -> Description:
    """What is known of a function; an application, which answers for itself, has no signature.

    `input` is the schema of the body (absent where there is none), `output` that of the result or, for a
    generator, of one item.

    Raises:
        SignatureError: the function's parameters cannot be filled.
    """
    if signature is None:
        return Description(doc="", stream=False, is_async=True, parameters=[])
    found = Description(
        doc=_doc(signature),
        stream=signature.yields,
        is_async=signature.is_async,
        output=_output(signature, function.batch),
    )
    if function.kind == "job":
        found["input"] = binder_of(function, signature).schema()
        found["parameters"] = []
        found["media"] = JSON
        return found
    binder = HttpBinder(signature, function.method)
    found["parameters"] = [item for parameter in binder.plan.parameters for item in _parameters(parameter, binder)]
    if binder.plan.kind != "none":
        found["input"] = _body(binder)
        found["media"] = _media(binder)
    return found


def _doc(signature: Signature) -> str:
    """The first paragraph of the docstring, as one line."""
    text = inspect.cleandoc(getattr(signature.function, "__doc__", None) or "")  # its own, nothing inherited
    return " ".join(text.partition("\n\n")[0].split())


def _output(signature: Signature, batch: manifest.Batch | None = None) -> Any:
    annotation = signature.return_annotation
    if batch is not None:
        annotation = _without_errors(item_type(annotation))
    if signature.yields and is_a(annotation, (Iterable, AsyncIterable)):
        annotation = (*typing.get_args(annotation), EMPTY)[0]
    if annotation is EMPTY or is_a(annotation, Response):
        return {}
    try:
        return schema_of(TypeAdapter(annotation), "serialization")
    except (PydanticUserError, SchemaError, TypeError, NameError):
        return {}


def _without_errors(annotation: Any) -> Any:
    """`list[Vector | Exception]` says that a result may be an exception, which the caller does not get as output."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation
    results = [one for one in typing.get_args(annotation) if not is_a(one, BaseException)]
    return typing.Union[tuple(results)] if results else EMPTY  # noqa: UP007


def _body(binder: HttpBinder) -> Any:
    if binder.plan.kind == "raw":
        return {"type": "string", "format": "binary"}
    if binder.whole is not None:
        return schema_of(binder.whole, "validation")
    schema = binder.body.schema()
    if len(binder.plan.form) == 1 and binder.plan.form[0].lists is not None:
        definitions = schema.get("$defs", {})
        model = _resolved(schema["properties"][binder.plan.form[0].spec.name], definitions)
        return {**model, "$defs": definitions} if definitions else model
    return schema


def _media(binder: HttpBinder) -> str:
    kind = binder.plan.kind
    if kind == "raw":
        return BINARY
    if kind != "form":
        return JSON
    has_file = '"binary"' in json.dumps(binder.body.schema())
    return FORMS[1] if has_file else FORMS[0]


def _parameters(parameter: Parameter, binder: HttpBinder) -> list[dict[str, Any]]:
    """OpenAPI parameter objects: one, or one for each field of a model that takes a whole place."""
    schema = binder.fields.schema()
    own = schema.get("properties", {}).get(parameter.spec.name, {})
    definitions = schema.get("$defs", {})
    if parameter.lists is None:
        required = parameter.place == "path" or parameter.spec.default is EMPTY
        return [_parameter(parameter.key, parameter.place, own, required=required, definitions=definitions)]
    model = _resolved(own, definitions)
    needed = model.get("required", ()) if parameter.spec.default is EMPTY else ()
    return [
        _parameter(name, parameter.place, field, required=name in needed, definitions=definitions)
        for name, field in model.get("properties", {}).items()
    ]


def _parameter(name: str, place: str, schema: Any, *, required: bool, definitions: Any) -> dict[str, Any]:
    schema = {key: value for key, value in schema.items() if key != "title"}
    found: dict[str, Any] = {"name": name, "in": place, "required": required}
    if description := schema.pop("description", ""):
        found["description"] = description
    if definitions and "$ref" in str(schema):
        schema["$defs"] = definitions
    return {**found, "schema": schema}


def _resolved(schema: Any, definitions: Any) -> Any:
    reference = schema.get("$ref", "")
    return definitions.get(reference.rpartition("/")[2], {}) if reference else schema
