"""Signs people in: the owner by the server's token, everybody else by a token of their own.

    server's token or password  ->  person/owner, role admin
    a person's token            ->  person/<name> with the role that the admin gave
    a token that they made      ->  the same with its scopes, until it expires or is revoked
    a cookie of any             ->  the same, looked up again at every request

A cookie holds the person's id, which is never used again, and their generation (`core.principals`):
removing, demoting, a new token and signing out end it and every copy, open WebSockets included.
The owner's also holds a fingerprint of the server's token, so it ends with that token.

While nobody can be looked up (the system is starting, PostgreSQL is away) people get 503 and keep
their cookie; so does the owner, unless no system has run since the server started.

The extension installs it unless another identity provider is configured (JupyterHub's, say); whom
that one signs in is a viewer.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import msgspec
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.auth.identity import PasswordIdentityProvider, User
from jupyter_server.auth.login import LoginFormHandler
from jupyter_server.auth.logout import LogoutHandler
from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler
from traitlets import default

from angelos.core.errors import AngelError, Unauthenticated, Unavailable
from angelos.core.ids import PrincipalId, is_principal
from angelos.core.permissions import OWNER, Permission, Principal, Role
from angelos.core.policy.access import require
from angelos.core.principals import Generation
from jupyter_ext.auth.pages import without_token

if TYPE_CHECKING:
    from jupyter_server.base.handlers import AuthenticatedHandler, JupyterHandler

    from angelos.core.api import PersonView
    from jupyter_ext.binding import Binding

PEOPLE_CACHE_S = 1.0
"""How old the list of people may be against which cookies are checked, in seconds."""
_ELSEWHERE = frozenset({"cross-site", "same-site"})
"""`Sec-Fetch-Site` of a request that a page of another origin made."""


@dataclass
class AngelUser(User):
    """A Jupyter user with what they may in AngelOS."""

    acts_as: Principal | None = None
    """None only for a cookie that is not looked up yet."""

    @property
    def principal(self) -> Principal:
        """The caller of the control API."""
        if self.acts_as is None:
            raise Unauthenticated
        return self.acts_as


def principal_of(user: object) -> Principal:
    """Return the principal of a signed-in Jupyter user.

    A user of another identity provider is a viewer: that provider says who they are, and not what
    they may do here. A name that no principal can have, or the owner's, is told apart by its hash.
    """
    if isinstance(user, AngelUser):
        return user.principal
    name = str(getattr(user, "username", ""))
    person = PrincipalId(f"person/{name}")
    if not is_principal(person) or "~" in name or person == OWNER.id:
        person = PrincipalId(f"person/x-{hashlib.sha256(name.encode()).hexdigest()[:32]}")
    return Principal(id=person, role=Role.viewer)


def user_of(principal: Principal) -> AngelUser:
    """Return the Jupyter user of a person."""
    name = principal.id.partition("/")[2]
    return AngelUser(
        username=name,
        name=name,
        display_name=name,
        initials=name[:2].upper(),
        acts_as=principal,
    )


class _Cookie(msgspec.Struct, frozen=True):
    """What the login cookie holds, signed by Jupyter."""

    id: str
    generation: int = 0
    color: str | None = None
    credential: str = ""


class _CookieUser(AngelUser):
    """The user of a cookie, before they are looked up."""

    cookie: _Cookie | None = None


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
    try:
        require(principal_of(user), Permission.jupyter_use)
    except AngelError as error:
        raise HTTPError(error.status, str(error)) from error


def _entered(handler: AuthenticatedHandler, user: AngelUser, since: float) -> bool:
    """Record a WebSocket of `user`; return False if the user was removed after `since`."""
    binding: Binding | None = handler.settings.get("angelos_binding")
    if binding is None or not isinstance(handler, WebSocketHandler):
        return True
    return binding.presence.enter(user.principal, handler, since)


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


class AngelLogoutHandler(LogoutHandler):
    """Jupyter's page for signing out, which ends the cookie and every copy of it."""

    @allow_unauthenticated
    async def get(self) -> None:  # type: ignore[override]
        """End the generation of whoever's cookie this is, then forget the cookie."""
        if self.request.headers.get("Sec-Fetch-Site", "same-origin") in _ELSEWHERE:
            raise HTTPError(403, "A page of another site may not sign you out.")
        provider, binding = self.identity_provider, self.settings.get("angelos_binding")
        if isinstance(provider, AngelIdentityProvider) and binding is not None:
            try:
                user = await provider.get_user_cookie(self)
                if isinstance(user, AngelUser):
                    await binding.require().people.sign_out(user.principal)
            except AngelError as error:  # then the cookie stays, since its copies would
                raise _away(error) from error
        super().get()


class AngelIdentityProvider(PasswordIdentityProvider):
    """Jupyter's identity provider, with people and roles."""

    login_handler_class = AngelLoginHandler  # type: ignore[assignment]
    logout_handler_class = AngelLogoutHandler  # type: ignore[assignment]
    _people: dict[PrincipalId, PersonView] | None = None
    _people_at = -math.inf

    @default("updatable_fields")
    def _default_updatable_fields(self) -> list[str]:
        """Let people change their colour; the admin gives the names."""
        return ["color"]

    def identity_model(self, user: User) -> dict[str, Any]:
        """Return a user as `/api/me` shows them: what Jupyter itself knows, as JSON can hold it."""
        return {field.name: getattr(user, field.name) for field in fields(User)}

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
            return user_of(await self._owner(handler))
        return await self.person(handler, token)

    async def person(self, handler: AuthenticatedHandler, token: str) -> AngelUser | None:
        """Return the person with this token; raise `Unavailable` while there is no look-up."""
        binding: Binding | None = handler.settings.get("angelos_binding")
        if binding is None:
            return None
        principal = await binding.require().people.authenticate(token)
        return None if principal is None else user_of(principal)

    async def get_user_cookie(self, handler: AuthenticatedHandler) -> User | None:  # type: ignore[override]
        """Return the user of the login cookie, as they may act now."""
        user = super().get_user_cookie(handler)
        cookie = getattr(user, "cookie", None)
        if not isinstance(user, AngelUser) or cookie is None:
            return None
        if cookie.id == OWNER.id and not hmac.compare_digest(
            cookie.credential, self._fingerprint()
        ):
            return None
        principal = await self._present(handler, cookie)
        if principal is None:
            return None
        color, user = user.color, user_of(principal)
        user.color = color
        return user

    def user_to_cookie(self, user: User) -> str:
        """Store who it is, their generation and colour; the role is looked up when it is used.

        A token with scopes gets no cookie of its person's whole rights: its holder stays with it.
        """
        principal = principal_of(user)
        scoped = principal.scopes is not None
        return json.dumps(
            {
                "id": "" if scoped else principal.id,
                "generation": principal.generation,
                "color": user.color,
                "credential": self._fingerprint() if principal.id == OWNER.id else "",
            }
        )

    def user_from_cookie(self, cookie_value: str) -> User | None:
        """Return a user who still has to be looked up; None for another provider's cookie."""
        try:
            cookie = msgspec.json.decode(cookie_value, type=_Cookie)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        if not is_principal(cookie.id):
            return None
        user = _CookieUser(username=cookie.id.partition("/")[2], color=cookie.color)
        user.cookie = cookie
        return user

    def _fingerprint(self) -> str:
        """Return what a cookie of the owner keeps of the server's token."""
        secret = self.parent.cookie_secret if self.parent is not None else b""
        return hmac.new(secret, b"owner\0" + self.token.encode(), "sha256").hexdigest()

    async def _owner(self, handler: AuthenticatedHandler) -> Principal:
        """Return the owner in their present generation; 0 while nobody can be looked up."""
        try:
            view = (await self._everybody(handler)).get(OWNER.id)
        except Unavailable:
            view = None
        generation = Generation(view.generation if view else 0)
        return msgspec.structs.replace(OWNER, generation=generation)

    async def _present(self, handler: AuthenticatedHandler, cookie: _Cookie) -> Principal | None:
        """Return the person of a cookie, if its generation is their present one."""
        try:
            people = await self._everybody(handler)
        except Unavailable:
            if cookie.id != OWNER.id or self._people is not None:
                raise
            return OWNER  # no system has run: there is nothing but Jupyter itself
        if not _counts(people, cookie):
            # Made or signed in again a moment ago, perhaps; Jupyter has signed the cookie.
            self._people_at = -math.inf
            people = await self._everybody(handler)
            if not _counts(people, cookie):
                return None
        view = people[PrincipalId(cookie.id)]
        return Principal(
            id=PrincipalId(cookie.id), role=view.role, generation=Generation(view.generation)
        )

    def generate_anonymous_user(self, handler: AuthenticatedHandler) -> User:  # type: ignore[override]  # noqa: ARG002
        """Return the owner: whoever has the server's password, or anybody if it has none."""
        generation = Generation(self._owner_view.generation) if self._owner_view else Generation(0)
        return user_of(msgspec.structs.replace(OWNER, generation=generation))

    def process_login_form(self, handler: JupyterHandler) -> User | None:  # type: ignore[override]
        """Return the owner of the password or token in the login form."""
        user = getattr(handler, "_person", None) or super().process_login_form(handler)
        away: AngelError | None = getattr(handler, "_away", None)
        if user is None and away is not None:
            raise _away(away) from away
        return user

    @property
    def _owner_view(self) -> PersonView | None:
        return (self._people or {}).get(OWNER.id)

    async def _everybody(self, handler: AuthenticatedHandler) -> dict[PrincipalId, PersonView]:
        """Return everybody by id, as of at most `PEOPLE_CACHE_S` ago."""
        binding: Binding | None = handler.settings.get("angelos_binding")
        if binding is None:
            return {}
        now = time.monotonic()
        fresh = now - self._people_at <= PEOPLE_CACHE_S
        if self._people is None or not fresh or binding.presence.changed_at >= self._people_at:
            people = await binding.require().people.list()
            self._people = {person.id: person for person in people}
            self._people_at = now
        return self._people


def _counts(people: dict[PrincipalId, PersonView], cookie: _Cookie) -> bool:
    view = people.get(PrincipalId(cookie.id))
    return view is not None and view.generation == cookie.generation


def _away(error: AngelError) -> HTTPError:
    return HTTPError(error.status, f"You cannot be looked up at the moment: {error}")
