"""Git over HTTP: `git clone http://host/angelgit/study.git`, with a token as the password.

Only what git clients of this century speak ("smart" HTTP, `gitprotocol-http`):

    GET  /angelgit/<repo>.git/info/refs?service=git-upload-pack | git-receive-pack
    POST /angelgit/<repo>.git/git-upload-pack     clone, fetch, pull     revisions:read
    POST /angelgit/<repo>.git/git-receive-pack    push                   proposals:create
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import zlib
from typing import cast, get_args

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from tornado.http1connection import HTTP1Connection
from tornado.web import HTTPError, stream_request_body

from angelos.adapters.net.http import permit
from angelos.angelgit.git.serving import ServiceName
from angelos.angelgit.git_server import MAX_PUSH_BYTES, GitServer
from angelos.core.errors import InvalidInput, NotFound, TooLarge, Unauthenticated, Unavailable
from angelos.core.permissions import Permission, Principal
from jupyter_ext.api.handlers import JupyterProblemHandler

MAX_FETCH_BYTES = 16_000_000
"""Of what a client says it wants and has."""
_PERMISSIONS = {
    "git-upload-pack": Permission.revisions_read,
    "git-receive-pack": Permission.proposals_create,
}
_PIECE = 1_000_000


@stream_request_body
class GitHandler(JupyterProblemHandler):
    """One request of a git client."""

    principal: Principal | None = None
    service: ServiceName | None = None

    def initialize(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Start with an empty body."""
        self.body = bytearray()
        self.limit = 0

    async def prepare(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Refuse early: nobody, no such service, not permitted."""
        try:
            self.service = self._service()
            self.principal = await self._caller()
            permit(_PERMISSIONS[self.service], self.principal)
            push = self.service == "git-receive-pack"
            self.limit = MAX_PUSH_BYTES if push else MAX_FETCH_BYTES
            if isinstance(self.request.connection, HTTP1Connection):
                self.request.connection.set_max_body_size(2 * self.limit)
        except Unauthenticated:
            self.set_status(401)
            self.set_header("WWW-Authenticate", 'Basic realm="AngelOS", charset="UTF-8"')
            await self.finish("The password is a token; the name does not matter.\n")
        except Exception as error:  # noqa: BLE001 - the border: everything becomes a problem
            self.give_up(error)

    def data_received(self, chunk: bytes) -> None:
        """Keep the body up to its limit and not a byte more."""
        if self._finished:
            return
        if len(self.body) + len(chunk) > self.limit:
            self.body.clear()
            self.give_up(TooLarge(f"A request of git has at most {self.limit} bytes."))
        else:
            self.body += chunk

    @allow_unauthenticated
    async def get(self, repo: str, path: str) -> None:
        """Answer which references there are."""
        if self._finished or self.service is None:
            return
        del path
        try:
            body = await self._git().advertise(repo, self.service)
        except Exception as error:  # noqa: BLE001 - the border
            self.give_up(error)
            return
        await self._send(body, f"application/x-{self.service}-advertisement")

    @allow_unauthenticated
    async def post(self, repo: str, path: str) -> None:
        """Answer a fetch or a push."""
        if self._finished or self.service is None or self.principal is None:
            return
        del path
        try:
            git = self._git()
            body = await asyncio.to_thread(self._inflated)
            if self.service == "git-receive-pack":
                answer = await git.receive(repo, body, self.principal)
            else:
                answer = await git.upload(repo, body)
        except Exception as error:  # noqa: BLE001 - the border
            self.give_up(error)
            return
        await self._send(answer, f"application/x-{self.service}-result")

    def _service(self) -> ServiceName:
        """Return what is asked for; raise `NotFound` for anything else."""
        name = self.path_args[1]
        if self.request.method == "GET":
            name = self.get_query_argument("service", "") if name == "info/refs" else ""
        elif self.request.headers.get("Content-Type", "") != f"application/x-{name}-request":
            name = ""  # a page of another origin cannot send that type
        if name not in get_args(ServiceName):
            raise NotFound("There is nothing for git here.", hint="Use git 1.6.6 or later.")
        return cast("ServiceName", name)

    def _git(self) -> GitServer:
        git = self.binding.require().git
        if git is None:
            raise Unavailable("This server is a window; ask the first one for git.")
        return git

    async def _caller(self) -> Principal:
        """Return who asks, by the token that git sends as a password."""
        self.request.headers["Authorization"] = f"token {self._password()}"
        try:
            await JupyterHandler.prepare(self, _redirect_to_login=False)
        except HTTPError as error:
            if self.current_user is None:
                raise Unauthenticated from error
            raise
        principal = self.signed_in()
        if principal is None:
            raise Unauthenticated
        return principal

    def _password(self) -> str:
        kind, _, value = self.request.headers.get("Authorization", "").partition(" ")
        try:
            text = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise Unauthenticated from error
        password = text.partition(":")[2]
        if kind.lower() != "basic" or not password or not password.isascii():
            raise Unauthenticated
        return password

    def _inflated(self) -> bytes:
        """Return the body, of which git compresses long lists of what it has."""
        if self.request.headers.get("Content-Encoding", "") not in {"gzip", "x-gzip"}:
            return bytes(self.body)
        inflater = zlib.decompressobj(wbits=31)
        try:
            body = inflater.decompress(bytes(self.body), self.limit)
        except zlib.error as error:
            raise InvalidInput("The body is not compressed as it says.") from error
        if inflater.unconsumed_tail or not inflater.eof:
            raise TooLarge(f"A request of git has at most {self.limit} bytes.")
        return body

    async def _send(self, body: bytes, kind: str) -> None:
        self.set_header("Content-Type", kind)
        self.set_header("Cache-Control", "no-cache")
        view = memoryview(body)
        for start in range(0, len(view), _PIECE):
            self.write(bytes(view[start : start + _PIECE]))
            await self.flush()
        await self.finish()
