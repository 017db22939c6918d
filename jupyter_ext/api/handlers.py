"""The control API behind Jupyter's sign-in: one handler for all its routes.

Tornado's handlers are registered before the system runs, so `ApiHandler` takes everything below
`/angelos/api/` and looks the route up at each request. Parsing, permission and errors are the
code that the hub's listener uses too (`adapters/net/http.py`); signing in, XSRF and origin checks
are Jupyter's.

    401 nobody is signed in     403 role or XSRF check      404 no such route
    405 no such method there    413 the body is too large   503 the system is not running
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from tornado.web import HTTPError, stream_request_body

from angelos.adapters.net.http import (
    HEADERS,
    Answer,
    answer,
    authorize,
    compile_path,
    new_trace,
    problem,
    send,
)
from angelos.core.errors import (
    AngelError,
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
from angelos.core.routes import PREFIX, Route
from jupyter_ext.auth.identity import principal_of
from jupyter_ext.binding import Binding

NOBODY = Principal(id=PrincipalId("person/nobody"), role=Role.viewer)
"""Whoever asks for what anyone may; such routes look at nothing of the caller."""
JUPYTERS_OWN = frozenset({"token", "_xsrf", "no_track_activity"})
"""Query parameters that are Jupyter's and no route's."""
_BY_STATUS: dict[int, type[AngelError]] = {
    401: Unauthenticated, 403: Forbidden, 404: NotFound, 405: MethodNotAllowed, 413: TooLarge,
    503: Unavailable,
}  # fmt: skip


class Match(NamedTuple):
    """The route of a request and what its path names."""

    route: Route
    params: Mapping[str, str]


def find_route(routes: Sequence[Route], method: str, path: str) -> Match:
    """Return the route of a method and a percent-encoded path; raise `NotFound` or 405.

    A path without parameters goes before one with.
    """
    others: set[str] = set()
    for route in sorted(routes, key=lambda route: route.path.count("{")):
        found = re.fullmatch(compile_path(route), path)
        if found is None:
            continue
        if route.method == method:
            return Match(route, {name: unquote(text) for name, text in found.groupdict().items()})
        others.add(route.method)
    if others:
        raise MethodNotAllowed(hint=f"It knows {', '.join(sorted(others))}.")
    raise NotFound(
        f"There is no {path[:200]} here.",
        hint=f"What there is, is described at {PREFIX}/openapi.json.",
    )


def as_ours(error: BaseException | None, status: int) -> BaseException:
    """Return what Jupyter or Tornado raised as an error of ours."""
    if isinstance(error, HTTPError):
        return _BY_STATUS.get(error.status_code, InvalidInput)(error.log_message)
    return error or _BY_STATUS.get(status, InvalidInput)()


class ProblemHandler(JupyterHandler):
    """A handler of Jupyter's that answers with problem documents (RFC 9457)."""

    @property
    def binding(self) -> Binding:
        """Where the system is found."""
        return self.settings["angelos_binding"]

    @property
    def trace(self) -> str:
        """The id under which the log tells of this request."""
        if not hasattr(self, "_trace"):
            self._trace = new_trace()
        return self._trace

    @property
    def content_security_policy(self) -> str:
        """Nothing that we answer may load anything."""
        return f"{super().content_security_policy}; default-src 'none'"

    def set_default_headers(self) -> None:
        """Let nothing be cached or guessed."""
        super().set_default_headers()
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def reply(self, result: Answer) -> None:
        """Finish with an answer."""
        self.begin(result)
        self.finish(result.body)

    def begin(self, result: Answer) -> None:
        """Set everything of an answer but its body."""
        self.set_status(result.status)
        self.set_header("Content-Type", result.media_type)
        self.set_header("X-Trace-Id", self.trace)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Tell of the error that ended the request."""
        error = as_ours(kwargs.get("exc_info", (None, None))[1], status_code)
        where = f"{self.request.method} {self.request.path}"
        self.reply(problem(error, self.trace, where))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Leave logging to `problem`, which knows the trace id."""

    def principal(self) -> Principal | None:
        """Return who is signed in."""
        return principal_of(self.current_user) if self.current_user is not None else None


@stream_request_body
class ApiHandler(ProblemHandler):
    """Every route of the running system; who asks is settled before the body is read."""

    SUPPORTED_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

    def initialize(self) -> None:
        """Begin with an empty body."""
        self._match: Match | None = None
        self._body = bytearray()

    async def prepare(self, *, _redirect_to_login: bool = False) -> None:
        """Refuse early: nobody, XSRF, no such route, not permitted, announced as too large."""
        try:
            await self._sign_in()
            self.binding.require()
            routes = self.binding.routes
            path = PREFIX + self.request.path.partition(PREFIX)[2]
            if self.current_user is None and not _any_open(routes, path):
                raise Unauthenticated(hint="Send a token: Authorization: token ...")
            self._match = find_route(routes, self.request.method or "", path)
            authorize(self._match.route, self._caller(self._match.route))
            self._check_length(self._match.route)
        except (AngelError, HTTPError) as error:
            self._give_up(error)

    async def _sign_in(self) -> None:
        """Find out who asks; XSRF checks are for those whom a cookie signed in."""
        try:
            await super().prepare(_redirect_to_login=False)
            if self.current_user is not None and self.request.method in {"GET", "HEAD"}:
                self.check_xsrf_cookie()
        except HTTPError as error:
            if self.current_user is None and error.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                return
            if error.status_code == HTTPStatus.NOT_FOUND:  # Jupyter's word for a foreign origin
                raise Forbidden("A page of another origin may not use your cookie.") from error
            raise

    def data_received(self, chunk: bytes) -> None:
        """Keep the body up to its limit and not a byte more."""
        if self._finished or self._match is None:
            return
        route = self._match.route
        if len(self._body) + len(chunk) > route.max_body:
            self._body.clear()
            self._give_up(_too_large(route))
        else:
            self._body += chunk

    @allow_unauthenticated
    async def get(self, _path: str) -> None:
        """Carry the request out."""
        if self._finished or self._match is None:
            return
        route, params = self._match
        query = {k: v for k, v in self.request.query_arguments.items() if k not in JUPYTERS_OWN}
        origin = f"{self.request.protocol}://{self.request.host}"
        who, body = self._caller(route), bytes(self._body)
        result = await answer(route, who, params, query, body, origin, self.trace)
        self.begin(result)
        await send(self, result, f"{self.request.method} {self.request.path}")

    head = post = put = patch = delete = options = get  # pyright: ignore[reportAssignmentType]

    def _caller(self, route: Route) -> Principal | None:
        found = self.principal()
        return NOBODY if found is None and route.permission is Permission.anyone else found

    def _check_length(self, route: Route) -> None:
        length = self.request.headers.get("Content-Length", "0")
        if length.isdigit() and int(length) > route.max_body:
            raise _too_large(route)

    def _give_up(self, error: Exception) -> None:
        headers = self.request.headers
        if headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers:
            self.set_header("Connection", "close")  # the rest of the body is not read
        self.write_error(500, exc_info=(type(error), error, None))


def _any_open(routes: Sequence[Route], path: str) -> bool:
    """Tell whether strangers may use some method of a path; of others they learn nothing."""
    return any(
        route.permission is Permission.anyone and re.fullmatch(compile_path(route), path)
        for route in routes
    )


def _too_large(route: Route) -> TooLarge:
    return TooLarge(f"The body is larger than {route.max_body} bytes.")
