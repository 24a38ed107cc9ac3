"""The input of a job to keyword arguments: compiled once per function, one pydantic validation per call.

The rules, with examples, are in docs/binding.md.
"""

from __future__ import annotations

import difflib
import json
import types
import typing
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import CoreSchema, SchemaError, from_json
from typing_extensions import NotRequired, TypedDict, is_typeddict

from flashfw.errors import FlashfwError
from flashfw.worker.encode import EncodeError, dumps
from flashfw.worker.files import File
from flashfw.worker.signature import EMPTY, Input, Signature, SignatureError, is_a, unwrap

Errors = list[dict[str, Any]]

MAX_ERRORS = 100
"""A list of a million wrong items is not answered with a million errors."""


class ValidationFailed(FlashfwError):
    """The caller's input is not what the function takes; `errors` have `loc`, `msg` and `type` each.

    In HTTP the answer is 422; `errors = {ValidationFailed: function}` in a middleware.py gives another.
    """

    def __init__(self, errors: Errors) -> None:
        self.errors = errors
        super().__init__("; ".join(f"{_dotted(error['loc'])}: {error['msg']}" for error in errors[:5]))


class Fields:
    """Named inputs as one pydantic validator of an object: the part that jobs and HTTP share.

    Inputs that have a default and were not sent stay out of the result, so that the function's own
    defaults apply, unvalidated, as in any call.

    Raises:
        SignatureError: an annotation that pydantic cannot read.
    """

    def __init__(self, signature: Signature, inputs: Iterable[Input], *, extra: bool) -> None:
        self.inputs = tuple(inputs)
        self._names = [spec.name for spec in self.inputs]
        self._takes_extra = extra
        self._injected = frozenset(injection.name for injection in signature.injections) if extra else frozenset()
        self._extra: TypeAdapter[dict[str, Any]] | None = None
        if extra and signature.extra is not EMPTY:
            self._extra = adapter(signature, types.GenericAlias(dict, (str, signature.extra)), "**")
        self.adapter = self._compile(signature, "allow" if extra else "forbid")

    def _compile(self, signature: Signature, extra: typing.Literal["allow", "forbid"]) -> TypeAdapter[Any]:
        hints: dict[str, Any] = {}
        for spec in self.inputs:
            hint = Any if spec.annotation is EMPTY else _with_one_file(spec.annotation)
            hints[spec.name] = hint if spec.default is EMPTY else NotRequired[hint]
        shape = TypedDict("Input", hints)  # type: ignore[misc]
        try:
            return adapter(signature, Annotated[shape, _Extra(extra)], "input")
        except SignatureError:
            for spec in self.inputs:  # one by one, for a message that names the parameter
                adapter(signature, Any if spec.annotation is EMPTY else spec.annotation, spec.name)
            raise

    def validate_json(self, raw: bytes, *, job_id: str = "") -> dict[str, Any]:
        """The arguments in a JSON object, which may refer to the files of that job.

        Raises:
            ValidationFailed: an input is missing, unknown or of another type.
        """
        try:
            return self._with_extra(self.adapter.validate_json(raw, context={"job": job_id}))
        except ValidationError as error:
            raise self._failed(error) from None

    def validate(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments in Python values, which are text where they come from a URL or a form.

        Raises:
            ValidationFailed: an input is missing, unknown or of another type.
        """
        try:
            return self._with_extra(self.adapter.validate_python(values))
        except ValidationError as error:
            raise self._failed(error) from None

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the object, with the defaults of the function in it."""
        schema = schema_of(self.adapter, "validation")
        if schema and self._extra is None:
            schema["additionalProperties"] = self._takes_extra
        properties = schema.get("properties", {})
        for spec in self.inputs:
            if spec.name in properties:
                properties[spec.name].update(_default(spec))
        return schema

    def _failed(self, error: ValidationError) -> ValidationFailed:
        errors = errors_of(error)
        for entry in errors:
            if entry["type"] == "extra_forbidden" and len(entry["loc"]) == 1:
                entry["msg"] = self._unknown(str(entry["loc"][0]))
        return ValidationFailed(errors)

    def _unknown(self, key: str) -> str:
        if close := difflib.get_close_matches(key, self._names, 1):
            return f"unknown input '{key:.80}'; did you mean '{close[0]}'?"
        return f"unknown input '{key:.80}'; known: {', '.join(self._names) or 'none'}"

    def _with_extra(self, values: dict[str, Any]) -> dict[str, Any]:
        """`**kw` takes any name but those of what is injected: no caller puts a value in a fixture's place."""
        if taken := self._injected & values.keys():
            errors = [{"loc": [key], "msg": f"unknown input '{key}'", "type": "extra_forbidden"} for key in taken]
            raise ValidationFailed(errors)
        if self._extra is not None:
            others = {key: value for key, value in values.items() if key not in self._names}
            values.update(self._extra.validate_python(others))
        return values


@dataclass(frozen=True, slots=True)
class _Extra:
    """What an object does with unknown keys. As pydantic's config it would reach into nested types as well."""

    behavior: typing.Literal["allow", "forbid"]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        shape = typing.cast(dict[str, Any], handler.resolve_ref_schema(schema))
        shape["extra_behavior"] = self.behavior
        return schema


class JobBinder:
    """Binds the input of one job function; made once per worker, used for each call.

    With `whole` the only parameter takes the whole input, whatever its type.

    Raises:
        SignatureError: a type that JSON cannot carry, or a parameter that only an HTTP call has.
    """

    def __init__(self, signature: Signature, *, whole: bool = False) -> None:
        for injection in signature.injections:
            if injection.source in ("request", "websocket"):
                what = f"'{injection.name}' wants the {injection.source} of an HTTP call, which a job does not have"
                raise signature.error(what, "name the function after an HTTP verb (`def post(...)`)")
        inputs = signature.inputs
        lone = inputs[0] if len(inputs) == 1 and not signature.takes_extra else None
        self._lone = lone if lone is not None and (whole or _is_event(lone) or _takes_whole(lone)) else None
        self._signature = signature
        if self._lone is None:
            _ = self._fields  # now, so that what it takes is refused before a call
        self._whole: TypeAdapter[Any] | None = None
        if self._lone is not None and not _is_event(self._lone):
            hint = Any if self._lone.annotation is EMPTY else self._lone.annotation
            self._whole = adapter(signature, hint, self._lone.name)

    @cached_property
    def _fields(self) -> Fields:
        """Inputs by name; a lone one that takes the whole seldom comes so, and its worker is ready earlier without."""
        return Fields(self._signature, self._signature.inputs, extra=self._signature.takes_extra)

    def bind(self, raw: bytes, *, job_id: str = "") -> dict[str, Any]:
        """Keyword arguments for the function's inputs; what is injected is not among them.

        Raises:
            ValidationFailed: the input is not JSON, or not what the function takes.
        """
        nothing = _is_nothing(raw)
        if self._lone is None:
            return self._fields.validate_json(b"{}" if nothing or raw.strip() == b"null" else raw, job_id=job_id)
        if self._whole is None:
            return {self._lone.name: {"id": job_id, "input": {} if nothing else _parse(raw)}}
        return self._bind_whole(self._lone, self._whole, b"" if nothing else raw, job_id)

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the input, `$defs` inside; `{}` where anything goes."""
        if self._lone is None:
            return self._fields.schema()
        return {} if self._whole is None else schema_of(self._whole, "validation")

    def _bind_whole(self, lone: Input, whole: TypeAdapter[Any], raw: bytes, job_id: str) -> dict[str, Any]:
        if not raw and lone.default is not EMPTY:
            return {}
        if lone.name != "input" and _only_key_is(lone.name, raw):
            return self._fields.validate_json(raw, job_id=job_id)
        return {lone.name: validate_json(whole, raw or b"{}", job_id=job_id)}


def adapter(signature: Signature, annotation: Any, name: str) -> TypeAdapter[Any]:
    """A validator of the annotation.

    Raises:
        SignatureError: pydantic has no schema for it.
    """
    try:
        return TypeAdapter(annotation)
    except (PydanticUserError, SchemaError, TypeError, NameError) as error:
        reason = str(error).splitlines()[0]
        what = f"'{name}' cannot be an input, its type has no JSON form: {reason}"
        hint = "annotate it with plain types, models or dataclasses, or inject it: a fixture of its name in fixtures.py"
        raise signature.error(what, hint) from error


def validate_json(whole: TypeAdapter[Any], raw: bytes, *, job_id: str = "") -> Any:
    """The JSON value as the adapter's type, in pydantic's lax mode; it may refer to the files of that job.

    Raises:
        ValidationFailed: it is not JSON or not of that type.
    """
    try:
        return whole.validate_json(raw, context={"job": job_id})
    except ValidationError as error:
        raise ValidationFailed(errors_of(error)) from None


def errors_of(error: ValidationError) -> Errors:
    """The first errors in the form of frames, docs and HTTP answers; what was sent is not repeated in them."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_ERRORS]
    return [{"loc": list(entry["loc"]), "msg": entry["msg"], "type": entry["type"]} for entry in found]


def schema_of(whole: TypeAdapter[Any], mode: typing.Literal["validation", "serialization"]) -> dict[str, Any]:
    """The JSON Schema of a type, `$defs` inside; `{}`, which allows anything, for a type that has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a default that is no JSON is left out, which is enough
        try:
            schema = whole.json_schema(mode=mode)
        except PydanticUserError:
            return {}
    if schema.get("title") == "Input":
        del schema["title"]
    return schema


def is_object(annotation: Any) -> bool:
    """Whether values of the type are JSON objects: models, dataclasses, TypedDicts, dicts, unions of these."""
    inner = unwrap(annotation)
    if typing.get_origin(inner) in (typing.Union, types.UnionType):
        return all(is_object(member) for member in typing.get_args(inner) if member is not type(None))
    bare = typing.get_origin(inner) or inner
    return is_a(inner, (BaseModel, Mapping)) or is_typeddict(bare) or (isinstance(bare, type) and is_dataclass(bare))


def _with_one_file(annotation: Any) -> Any:
    """A list of files takes one as well: a form with one file part does not say that there could be more."""
    inner = unwrap(annotation)
    if not any(is_a(item, File) for item in typing.get_args(inner)) or not is_a(inner, Collection):
        return annotation
    return Annotated[annotation, BeforeValidator(lambda value: [value] if isinstance(value, (dict, str)) else value)]


def _is_event(spec: Input) -> bool:
    return spec.annotation is EMPTY and spec.name in ("job", "event")


def _takes_whole(spec: Input) -> bool:
    return spec.name == "input" or is_object(spec.annotation)


def _is_nothing(raw: bytes) -> bool:
    """No input: nothing at all, `{}`, or the `{"__empty": true}` that Runpod's clients send for it."""
    if raw in (b"", b"{}"):
        return True
    if len(raw) > 64 or (b'"' in raw and b"__empty" not in raw and b"\\" not in raw):
        return False  # text, or an object with a key of another name
    try:
        value = from_json(raw)
    except ValueError:
        return not raw.strip()
    return isinstance(value, dict) and (not value or (len(value) == 1 and value.get("__empty") is True))


def _only_key_is(name: str, raw: bytes) -> bool:
    if name.encode() not in raw and b"\\u" not in raw:
        return False
    value = _parse(raw)
    return isinstance(value, dict) and value.keys() == {name}


def _parse(raw: bytes) -> Any:
    try:
        return from_json(raw)
    except ValueError as error:
        raise ValidationFailed([{"loc": [], "msg": f"Invalid JSON: {error}", "type": "json_invalid"}]) from None


def _default(spec: Input) -> dict[str, Any]:
    if spec.default is EMPTY:
        return {}
    try:
        return {"default": json.loads(dumps(spec.default))}
    except EncodeError:
        return {}


def _dotted(loc: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in loc) or "input"
