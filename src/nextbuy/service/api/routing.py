"""One kind of route for programs: strict about what comes in, light, and true to its description.

FastAPI reads a handler's signature and describes it; the request itself goes a shorter way than
FastAPI's own, which costs more than the answer of a small model: read the body, parse it strictly,
check it against the signature's model, call the handler, send its response.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, get_type_hints
from urllib.parse import parse_qsl, unquote_to_bytes

import orjson
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from nextbuy.errors import NextbuyError
from nextbuy.service.api import strict_json
from nextbuy.service.api.description import responses_of
from nextbuy.service.config import Limits
from nextbuy.service.guard.scopes import Rule
from nextbuy.service.problems import ProblemError, problem_of

_JSON: Final = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
_MOST_ERRORS: Final = 20
_MOST_PARAMETERS: Final = 100
_LARGE: Final = 2**16
"""Bytes of a body that would hold up other requests while it is checked."""


def json_response(value: Any, status: int = 200) -> Response:
    """Plain values and dataclasses as JSON; numbers have to be finite, as orjson makes null of
    others without a word."""
    return Response(
        orjson.dumps(value, option=_JSON), status_code=status, media_type="application/json"
    )


class StrictRoute(APIRoute):
    """A route with its rule, its strict way in, and all its answers described.

    A handler takes any of: `body`, one strict model; path and query parameters by name; headers;
    `request`. An `async` one runs in the event loop and must not block; others run in a thread.
    `usual` is given a small body first: it answers what it finds in order, by a shorter way, and
    gives None of all else.

    Attributes:
        rule: Who may call it, and how long it may take.
        on_error: Told of errors that were raised on purpose, before they become answers.
    """

    def __init__(
        self,
        rule: Rule,
        handler: Callable[..., Any],
        *,
        limits: Limits,
        summary: str,
        answers: Mapping[int, type[BaseModel] | dict[str, Any]],
        problems: Sequence[int] = (),
        links: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        usual: Callable[[bytes], Awaitable[Response] | None] | None = None,
    ) -> None:
        self.rule, self.limits, self._usual = rule, limits, usual
        self.on_error: Callable[[NextbuyError], None] = _ignore
        security: list[dict[str, list[str]]] = [] if rule.scope == "public" else [{"key": []}]
        super().__init__(
            rule.path,
            handler,
            methods=[rule.method],
            operation_id=handler.__name__,
            summary=summary,
            response_model=None,
            status_code=min(answers),
            responses=responses_of(rule, answers, problems, links),
            openapi_extra={"security": security, **(extra or {})},
        )
        self._body = _body_model(handler)
        self._is_coroutine = inspect.iscoroutinefunction(handler)
        self._fields = [
            *(_Field.of("path", field, handler) for field in self.dependant.path_params),
            *(_Field.of("query", field, handler) for field in self.dependant.query_params),
            *(_Field.of("header", field, handler) for field in self.dependant.header_params),
        ]
        self._wants_request = self.dependant.request_param_name
        self.app = self._answer

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As a route does, and `HEAD` as `GET`."""
        match, child = super().matches(scope)
        if match == Match.PARTIAL and scope["method"] == "HEAD" and self.rule.method == "GET":
            return Match.FULL, child
        return match, child

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that matched."""
        if scope["method"] == "HEAD" and self.rule.method == "GET":
            await self.app(scope, receive, send)
        else:
            await super().handle(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._respond(Request(scope, receive, send))
        except NextbuyError as error:
            self.on_error(error)
            told = problem_of(error)
            if told is None:
                raise
            response = told
            _let_go(error)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        arguments = self._parameters(request)
        if self._wants_request is not None:
            arguments[self._wants_request] = request
        if self._body is not None:
            raw = await self._read(request)
            is_large = len(raw) >= _LARGE
            if self._usual is not None and not is_large and (found := self._usual(raw)) is not None:
                return await found
            if is_large:
                arguments["body"] = await run_in_threadpool(self._parse, raw, self._body)
            else:
                arguments["body"] = self._parse(raw, self._body)
        if self._is_coroutine:
            response = await self.endpoint(**arguments)
        else:
            response = await run_in_threadpool(self.endpoint, **arguments)
        if not isinstance(response, Response):
            raise TypeError(f"{self.operation_id} gave {type(response).__name__}, no response")
        return response

    async def _read(self, request: Request) -> bytes:
        check_type(request, ("application/json",))
        return await read_body(request, self.limits.body_bytes)

    def _parse(self, raw: bytes, model: type[BaseModel]) -> BaseModel:
        limits = self.limits
        value = strict_json.parse(raw, most_depth=limits.json_depth, most_keys=limits.json_keys)
        try:
            return model.model_validate(value, context=limits)
        except ValidationError as error:
            raise refusal(("body",), error.errors(include_url=False)) from None

    def _parameters(self, request: Request) -> dict[str, Any]:
        scope = request.scope
        if scope["path_params"]:
            _check_path(scope)
        query = _query(scope["query_string"])
        found: dict[str, Any] = {}
        for field in self._fields:
            if field.place == "header":
                values = request.headers.getlist(field.alias)
                value = ", ".join(values) if values else None
            else:
                value = (scope["path_params"] if field.place == "path" else query).get(field.alias)
            found[field.name] = field.checked(value, self.limits)
        unknown = query.keys() - {field.alias for field in self._fields if field.place == "query"}
        if unknown:
            raise refusal(
                ("query",), [{"loc": (name,), "msg": "no such parameter"} for name in unknown]
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """A parameter of a handler that is not its body."""

    place: str
    name: str
    alias: str
    default: Any
    is_required: bool
    adapter: TypeAdapter[Any]

    @classmethod
    def of(cls, place: str, field: Any, handler: Callable[..., Any]) -> Self:
        """From what FastAPI found in the signature (a `ModelField`, which is not public)."""
        kind = get_type_hints(handler, include_extras=True)[field.name]
        is_required = field.field_info.is_required()
        return cls(
            place=place, name=field.name, alias=field.alias, is_required=is_required,
            default=None if is_required else field.get_default(), adapter=TypeAdapter(kind),
        )  # fmt: skip

    def checked(self, value: str | None, limits: Limits) -> Any:
        """The value that the handler gets.

        Raises:
            ProblemError: 422 if it is missing or not what it has to be.
        """
        if value is None:
            if self.is_required:
                raise self.refusal("it is missing")
            return self.default
        try:
            return self.adapter.validate_python(value, context=limits)
        except ValidationError as error:
            raise refusal((self.place, self.alias), error.errors(include_url=False)) from None

    def refusal(self, reason: str) -> ProblemError:
        """Why it is refused."""
        return refusal((self.place,), [{"loc": (self.alias,), "msg": reason}])


def _let_go(error: BaseException | None) -> None:
    """Take from an error, and from those behind it, the frames in which they were raised.

    Frames hold what was refused, a body perhaps, and one of them the error: together they would
    wait for the collector of cycles.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _ignore(_: NextbuyError) -> None:
    return


async def read_body(request: Request, most: int) -> bytes:
    """The whole body.

    Raises:
        ProblemError: 413 if it is longer than `most` bytes, 415 if it is compressed.
    """
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise ProblemError(413, f"A body has at most {most} bytes here.")
        chunks.append(chunk)
    return b"".join(chunks)


def check_type(request: Request, allowed: Sequence[str]) -> None:
    """Refuse bodies of other types, charsets and encodings.

    Raises:
        ProblemError: 415.
    """
    kinds = request.headers.getlist("content-type")
    kind, _, rest = (kinds[0] if len(kinds) == 1 else "").partition(";")
    if kind.strip().lower() not in allowed:
        raise ProblemError(415, f"Send the body as {' or '.join(allowed)}.")
    for parameter in filter(None, (part.strip().lower() for part in rest.split(";"))):
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8"):
            raise ProblemError(415, "Send the body in UTF-8.")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ProblemError(415, "Send the body without compression.")


def refusal(place: tuple[str, ...], errors: Sequence[Any]) -> ProblemError:
    """422 with the fields that are wrong, at most 20; values are not repeated."""
    shown = [
        {
            "field": ".".join(strict_json.shown(str(part)) for part in (*place, *error["loc"])),
            "message": str(error["msg"]),
        }
        for error in errors[:_MOST_ERRORS]
    ]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return ProblemError(422, f"{shown[0]['field']}: {shown[0]['message']}{more}.", errors=shown)


def first_error(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return str(refusal((), found))


def _query(raw: bytes) -> dict[str, str]:
    if not raw:
        return {}
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict",
            max_num_fields=_MOST_PARAMETERS,
        )  # fmt: skip
    except ValueError as error:
        raise ProblemError(422, "The query is not UTF-8, or has too many parameters.") from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ProblemError(422, "The query has a parameter twice.")
    return found


def _check_path(scope: Scope) -> None:
    raw = scope.get("raw_path")
    if raw and b"%" in raw:
        try:
            unquote_to_bytes(raw).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ProblemError(422, "The path is not UTF-8.") from error


def _body_model(handler: Callable[..., Any]) -> type[BaseModel] | None:
    model = get_type_hints(handler).get("body")
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None
