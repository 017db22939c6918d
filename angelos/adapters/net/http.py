"""Routes on Tornado: parsing, permission, limits and problems, the same wherever they are served.

`answer` turns one request into status, media type and bytes and never raises; Jupyter's handlers
use it as it is. `mount` serves routes on a plain Tornado application (the hub's listeners):

    app = Application(mount(routes, principal_of), default_handler_class=NoSuchRoute,
                      default_handler_args={"principal_of": principal_of})

Errors are `application/problem+json` (RFC 9457) with a stable `code` and a trace id; what was not
expected is logged with that id and answered as `internal`, without details.
"""

from __future__ import annotations

import logging
import re
import secrets
import unicodedata
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

import msgspec
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler, stream_request_body

from angelos.core.errors import (
    AngelError,
    Forbidden,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unauthenticated,
)
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Permission, Principal, Role
from angelos.core.routes import PREFIX, Call, Route, parse_body, parse_query, render

log = logging.getLogger(__name__)
PROBLEM = "application/problem+json"
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PrincipalOf = Callable[[HTTPServerRequest], Awaitable[Principal | None]]
"""Who is asking, None for nobody; raises `Unauthenticated` for somebody who is refused."""
ANONYMOUS = Principal(id=PrincipalId("system/anonymous"), role=Role.node)
_TORNADO: dict[int, type[AngelError]] = {403: Forbidden, 405: MethodNotAllowed}
_PARAMETER = re.compile(r"\{([a-z_]+)\}")


class Answer(NamedTuple):
    """What goes back: the body, or its first piece and the generator of the others."""

    status: int
    media_type: str
    body: bytes
    more: AsyncGenerator[bytes, None] | None = None


def new_trace() -> str:
    """Return a fresh trace id: 32 hex digits, as in W3C trace context."""
    return secrets.token_hex(16)


def compile_path(route: Route) -> str:
    """Return the regular expression of a route's whole path, parameters as named groups."""
    parts = _PARAMETER.split(route.path)
    pattern = "".join(
        f"(?P<{part}>[^/]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)
    )
    return f"{PREFIX}{pattern}"


def problem(error: BaseException, trace: str, where: str = "") -> Answer:
    """Return the answer that tells of `error`; details of an unexpected one stay in the log."""
    if not isinstance(error, AngelError):
        log.error("%s failed (trace %s)", where or "A request", trace, exc_info=error)
        error = AngelError(
            "Something went wrong inside; nothing more is known to the caller.",
            hint=f"The server's log has more under trace {trace}.",
        )
    body = {**error.problem(), "trace": trace}
    return Answer(error.status, PROBLEM, msgspec.json.encode(body, enc_hook=str))


def authorize(route: Route, principal: Principal | None) -> Principal:
    """Return the principal if it may use the route; raise `Unauthenticated` or `Forbidden`."""
    return permit(route.permission, principal)


def permit(permission: Permission, principal: Principal | None) -> Principal:
    """Return the principal if it holds `permission`; what anyone may, `ANONYMOUS` may too."""
    if principal is None:
        if permission is Permission.anyone:
            return ANONYMOUS
        raise Unauthenticated
    if not principal.may(permission):
        raise Forbidden(
            f"{principal.id} has the role {principal.role}, which lacks {permission}.",
            permission=str(permission),
        )
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
    """Carry one request out: permission, parameters, body, handler, answer; never raises.

    Cancellation alone passes through. `principal` is who the server found the caller to be,
    None for nobody.
    """
    trace = trace or new_trace()
    try:
        who = authorize(route, principal)
        call = Call(
            principal=who,
            params={name: _plain(name, value) for name, value in params.items()},
            query={k: _plain(k, v) for k, v in parse_query(route, query).items()},
            body=parse_body(route, body),
            trace=trace,
            peer_url=peer_url,
        )
        result = await route.handler(call)
        if isinstance(result, AsyncGenerator):
            # The first piece is awaited here: what goes wrong before it is still a problem.
            return Answer(route.status, route.media_type, await anext(result, b""), result)
        return Answer(route.status, route.media_type, render(route, result))
    except Exception as error:  # noqa: BLE001 - the border: everything becomes a problem
        return problem(error, trace, f"{route.method} {route.path}")


async def send(handler: RequestHandler, result: Answer, where: str) -> None:
    """Write an answer's body and finish; the next piece is made when the last one has gone out.

    An answer that fails on its way breaks off, so that nobody takes its beginning for all of it.
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


def query_of(request: HTTPServerRequest) -> dict[str, list[bytes]]:
    """Return a request's query arguments, without those of its body."""
    return dict(request.query_arguments)


@stream_request_body
class RouteHandler(RequestHandler):
    """All methods of one path. Who asks, and whether he may, is settled before the body is read."""

    SUPPORTED_METHODS = METHODS  # pyright: ignore[reportAssignmentType] - Tornado's is narrower

    def initialize(self, table: Mapping[str, Route], principal_of: PrincipalOf) -> None:
        """Take the routes of this path by method."""
        self.table = table
        self.principal_of = principal_of
        self.trace = new_trace()
        self.body = bytearray()
        self.principal: Principal | None = None

    def set_default_headers(self) -> None:
        """Say nothing about the server and let nothing be cached or guessed."""
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    async def prepare(self) -> None:
        """Refuse early: unknown method, nobody, not permitted, announced as too large."""
        try:
            self.route = self._route()
            self.principal = await self.principal_of(self.request)
            authorize(self.route, self.principal)
            self._check_length()
        except Exception as error:  # noqa: BLE001 - the border
            self._give_up(error)

    def _route(self) -> Route:
        route = self.table.get(self.request.method or "")
        if route is None:
            self.set_header("Allow", ", ".join(sorted(self.table)))
            raise MethodNotAllowed(hint=f"It knows {', '.join(sorted(self.table))}.")
        return route

    def _check_length(self) -> None:
        length = self.request.headers.get("Content-Length", "0")
        if length.isdigit() and int(length) > self.route.max_body:
            raise _too_large(self.route)
        # Chunked bodies are counted as they come; Tornado must not end them with a 400 before us.
        self.request.connection.set_max_body_size(2 * self.route.max_body + 65_536)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]

    def data_received(self, chunk: bytes) -> None:
        """Keep the body up to its limit and not a byte more."""
        if self._finished:
            return
        if len(self.body) + len(chunk) > self.route.max_body:
            self.body.clear()
            self._give_up(_too_large(self.route))
        else:
            self.body += chunk

    async def _answer(self, **params: str) -> None:
        if self._finished:
            return
        request = self.request
        result = await answer(
            self.route, self.principal, params, query_of(request), bytes(self.body),
            f"{request.protocol}://{request.host}", self.trace,
        )  # fmt: skip
        self._head(result)
        await send(self, result, f"{request.method} {request.path}")

    get = head = post = put = patch = delete = options = _answer  # pyright: ignore[reportAssignmentType]

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Tell of what Tornado itself refused."""
        info = kwargs.get("exc_info")
        error = info[1] if info else None
        if isinstance(error, HTTPError):
            kind = _TORNADO.get(error.status_code, InvalidInput)
            error = kind(error.log_message or None)
        where = f"{self.request.method} {self.request.path}"
        self._write(
            problem(error or InvalidInput(f"Refused with {status_code}."), self.trace, where)
        )

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Leave logging to `problem`, which knows the trace id."""

    def _give_up(self, error: Exception) -> None:
        # Whatever of the body is still to come is not read: the connection ends.
        headers = self.request.headers
        if headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers:
            self.set_header("Connection", "close")
        self._write(problem(error, self.trace, f"{self.request.method} {self.request.path}"))

    def _write(self, result: Answer) -> None:
        self._head(result)
        self.finish(result.body)

    def _head(self, result: Answer) -> None:
        self.set_status(result.status)
        self.set_header("Content-Type", result.media_type)
        self.set_header("X-Trace-Id", self.trace)


class NoSuchRoute(RouteHandler):
    """What is not there, told as a problem; to strangers only that they are strangers."""

    def initialize(self, principal_of: PrincipalOf) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take who asks."""
        super().initialize({}, principal_of)

    async def prepare(self) -> None:
        """Answer at once."""
        try:
            await self.principal_of(self.request)
        except Exception as error:  # noqa: BLE001 - the border
            self._give_up(error)
        else:
            self._give_up(
                NotFound(
                    f"There is no {self.request.path[:200]} here.",
                    hint=f"What there is, is described at {PREFIX}/openapi.json.",
                )
            )


def mount(routes: Sequence[Route], principal_of: PrincipalOf) -> list[tuple[str, type, dict]]:
    """Return Tornado's rules for `routes`, paths without parameters first."""
    tables: dict[str, dict[str, Route]] = {}
    for route in routes:
        table = tables.setdefault(compile_path(route), {})
        if route.method in table:
            msg = f"{route.method} {route.path} stands twice among the routes"
            raise ValueError(msg)
        table[route.method] = route
    ordered = sorted(tables, key=lambda path: (path.count("(?P<"), path))
    return [
        (path, RouteHandler, {"table": tables[path], "principal_of": principal_of})
        for path in ordered
    ]


def _too_large(route: Route) -> TooLarge:
    return TooLarge(f"The body is larger than {route.max_body} bytes.")
