"""The control API behind Jupyter's sign-in: one handler for all its routes.

Tornado's handlers are registered before the system runs, so `ApiHandler` takes everything below
`/angelos/api/` and looks the route up at each request. Routes, permission, limits and errors are
`adapters/net/http.py`'s, as on the hub's listener; signing in, XSRF and origin checks are
Jupyter's.

    401 nobody is signed in     403 role or XSRF check      404 no such route
    405 no such method there    413 the body is too large   503 the system is not running
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from tornado.web import HTTPError

from angelos.adapters.net.http import ProblemHandler, RouteHandler, RouteTable
from angelos.core.errors import Forbidden, Unauthenticated
from angelos.core.permissions import Principal
from angelos.core.routes import PREFIX
from jupyter_ext.auth.identity import principal_of
from jupyter_ext.binding import Binding

JUPYTER_PARAMETERS = frozenset({"token", "_xsrf", "no_track_activity"})
"""Query parameters that Jupyter reads itself; no route knows them."""


class JupyterProblemHandler(ProblemHandler, JupyterHandler):
    """A handler of Jupyter's that answers errors with problem documents (RFC 9457)."""

    @property
    def binding(self) -> Binding:
        """The running system."""
        return self.settings["angelos_binding"]

    @property
    def content_security_policy(self) -> str:
        """Let no answer load anything."""
        return f"{super().content_security_policy}; default-src 'none'"

    def signed_in(self) -> Principal | None:
        """Return the caller, once Jupyter has established who it is."""
        return principal_of(self.current_user) if self.current_user is not None else None

    def own_query(self) -> Mapping[str, list[bytes]]:
        """Return the parameters in the query that are not Jupyter's."""
        arguments = self.request.query_arguments
        return {k: v for k, v in arguments.items() if k not in JUPYTER_PARAMETERS}


class ApiHandler(RouteHandler, JupyterProblemHandler):  # pyright: ignore[reportIncompatibleMethodOverride] - Jupyter's `prepare` has an option
    """Every route of the running system."""

    def initialize(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Start with an empty body; the routes are looked up when a request comes."""
        self.body = bytearray()

    async def sign_in(self) -> Principal | None:
        """Return the caller; refuse strangers, except where anyone may."""
        await self._authenticate()
        self.binding.require()
        self.routes = self.table
        if self.current_user is None and not self.routes.allows_anyone(self.route_path):
            raise Unauthenticated(hint="Send a token: Authorization: token ...")
        return self.signed_in()

    async def _authenticate(self) -> None:
        """Have Jupyter establish the caller; XSRF checks are for those signed in by a cookie."""
        try:
            await JupyterHandler.prepare(self, _redirect_to_login=False)
            if self.current_user is not None and self.request.method in {"GET", "HEAD"}:
                self.check_xsrf_cookie()
        except HTTPError as error:
            if self.current_user is None and error.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                return
            if error.status_code == HTTPStatus.NOT_FOUND:  # Jupyter's answer to a foreign origin
                raise Forbidden("A page of another origin may not use your cookie.") from error
            raise

    @property
    def table(self) -> RouteTable:
        """Where the route is looked up."""
        return self.binding.routes

    @property
    def route_path(self) -> str:
        """The path of this request without Jupyter's base URL."""
        return PREFIX + self.request.path.partition(PREFIX)[2]

    @property
    def query_arguments(self) -> Mapping[str, list[bytes]]:
        """The parameters in the query that are not Jupyter's."""
        return self.own_query()

    # Jupyter refuses strangers before `prepare` unless the method itself says otherwise.
    get = head = post = put = patch = delete = options = allow_unauthenticated(  # pyright: ignore[reportAssignmentType]
        RouteHandler.carry_out
    )


class RootHandler(ApiHandler):
    """What monitoring reads, beside the API."""

    @property
    def table(self) -> RouteTable:
        """Where the route is looked up."""
        return self.binding.at_root

    @property
    def route_path(self) -> str:
        """The path of this request without Jupyter's base URL."""
        return "/" + self.request.path.rpartition("/")[2]


class HealthHandler(JupyterProblemHandler):
    """Answers as long as the process lives, whatever else does not run."""

    @allow_unauthenticated
    def get(self, *_: str) -> None:
        """Say so."""
        self.set_header("Content-Type", "application/json")
        self.finish('{"status":"ok"}')
