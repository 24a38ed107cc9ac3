"""An HTTP request to keyword arguments, by a plan that was made once from the function's signature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import HTTPConnection, Request, cookie_parser

from flashfw.errors import FlashfwError
from flashfw.worker.bind import Errors, Fields, ValidationFailed, adapter, errors_of, validate_json
from flashfw.worker.http_files import from_body, from_upload
from flashfw.worker.http_frames import Headers, RequestHead, pairs_of
from flashfw.worker.http_plan import Parameter, Plan, plan, takes_path
from flashfw.worker.signature import EMPTY, Signature

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")

Values = Mapping[str, list[Any]]
"""What one part of a request holds: all values of each name."""


class PathMismatch(ValidationFailed):
    """A path parameter does not parse, so that nothing is at this URL."""


class UnsupportedMedia(FlashfwError):
    """The body's content type is none that the function reads."""


class HttpBinder:
    """Binds the inputs of one HTTP function; made once per worker, used for each request.

    Raises:
        SignatureError: parameters that exclude each other, or a type that no request can carry.
    """

    def __init__(self, signature: Signature, method: str) -> None:
        self.plan: Plan = plan(signature, method)
        specs = [parameter.spec for parameter in self.plan.parameters]
        self.fields = Fields(signature, specs, extra=self.plan.extra == "query")
        self.body = Fields(signature, self.plan.body, extra=self.plan.extra == "body")
        self.whole: TypeAdapter[Any] | None = None
        if self.plan.kind in ("whole", "raw"):
            (spec,) = self.plan.body
            self.whole = adapter(signature, Any if spec.annotation is EMPTY else spec.annotation, spec.name)
        self._places = {parameter.spec.name: parameter for parameter in self.plan.parameters}
        self._forms = {parameter.spec.name: parameter for parameter in self.plan.form}
        self._files = [spec for spec in self.plan.body if takes_path(spec)]
        lone = [parameter for parameter in self.plan.form if takes_path(parameter.spec) and not parameter.many]
        self._lone_file = lone[0] if len(lone) == 1 == len(self._files) else None
        self._wanted = {parameter.place for parameter in self.plan.parameters}
        if self.plan.extra == "query":
            self._wanted.add("query")

    async def bind(self, connection: HTTPConnection) -> dict[str, Any]:
        """Keyword arguments for the inputs and path parameters.

        Raises:
            PathMismatch: a path parameter does not parse.
            UnsupportedMedia: the body is of another content type.
            ValidationFailed: anything else that does not fit; all of it.
        """
        errors: Errors = []
        arguments: dict[str, Any] = {}
        scope = connection.scope
        try:
            path = scope.get("path_params", {})
            arguments = self._bind_parameters(path, scope["query_string"], lambda: scope["headers"])
        except PathMismatch:
            raise
        except ValidationFailed as error:
            errors += error.errors
        if isinstance(connection, Request) and self.plan.kind != "none":
            try:
                arguments.update(await self._bind_body(connection))
            except ValidationFailed as error:
                errors += error.errors
        if errors:
            raise ValidationFailed(errors)
        return arguments

    def bind_whole(self, head: RequestHead, body: bytes) -> dict[str, Any] | None:
        """The same for a request that is there as a whole; None for one that has to be read by Starlette: a form.

        Raises:
            PathMismatch, UnsupportedMedia, ValidationFailed: as in `bind`.
        """
        kind, media = self.plan.kind, ""
        if kind not in ("none", "raw"):
            media = _media(head.header(b"content-type"))
            if self._lone_file is not None or (media in FORMS and kind in ("form", "fields")):
                return None
        if not self._wanted:
            return {} if kind == "none" else self._bind_read(body, media)
        errors: Errors = []
        arguments: dict[str, Any] = {}
        try:
            arguments = self._bind_parameters(head.params, head.query, lambda: pairs_of(head.headers))
        except PathMismatch:
            raise
        except ValidationFailed as error:
            errors += error.errors
        if kind != "none":
            try:
                arguments.update(self._bind_read(body, media))
            except ValidationFailed as error:
                errors += error.errors
        if errors:
            raise ValidationFailed(errors)
        return arguments

    def _bind_parameters(self, path: Mapping[str, Any], query: bytes, headers: Callable[[], Headers]) -> dict[str, Any]:
        if not self._wanted:
            return {}
        sources = self._sources(query, headers)
        values: dict[str, Any] = {}
        for parameter in self.plan.parameters:
            if parameter.place != "path":
                _take(parameter, sources[parameter.place], values)
            elif parameter.key in path:
                values[parameter.key] = path[parameter.key]
        if self.plan.extra == "query":
            _take_rest(self.plan.parameters, sources["query"], values)
        try:
            return self.fields.validate(values)
        except ValidationFailed as error:
            errors = _located(error.errors, self._places, "query")
            kind = PathMismatch if any(entry["loc"][0] == "path" for entry in errors) else ValidationFailed
            raise kind(errors) from None

    def _sources(self, query: bytes, headers: Callable[[], Headers]) -> dict[str, Values]:
        wanted = self._wanted
        sources: dict[str, Values] = {}
        if "query" in wanted:
            sources["query"] = _grouped(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {}
        if "header" in wanted or "cookie" in wanted:
            sent = _grouped((k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in headers())
            sources["header"] = sent
            sources["cookie"] = _grouped(cookie_parser("; ".join(sent.get("cookie", ()))).items())
        return sources

    async def _bind_body(self, request: Request) -> dict[str, Any]:
        kind = self.plan.kind
        content_type = request.headers.get("content-type", "")
        media = _media(content_type)
        if kind in ("form", "fields") and media in FORMS and not (self._lone_file and media == FORMS[0]):
            return await self._bind_form(request)
        if self._lone_file is not None and media not in FORMS[1:]:
            return await self._bind_file(request, self._lone_file, content_type)
        return self._bind_read(await request.body(), media)

    def _bind_read(self, raw: bytes, media: str) -> dict[str, Any]:
        kind = self.plan.kind
        if kind == "raw":
            return self._bind_raw(raw)
        is_json = media in ("", "application/json") or (media.startswith("application/") and media.endswith("+json"))
        if raw and (kind == "form" or not is_json):
            raise UnsupportedMedia(_refusal(media, self.plan))
        return self._bind_json(raw)

    def _bind_json(self, raw: bytes) -> dict[str, Any]:
        try:
            if self.whole is None:
                return self.body.validate_json(raw or b"{}")
            (spec,) = self.plan.body
            if raw:
                return {spec.name: validate_json(self.whole, raw)}
        except ValidationFailed as error:
            raise ValidationFailed(_located(error.errors, {}, "body")) from None
        if spec.default is EMPTY:
            raise ValidationFailed([{"loc": ["body"], "msg": "Field required", "type": "missing"}])
        return {}

    def _bind_raw(self, raw: bytes) -> dict[str, Any]:
        assert self.whole is not None
        (spec,) = self.plan.body
        if not raw and spec.default is not EMPTY:
            return {}
        try:
            return {spec.name: self.whole.validate_python(raw)}
        except ValidationError as error:
            raise ValidationFailed(_located(errors_of(error), {}, "body")) from None

    async def _bind_file(self, request: Request, lone: Parameter, content_type: str) -> dict[str, Any]:
        """The raw body is the one file that the function takes; what a form would hold beside it is in the query."""
        media = "" if content_type == FORMS[0] else content_type  # curl says so of anything
        values = {lone.spec.name: await from_body(request.stream(), request.scope, content_type=media)}
        query = _grouped(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True))
        for parameter in self.plan.form:
            if parameter is not lone:
                _take(parameter, query, values)
        try:
            return self.body.validate(values)
        except ValidationFailed as error:
            raise ValidationFailed(_located(error.errors, {}, "query")) from None

    async def _bind_form(self, request: Request) -> dict[str, Any]:
        try:
            form = await request.form()
        except (MultiPartException, HTTPException, ValueError) as error:  # the parser's own are ValueErrors
            message = error.detail if isinstance(error, HTTPException) else str(getattr(error, "message", error))
            raise ValidationFailed([{"loc": ["body"], "msg": message, "type": "form_invalid"}]) from None
        sent = _grouped(pair for pair in form.multi_items() if not _is_unchosen(pair[1]))
        values: dict[str, Any] = {}
        for parameter in self.plan.form:
            # Browsers send the fields that nobody filled in as empty text.
            if sent.get(parameter.key) == [""] and parameter.spec.default is not EMPTY:
                continue
            _take(parameter, sent, values)
        if not any(parameter.lists is not None for parameter in self.plan.form):
            _take_rest(self.plan.form, sent, values)
        for spec in self._files:
            values.update(await _with_paths(spec.name, values, request))
        try:
            return self.body.validate(values)
        except ValidationFailed as error:
            raise ValidationFailed(_located(error.errors, self._forms, "body")) from None


@lru_cache(64)
def _media(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


async def _with_paths(name: str, values: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """The uploads of one parameter as files with a path."""
    sent = values.get(name)
    if isinstance(sent, UploadFile):
        return {name: await from_upload(sent, request.scope)}
    if not isinstance(sent, list):
        return {}
    return {name: [await from_upload(one, request.scope) if isinstance(one, UploadFile) else one for one in sent]}


def _is_unchosen(value: Any) -> bool:
    """Whether this is what browsers send for a file that nobody chose."""
    return isinstance(value, UploadFile) and not value.filename and not value.size


def _grouped(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def _take(parameter: Parameter, source: Values, values: dict[str, Any]) -> None:
    if parameter.lists is not None:
        if source or parameter.spec.default is EMPTY:
            lists = parameter.lists
            values[parameter.spec.name] = {key: sent if key in lists else sent[-1] for key, sent in source.items()}
        return
    if sent := source.get(parameter.key):
        values[parameter.spec.name] = sent if parameter.many else sent[-1]


def _take_rest(parameters: Iterable[Parameter], source: Values, values: dict[str, Any]) -> None:
    known = {parameter.key for parameter in parameters}
    for key, sent in source.items():
        if key not in known:
            values.setdefault(key, sent[-1])


def _located(errors: Errors, parameters: Mapping[str, Parameter], fallback: str) -> Errors:
    """The errors with the part of the request before the name that the caller used there."""
    return [{**entry, "loc": _loc(entry["loc"], parameters, fallback)} for entry in errors]


def _loc(loc: list[Any], parameters: Mapping[str, Parameter], fallback: str) -> list[Any]:
    parameter = parameters.get(loc[0]) if loc else None
    if parameter is None:
        return [fallback, *loc]
    place = "body" if parameter.place == "form" else parameter.place
    return [place, *loc[1:]] if parameter.lists is not None else [place, parameter.key, *loc[1:]]


def _refusal(media: str, plan: Plan) -> str:
    known = {"form": FORMS, "fields": ("application/json", *FORMS)}.get(plan.kind, ("application/json",))
    return f"content type {media or 'none'!r} is not supported; send {' or '.join(known)}"
