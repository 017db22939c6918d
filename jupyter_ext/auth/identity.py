"""Signs people in: the owner by the server's token, everybody else by a token of their own.

    server's token or password  ->  person/owner, role admin
    a person's token            ->  person/<name> with the role that the admin gave
    a cookie of either          ->  the same, looked up again at every request: a person who is
                                    removed is signed out at once, open WebSockets included

While nobody can be looked up (the system is starting, PostgreSQL is away) people get 503 and keep
their cookie; the owner does not have to be looked up.

The extension installs it unless another identity provider is configured (JupyterHub's, say); a
user of that one is the owner, as under plain Jupyter.
"""

from __future__ import annotations

import hmac
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.auth.identity import PasswordIdentityProvider, User
from jupyter_server.auth.login import LoginFormHandler
from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler
from traitlets import default

from angelos.core.errors import AngelError
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Permission, Principal, Role
from jupyter_ext.auth.pages import without_token

if TYPE_CHECKING:
    from jupyter_server.base.handlers import AuthenticatedHandler, JupyterHandler

    from jupyter_ext.binding import Binding

OWNER = Principal(id=PrincipalId("person/owner"), role=Role.admin)
PEOPLE_CACHE_S = 1.0
"""How old the list of people may be against which cookies are checked, in seconds."""


@dataclass
class AngelUser(User):
    """A Jupyter user with their role in AngelOS."""

    role: str = ""

    @property
    def principal(self) -> Principal:
        """The caller of the control API."""
        return Principal(id=PrincipalId(f"person/{self.username}"), role=Role(self.role))


def principal_of(user: object) -> Principal:
    """Return the principal of a signed-in Jupyter user.

    A user of another identity provider is the owner: that provider has let them in.
    """
    return user.principal if isinstance(user, AngelUser) else OWNER


def user_of(principal: Principal) -> AngelUser:
    """Return the Jupyter user of a person."""
    name = principal.id.partition("/")[2]
    return AngelUser(
        username=name, name=name, display_name=name, initials=name[:2].upper(), role=principal.role
    )


def for_everybody(handler: AuthenticatedHandler) -> bool:
    """Return whether Jupyter marks a handler as one that strangers may use."""
    method = (handler.request.method or "").lower()
    return getattr(getattr(handler, method, None), "__allow_unauthenticated", False)


def refuse_unasked(handler: AuthenticatedHandler, user: object) -> None:
    """Raise 403 for a write by a handler that asks no authorizer, unless `user` may use Jupyter.

    Handlers that ask the authorizer have an `auth_resource`; those for everybody are marked.
    """
    method = handler.request.method or ""
    if user is None or method in {"GET", "HEAD", "OPTIONS"} or hasattr(handler, "auth_resource"):
        return
    if for_everybody(handler):
        return
    principal = principal_of(user)
    if not principal.may(Permission.jupyter_use):
        raise HTTPError(
            403, f"{principal.id} has the role {principal.role}, which lacks jupyter:use."
        )


def _entered(handler: AuthenticatedHandler, user: AngelUser, since: float) -> bool:
    """Record a WebSocket of `user`; return False if the user was removed after `since`."""
    binding: Binding | None = handler.settings.get("angelos_binding")
    if binding is None or not isinstance(handler, WebSocketHandler):
        return True
    return binding.presence.enter(user.principal.id, handler, since)


class AngelLoginHandler(LoginFormHandler):
    """Jupyter's login page, whose one field also accepts a person's token."""

    @allow_unauthenticated
    async def post(self) -> None:  # type: ignore[override]
        """Sign in by password, server token or a person's token."""
        provider = self.identity_provider
        if isinstance(provider, AngelIdentityProvider):
            token = self.get_argument("password", default="")
            try:
                self._person = await provider.person(self, token) if token else None
            except AngelError as error:
                self._away = error  # the owner can sign in all the same
        super().post()


class AngelIdentityProvider(PasswordIdentityProvider):
    """Jupyter's identity provider, with people and roles."""

    login_handler_class = AngelLoginHandler  # type: ignore[assignment]
    _people: dict[str, Role] | None = None
    _people_at = 0.0

    @default("updatable_fields")
    def _default_updatable_fields(self) -> list[str]:
        """Let people change their colour; the admin gives the names."""
        return ["color"]

    async def get_user(self, handler: AuthenticatedHandler) -> User | None:  # type: ignore[override]
        """Return the caller; raise 403 for a write that no authorizer will be asked about."""
        without_token(handler)
        since = time.monotonic()
        try:
            user = await self._get_user(handler)
        except AngelError as error:
            handler.current_user = user = None
            # A page for everybody is shown all the same; our own handlers answer with the reason.
            if not for_everybody(handler) or hasattr(handler, "binding"):
                raise _away(error) from error
        if isinstance(user, AngelUser) and not _entered(handler, user, since):
            user = None  # removed during the look-up
        handler.current_user = user  # the page of a refusal shows it
        refuse_unasked(handler, user)
        return user

    async def get_user_token(self, handler: AuthenticatedHandler) -> User | None:  # type: ignore[override]
        """Return the owner of a request's token, None if it has none or an unknown one."""
        token = self.get_token(handler)
        if not token:
            return None
        if self.token and hmac.compare_digest(token.encode(), self.token.encode()):
            return user_of(OWNER)
        return await self.person(handler, token)

    async def person(self, handler: AuthenticatedHandler, token: str) -> AngelUser | None:
        """Return the person with this token; raise `Unavailable` while there is no look-up."""
        binding: Binding | None = handler.settings.get("angelos_binding")
        if binding is None:
            return None
        principal = await binding.require().people.authenticate(token)
        return None if principal is None else user_of(principal)

    async def get_user_cookie(self, handler: AuthenticatedHandler) -> User | None:  # type: ignore[override]
        """Return the user of the login cookie, with their present role."""
        user = super().get_user_cookie(handler)
        if not isinstance(user, AngelUser):
            return None
        if user.role == OWNER.role:  # set by `user_from_cookie` for the owner alone
            return user
        role = (await self._roles(handler)).get(user.username)
        if role is None:
            return None
        user.role = role
        return user

    def user_to_cookie(self, user: User) -> str:
        """Store the name and the colour; the role is looked up when the cookie comes back."""
        kind = "owner" if principal_of(user) == OWNER else "person"
        return json.dumps({"username": user.username, "color": user.color, "kind": kind})

    def user_from_cookie(self, cookie_value: str) -> User | None:
        """Return the user, a person without a role; None for a cookie of another provider."""
        cookie: dict[str, Any] = json.loads(cookie_value)
        if cookie.get("kind") == "owner":
            user = user_of(OWNER)
        elif cookie.get("kind") == "person":
            name = str(cookie["username"])
            user = AngelUser(username=name, name=name, display_name=name, initials=name[:2].upper())
        else:
            return None
        user.color = cookie.get("color")
        return user

    def generate_anonymous_user(self, handler: AuthenticatedHandler) -> User:  # type: ignore[override]  # noqa: ARG002
        """Return the owner: whoever has the server's password, or anybody if it has none."""
        return user_of(OWNER)

    def process_login_form(self, handler: JupyterHandler) -> User | None:  # type: ignore[override]
        """Return the owner of the password or token in the login form."""
        user = getattr(handler, "_person", None) or super().process_login_form(handler)
        away: AngelError | None = getattr(handler, "_away", None)
        if user is None and away is not None:
            raise _away(away) from away
        return user

    async def _roles(self, handler: AuthenticatedHandler) -> dict[str, Role]:
        binding: Binding | None = handler.settings.get("angelos_binding")
        if binding is None:
            return {}
        now = time.monotonic()
        fresh = now - self._people_at <= PEOPLE_CACHE_S
        if self._people is None or not fresh or binding.presence.changed_at >= self._people_at:
            people = await binding.require().people.list()
            self._people = {person.id.partition("/")[2]: person.role for person in people}
            self._people_at = now
        return self._people


def _away(error: AngelError) -> HTTPError:
    return HTTPError(error.status, f"You cannot be looked up at the moment: {error}")
