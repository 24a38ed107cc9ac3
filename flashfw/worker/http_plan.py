"""Which part of an HTTP request each parameter of a function is read from: decided once, from the signature alone."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, InstanceOf, WithJsonSchema
from pydantic.fields import FieldInfo
from starlette.datastructures import UploadFile

from flashfw.worker.bind import is_object
from flashfw.worker.files import File
from flashfw.worker.markers import MARKERS, Body, Cookie, Form, Header, Query
from flashfw.worker.signature import EMPTY, Input, Signature, is_a, unwrap

WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

Place = Literal["path", "query", "header", "cookie", "form"]
BodyKind = Literal["none", "raw", "whole", "object", "fields", "form"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that is read by name from outside a JSON body.

    `key` is its name on the wire; `many` takes all values of that name, else the last counts. A model
    that takes a whole place has `lists`: the names of its fields that take all values.
    """

    spec: Input
    place: Place
    key: str
    many: bool
    lists: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the inputs of one function come from.

    `kind` says what the body is: `raw` bytes for one parameter, JSON that is one parameter (`whole`), a JSON
    object of parameters (`object`), the same or a form (`fields`), or a form only (`form`). `body` are
    the inputs for it. `extra` says where `**kw` is filled from.
    """

    parameters: tuple[Parameter, ...]
    kind: BodyKind
    body: tuple[Input, ...]
    form: tuple[Parameter, ...]
    extra: Literal["", "query", "body"]


def plan(signature: Signature, method: str) -> Plan:
    """The plan for a function that answers `method` (`GET`, `POST`, ..., `WEBSOCKET`).

    Raises:
        SignatureError: two parameters want the body in ways that exclude each other, or a GET wants one.
    """
    return _Planner(signature, method).plan()


class _Planner:
    def __init__(self, signature: Signature, method: str) -> None:
        self.signature = signature
        self.method = method
        self.parameters: list[Parameter] = []
        self.form: list[Input] = []
        self.json: list[Input] = []
        self.raw: list[Input] = []
        self.scalars: list[Input] = []

    def plan(self) -> Plan:
        for injection in self.signature.injections:
            if injection.source == "job":
                what = f"'{injection.name}' wants the Job, which an HTTP call does not have"
                raise self.signature.error(what, "take 'request: Request', or name the function 'handler'")
            if injection.source == "websocket" and self.method != "WEBSOCKET":
                raise self.signature.error(f"'{injection.name}' wants a WebSocket", "name the function 'websocket'")
            if injection.source == "path":
                spec = Input(injection.name, injection.annotation, EMPTY, None)
                self.parameters.append(Parameter(spec, "path", injection.name, False))
        for spec in self.signature.inputs:
            self._assign(spec)
        if self.form:
            self._lists_into_form()
        kind = self._kind()
        if kind not in ("fields", "form"):
            self.parameters += [_parameter(spec, "query", spec.name) for spec in self.scalars]
        self._check_groups()
        return self._made(kind)

    def _made(self, kind: BodyKind) -> Plan:
        in_form = {"form": [*self.form, *self.scalars], "fields": self.scalars}.get(kind, [])
        body = {"raw": self.raw, "whole": self.json, "object": self.json, "none": []}.get(kind, in_form)
        extra: Literal["", "query", "body"] = ""
        if self.signature.takes_extra:
            extra = "body" if kind in ("object", "fields", "form") else "query"
        return Plan(
            parameters=tuple(self.parameters),
            kind=kind,
            body=tuple(_readable(spec) for spec in body),
            form=tuple(_form_parameter(spec) for spec in in_form),
            extra=extra,
        )

    def _assign(self, spec: Input) -> None:
        marker = _marker(spec)
        if any(isinstance(item, FieldInfo) and item.alias for item in getattr(spec.annotation, "__metadata__", ())):
            what = f"'{spec.name}' has an alias of pydantic's, which only a field of a model can have"
            raise self.signature.error(what, f"write '{spec.name}: Annotated[TYPE, Query(NAME)]', or Header, Form")
        if marker is None:
            self._assign_by_type(spec)
        elif isinstance(marker, Form):
            self.form.append(spec)
        elif isinstance(marker, Body):
            (self.raw if _is_raw(spec) else self.json).append(spec)
        else:
            place, key = _wire(marker, spec)
            self.parameters.append(_parameter(spec, place, key))

    def _assign_by_type(self, spec: Input) -> None:
        has_body = self.method in WITH_BODY
        if not has_body and (is_object(spec.annotation) or _is_upload(spec)):
            what = f"'{spec.name}' needs a body, which {self.method} does not have"
            raise self.signature.error(what, "use 'def post', or mark it: Annotated[..., Query()] or Body()")
        if not has_body:
            self.scalars.append(spec)
        elif _is_upload(spec):
            self.form.append(spec)
        elif _is_raw(spec):
            self.raw.append(spec)
        elif is_object(spec.annotation) or _is_compound(spec.annotation):
            self.json.append(spec)
        else:
            self.scalars.append(spec)

    def _lists_into_form(self) -> None:
        """Beside files and form fields a list is a field that is sent several times."""
        for spec in [spec for spec in self.json if _marker(spec) is None and _is_many(spec.annotation)]:
            self.json.remove(spec)
            self.form.append(spec)

    def _kind(self) -> BodyKind:
        wants = [specs for specs in (self.form, self.json, self.raw) if specs]
        if len(wants) > 1 or len(self.raw) > 1:
            names = " and ".join(
                f"'{specs[0].name}'" for specs in (wants if len(wants) > 1 else [[s] for s in self.raw])
            )
            hint = "one body is a form, or JSON, or raw bytes; mark fields of a form with Annotated[..., Form()]"
            raise self.signature.error(f"{names} want the body in different ways", hint)
        if self.form:
            return "form"
        if self.raw:
            return "raw"
        if self.json:
            return "whole" if len(self.json) == 1 and not _embeds(self.json[0]) else "object"
        if self.method in WITH_BODY and (self.scalars or self.signature.takes_extra):
            return "fields"
        return "none"

    def _check_groups(self) -> None:
        """A model that is marked Query() takes the place's values by its own field names."""
        for parameter in self.parameters:
            if parameter.lists is None and is_object(parameter.spec.annotation):
                what = f"'{parameter.spec.name}' is no value that a {parameter.place} can hold"
                raise self.signature.error(what, "take plain values, or a model from Query() or Form()")


def _marker(spec: Input) -> Any:
    annotation = spec.annotation
    while annotation is not EMPTY:
        if typing.get_origin(annotation) is Annotated:
            for item in typing.get_args(annotation)[1:]:
                if isinstance(item, MARKERS):
                    return item
                if isinstance(item, type) and issubclass(item, MARKERS):
                    return item()
        inner = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        if typing.get_origin(annotation) not in (typing.Union, types.UnionType) or len(inner) != 1:
            return None
        annotation = inner[0]
    return None


def _wire(marker: Query | Header | Cookie, spec: Input) -> tuple[Place, str]:
    if isinstance(marker, Header):
        return "header", (marker.alias or spec.name.replace("_", "-")).lower()
    return ("query" if isinstance(marker, Query) else "cookie"), marker.alias or spec.name


def _parameter(spec: Input, place: Place, key: str) -> Parameter:
    lists = _list_fields(spec.annotation) if place in ("query", "form") else None
    return Parameter(spec, place, key, _is_many(spec.annotation), lists)


def _form_parameter(spec: Input) -> Parameter:
    marker = _marker(spec)
    return _parameter(spec, "form", (marker.alias if isinstance(marker, Form) else "") or spec.name)


def _embeds(spec: Input) -> bool:
    marker = _marker(spec)
    return isinstance(marker, Body) and marker.embed


def _is_raw(spec: Input) -> bool:
    return is_a(spec.annotation, bytes)


def _is_upload(spec: Input) -> bool:
    inner = unwrap(spec.annotation)
    items = typing.get_args(inner) if _is_many(inner) else (inner,)
    return any(is_a(item, (UploadFile, File)) for item in items)


def takes_path(spec: Input) -> bool:
    """Whether the input is a `flashfw.File`, or several."""
    inner = unwrap(spec.annotation)
    return any(is_a(item, File) for item in (typing.get_args(inner) if _is_many(inner) else (inner,)))


def _is_many(annotation: Any) -> bool:
    return is_a(annotation, (Sequence, AbstractSet)) and not is_a(annotation, (str, bytes, bytearray))


def _is_compound(annotation: Any) -> bool:
    inner = unwrap(annotation)
    if typing.get_origin(inner) in (typing.Union, types.UnionType):
        return any(_is_compound(member) for member in typing.get_args(inner))
    return is_object(inner) or _is_many(inner)


def _list_fields(annotation: Any) -> frozenset[str] | None:
    if not is_object(annotation):
        return None
    cls = unwrap(annotation)
    if isinstance(cls, type) and issubclass(cls, BaseModel):
        fields = cls.model_fields.items()
        return frozenset(field.alias or name for name, field in fields if _is_many(field.annotation))
    hints = typing.get_type_hints(cls) if isinstance(cls, type) else {}
    return frozenset(name for name, hint in hints.items() if _is_many(hint))


def _readable(spec: Input) -> Input:
    """The input with a type that pydantic knows: an uploaded file is checked by its class alone."""
    return Input(spec.name, _with_files(spec.annotation), spec.default, spec.kind) if _is_upload(spec) else spec


def _with_files(annotation: Any) -> Any:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        items = (_with_files(args[0]), *args[1:])
        return Annotated[items]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(_with_files(arg) for arg in args)]  # noqa: UP007 - built from a tuple
    if args and origin is not None:
        return types.GenericAlias(origin, tuple(_with_files(arg) for arg in args))
    if isinstance(annotation, type) and issubclass(annotation, UploadFile):
        return Annotated[InstanceOf[UploadFile], WithJsonSchema({"type": "string", "format": "binary"})]
    return annotation
