"""Routes on Tornado: parsing, permission, limits and problems, the same wherever they are served.

`mount` serves routes on a plain Tornado application (the hub's listeners):

    app = Application(mount(routes, principal_of), default_handler_class=NoSuchRoute,
                      default_handler_args={"principal_of": principal_of})

`jupyter_ext` serves them behind Jupyter's sign-in with the same handler (`RouteHandler`); only
`sign_in` is its own. A request is refused as early as possible: before its body is read when
nobody is signed in, the route is missing, the role lacks the permission or the body is announced
as too large; while it is read when it grows too large.

Errors are `application/problem+json` (RFC 9457) with a stable `code` and a trace id; an unexpected
error is logged with that id and answered as `internal`, without details.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
import unicodedata
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler, stream_request_body

from angelos.core.errors import (
    AngelError,
    Busy,
    Forbidden,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Permission, Principal, Role
from angelos.core.policy.access import require
from angelos.core.refusals import ANONYMOUS as UNKNOWN
from angelos.core.refusals import RefusedCall
from angelos.core.routes import PREFIX, Call, Route, parse_body, parse_query, render
from angelos.core.tracing import parse_traceparent, span, traced

log = logging.getLogger(__name__)
PROBLEM = "application/problem+json"
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PrincipalOf = Callable[[HTTPServerRequest], Awaitable[Principal | None]]
"""Returns the caller, None for nobody; raises `Unauthenticated` for a caller that is refused."""
ANONYMOUS = Principal(id=PrincipalId("system/anonymous"), role=Role.node)
_BY_STATUS: dict[int, type[AngelError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    413: TooLarge,
    503: Unavailable,
}
"""Errors that Tornado and Jupyter raise by status, as ours."""
_REFUSED = {401: Unauthenticated.code, 403: Forbidden.code}
_PARAMETER = re.compile(r"\{([a-z_]+)\}")


class Answer(NamedTuple):
    """A response: the body, or its first piece and the generator of the rest."""

    status: int
    media_type: str
    body: bytes
    more: AsyncGenerator[bytes, None] | None = None
    error: BaseException | None = None


class Match(NamedTuple):
    """The route of a request and the parameters in its path."""

    route: Route
    params: Mapping[str, str]


class RouteTable:
    """Finds the route of a request.

    >>> async def ping(call): ...
    >>> table = RouteTable([Route("GET", "/tasks/{id}", Permission.tasks_read, ping)])
    >>> table.find("GET", "/angelos/api/tasks/task-1").params
    {'id': 'task-1'}
    """

    def __init__(self, routes: Sequence[Route], prefix: str = PREFIX) -> None:
        by_path: dict[str, dict[str, Route]] = {}
        # A path without parameters goes before one with: /things/special before /things/{thing}.
        for route in sorted(routes, key=lambda route: (route.path.count("{"), route.path)):
            methods = by_path.setdefault(compile_path(route, prefix), {})
            if route.method in methods:
                msg = f"{route.method} {route.path} is defined twice"
                raise ValueError(msg)
            methods[route.method] = route
        self._paths = [(re.compile(path), methods) for path, methods in by_path.items()]

    def find(self, method: str, path: str) -> Match:
        """Return the route of a method and a percent-encoded path.

        Raises:
            NotFound: no route has this path.
            MethodNotAllowed: one has, with other methods (`extra["allow"]`).
            InvalidInput: a parameter in the path is not UTF-8.
        """
        for pattern, methods in self._paths:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if method in methods:
                return Match(methods[method], _decoded(match.groupdict()))
            allow = ", ".join(sorted(methods))
            raise MethodNotAllowed(hint=f"It knows {allow}.", allow=allow)
        raise NotFound(
            f"There is no {path[:200]} here.",
            hint=f"What there is, is described at {PREFIX}/openapi.json.",
        )

    def allows_anyone(self, path: str) -> bool:
        """Return whether some method of a path needs no sign-in."""
        return any(
            route.permission is Permission.anyone
            for pattern, methods in self._paths
            if pattern.fullmatch(path)
            for route in methods.values()
        )


def _decoded(params: Mapping[str, str]) -> dict[str, str]:
    try:
        return {name: unquote(text, errors="strict") for name, text in params.items()}
    except UnicodeDecodeError as error:
        raise InvalidInput("A parameter in the path is not UTF-8.") from error


def new_trace() -> str:
    """Return a fresh trace id: 32 hex digits, as in W3C trace context."""
    return secrets.token_hex(16)


def compile_path(route: Route, prefix: str = PREFIX) -> str:
    """Return the regular expression of a route's whole path, parameters as named groups."""
    parts = _PARAMETER.split(route.path)
    pattern = "".join(
        f"(?P<{part}>[^/]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)
    )
    return f"{prefix}{pattern}"


def problem(error: BaseException, trace: str, where: str = "") -> Answer:
    """Return the problem document of `error`; details of an unexpected one stay in the log."""
    if not isinstance(error, AngelError):
        log.error("%s failed (trace %s)", where or "A request", trace, exc_info=error)
        error = AngelError(
            "The server failed on this request.",
            hint=f"The server's log has more under trace {trace}.",
        )
    body = {**error.problem(), "trace": trace}
    return Answer(error.status, PROBLEM, msgspec.json.encode(body, enc_hook=str), error=error)


def permit(permission: Permission, principal: Principal | None) -> Principal:
    """Return the principal if it holds `permission`, `ANONYMOUS` for nobody where anyone may.

    Raises:
        Unauthenticated: nobody is signed in.
        Forbidden: the policy does not allow it to role and token; the error names the rule.
    """
    if principal is None:
        if permission is not Permission.anyone:
            raise Unauthenticated
        principal = ANONYMOUS
    require(principal, permission)
    return principal


async def answer(
    route: Route,
    principal: Principal | None,
    params: Mapping[str, str],
    query: Mapping[str, list[bytes] | list[str]],
    body: bytes,
    peer_url: str = "",
    trace: str = "",
) -> Answer:
    """Carry out one request: permission, parameters, body, handler, answer.

    Every error becomes a problem document; only cancellation passes through. `principal` is the
    caller as the server established it, None for nobody.
    """
    trace = trace or new_trace()
    try:
        call = Call(
            principal=permit(route.permission, principal),
            params={name: _plain(name, value) for name, value in params.items()},
            query={k: _plain(k, v) for k, v in parse_query(route, query).items()},
            body=parse_body(route, body),
            trace=trace,
            peer_url=peer_url,
        )
        result = await route.handler(call)
        if isinstance(result, AsyncGenerator):
            # The first piece is awaited here, so that an error before it is still a problem.
            return Answer(route.status, route.media_type, await anext(result, b""), more=result)
        return Answer(route.status, route.media_type, render(route, result))
    except Exception as error:  # noqa: BLE001 - the border: everything becomes a problem
        return problem(error, trace, f"{route.method} {route.path}")


def refusal_of(handler: RequestHandler, door: str) -> RefusedCall | None:
    """Return the refusal that a finished request was, None for any other; never raise.

    It is named by its route or handler, so that a caller cannot make up acts without end.
    """
    if handler.get_status() not in _REFUSED:
        return None
    error = getattr(handler, "refused_by", None)
    match = getattr(handler, "match", None)
    path = match.route.path if match is not None else type(handler).__name__
    principal = getattr(handler, "principal", None)
    return RefusedCall(
        principal=principal.id if isinstance(principal, Principal) else UNKNOWN,
        door=door,
        act=f"{(handler.request.method or '')[:8]} {path}",
        code=_REFUSED[handler.get_status()],
        reason=error.detail if isinstance(error, AngelError) else "",
        trace=getattr(handler, "_trace", ""),
    )


async def send(handler: RequestHandler, result: Answer, where: str) -> None:
    """Write an answer's body and finish; a piece is made only when the last one was sent.

    An answer that fails half way breaks off the connection, so that the reader does not take the
    first half for all of it.
    """
    if result.more is None:
        handler.finish(result.body)
        return
    try:
        async with aclosing(result.more) as pieces:
            handler.write(result.body)
            await handler.flush()
            async for piece in pieces:
                handler.write(piece)
                await handler.flush()
        handler.finish()
    except StreamClosedError:  # the reader went away
        _break_off(handler)
    except Exception:
        log.exception("%s failed on its way", where)
        _break_off(handler)


def _break_off(handler: RequestHandler) -> None:
    handler._auto_finish = False  # noqa: SLF001 - no last chunk: it says that all is there
    connection = handler.request.connection
    if isinstance(connection, HTTP1Connection):
        connection.close()


def _plain(name: str, value: str) -> str:
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise InvalidInput(f"The parameter {name!r} holds a control character.")
    return value


class ProblemHandler(RequestHandler):
    """A handler that answers errors with problem documents."""

    _trace = ""
    _parent = ""
    refused_by: BaseException | None = None

    @property
    def trace(self) -> str:
        """The id of this request in the log: its caller's, if it says one (W3C Trace Context)."""
        if not self._trace:
            said = parse_traceparent(self.request.headers.get("traceparent", ""))
            self._trace, self._parent = said.trace or new_trace(), said.span
        return self._trace

    @property
    def operation(self) -> str:
        """The method and path of this request, for the log."""
        return f"{self.request.method} {self.request.path}"

    def set_default_headers(self) -> None:
        """Disclose nothing about the server; let nothing be cached or guessed."""
        super().set_default_headers()
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def start(self, result: Answer) -> None:
        """Set status and headers of an answer."""
        self.refused_by = result.error
        self.set_status(result.status)
        self.set_header("Content-Type", result.media_type)
        self.set_header("X-Trace-Id", self.trace)

    def give_up(self, error: BaseException) -> None:
        """Finish with an error; the connection ends if the request's body is not read."""
        headers = self.request.headers
        if headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers:
            # The rest of the body would be taken for the next request on this connection.
            self.set_header("Connection", "close")
        self._finish_with(error)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an error that Tornado or Jupyter raised."""
        error = kwargs.get("exc_info", (None, None))[1]
        self._finish_with(error or _BY_STATUS.get(status_code, InvalidInput)())

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Do nothing: `problem` logs, with the trace id."""

    def _finish_with(self, error: BaseException) -> None:
        if isinstance(error, HTTPError):
            error = _BY_STATUS.get(error.status_code, InvalidInput)(error.log_message or None)
        if isinstance(error, MethodNotAllowed) and "allow" in error.extra:
            self.set_header("Allow", error.extra["allow"])
        if isinstance(error, Busy) and (pause := error.extra.get("retry_after_s")):
            self.set_header("Retry-After", str(math.ceil(pause)))  # RFC 9110, section 10.2.3
        result = problem(error, self.trace, self.operation)
        self.start(result)
        self.finish(result.body)


@stream_request_body
class RouteHandler(ProblemHandler):
    """Every route of a table, from the early refusals to the answer."""

    SUPPORTED_METHODS = METHODS  # pyright: ignore[reportAssignmentType] - Tornado's is narrower
    routes: RouteTable
    principal_of: PrincipalOf
    principal: Principal | None = None
    match: Match | None = None

    def initialize(self, routes: RouteTable, principal_of: PrincipalOf) -> None:
        """Serve `routes` to the callers that `principal_of` finds."""
        self.routes = routes
        self.principal_of = principal_of
        self.body = bytearray()

    async def sign_in(self) -> Principal | None:
        """Return the caller, None for nobody; raise an `AngelError` to refuse the request."""
        return await self.principal_of(self.request)

    @property
    def table(self) -> RouteTable:
        """Where the route is looked up."""
        return self.routes

    @property
    def route_path(self) -> str:
        """The path of this request as routes have it."""
        return self.request.path

    @property
    def query_arguments(self) -> Mapping[str, list[bytes]]:
        """The parameters in the query, without those of the body."""
        return self.request.query_arguments

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an error that Tornado or Jupyter raised, with the methods that there are."""
        if status_code == MethodNotAllowed.status:
            try:
                self.table.find(self.request.method or "", self.route_path)
            except MethodNotAllowed as error:
                self._finish_with(error)
                return
        super().write_error(status_code, **kwargs)

    async def prepare(self) -> None:
        """Refuse early: nobody, no such route, not permitted, announced as too large."""
        try:
            # First of all, so that a stranger does not learn which routes there are.
            self.principal = await self.sign_in()
            self.match = self.routes.find(self.request.method or "", self.route_path)
            permit(self.match.route.permission, self.principal)
            self._check_length(self.match.route)
        except Exception as error:  # noqa: BLE001 - the border: everything becomes a problem
            self.give_up(error)

    def _check_length(self, route: Route) -> None:
        length = self.request.headers.get("Content-Length", "0")
        if length.isdigit() and int(length) > route.max_body:
            raise _too_large(route)
        # Chunked bodies are counted as they come; Tornado must not end them with a 400 before us.
        connection = self.request.connection
        if isinstance(connection, HTTP1Connection):
            connection.set_max_body_size(2 * route.max_body + 65_536)

    def data_received(self, chunk: bytes) -> None:
        """Keep the body up to its limit and not a byte more."""
        if self._finished or self.match is None:
            return
        route = self.match.route
        if len(self.body) + len(chunk) > route.max_body:
            self.body.clear()
            self.give_up(_too_large(route))
        else:
            self.body += chunk

    async def carry_out(self, *_: str) -> None:
        """Answer the request."""
        if self._finished or self.match is None:
            return
        route, params = self.match
        origin = f"{self.request.protocol}://{self.request.host}"
        body = bytes(self.body)
        with traced(self.trace, self._parent), span(f"{route.method} {route.path}"):
            result = await answer(
                route, self.principal, params, self.query_arguments, body, origin, self.trace
            )
            reads = route.method == "GET" and result.status < 400  # noqa: PLR2004 - RFC 9110
            level = logging.DEBUG if reads else logging.INFO
            log.log(level, "%s %s: %d", route.method, route.path, result.status)
        self.start(result)
        await send(self, result, self.operation)

    get = head = post = put = patch = delete = options = carry_out  # pyright: ignore[reportAssignmentType]


class NoSuchRoute(RouteHandler):
    """The answer for every path outside the control API."""

    def initialize(self, principal_of: PrincipalOf) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Have no routes."""
        super().initialize(RouteTable([]), principal_of)


def mount(routes: Sequence[Route], principal_of: PrincipalOf) -> list[tuple[str, type, dict]]:
    """Return Tornado's rule for `routes`.

    Raises:
        ValueError: an operation is defined twice.
    """
    table = RouteTable(routes)
    return [
        (rf"{PREFIX}(?:/.*)?", RouteHandler, {"routes": table, "principal_of": principal_of}),
    ]


def mount_at_root(
    routes: Sequence[Route], principal_of: PrincipalOf
) -> list[tuple[str, type, dict]]:
    """Return Tornado's rules for routes without parameters that lie at the root."""
    table = RouteTable(routes, prefix="")
    arguments = {"routes": table, "principal_of": principal_of}
    return [(re.escape(route.path), RouteHandler, arguments) for route in routes]


def _too_large(route: Route) -> TooLarge:
    return TooLarge(f"The body is larger than {route.max_body} bytes.")
