"""HTTP for the client: one bounded request at a time, and problems raised as errors.

    transport = Transport("http://127.0.0.1:8888", token="...")
    transport.open()
    status = await transport.call("GET", "/status", StatusView)

An answer is JSON of a struct of `core.api`; anything else that is not 2xx is a problem document
(RFC 9457) and becomes the error of `core.errors` that it names.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders
from tornado.simple_httpclient import HTTPStreamClosedError, HTTPTimeoutError

from angelos.adapters.net.dial import Caller, caller
from angelos.core.errors import (
    BY_CODE,
    AngelError,
    DeadlineExceeded,
    InvalidInput,
    TooLarge,
    Unavailable,
    from_problem,
)
from angelos.core.routes import MAX_BODY_BYTES, PREFIX
from angelos.core.tracing import traceparent

T = TypeVar("T")
MAX_ANSWER_BYTES = 512_000_000
"""A bundle holds all of a revision."""
CONNECT_S = 10.0
_CONNECTIONS = 32
_TOKEN = re.compile(r"[!-~]*")
"""Visible ASCII (RFC 9110, section 5.5): anything else is no header, or several."""


class Transport:
    """Requests to one server as one caller.

    Attributes:
        url: The server's address, without a slash at its end.
        socket: The path of its Unix socket, or an empty text; given as `unix:/path`.
        token: A person's token, or an empty text.
        tls: The context of an agent or node, which proves by certificate who it is.
        timeout_s: Seconds for one request, the server's waiting not counted.
    """

    def __init__(
        self, url: str, *, token: str = "", tls: ssl.SSLContext | None = None, timeout_s: float = 60
    ) -> None:
        """Name the server; nothing is sent yet.

        Raises:
            InvalidInput: The address or the token has the wrong form.
        """
        self.socket = url.removeprefix("unix:") if url.startswith("unix:/") else ""
        url = "http://localhost" if self.socket else url
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise InvalidInput(f"{url!r} is not an http(s) address.")
        if not _TOKEN.fullmatch(token):
            raise InvalidInput(
                "The token holds a character that none has, such as a space or a newline."
            )
        self.url = url.rstrip("/")
        self.token = token
        self.tls = tls
        self.timeout_s = timeout_s
        self._free: asyncio.Semaphore | None = None

    def open(self) -> None:
        """Accept requests from now on."""
        self._free = asyncio.Semaphore(_CONNECTIONS)

    def close(self) -> None:
        """Refuse requests from now on; each connection ends with its own request."""
        self._free = None

    @property
    def headers(self) -> HTTPHeaders:
        """The headers that identify the caller."""
        headers = HTTPHeaders()
        if self.token:
            headers["Authorization"] = f"token {self.token}"
        return headers

    def address(self, path: str, query: dict[str, object] | None = None) -> str:
        """Return the URL of a path below the API; parameters that are None or empty are left out.

        `path` is quoted by `segments`.
        """
        given = {k: str(v) for k, v in (query or {}).items() if v not in (None, "")}
        with _unicode():
            return f"{self.url}{PREFIX}{path}" + (f"?{urlencode(given)}" if given else "")

    async def call(
        self,
        method: str,
        path: str,
        as_type: type[T],
        *,
        body: Any = None,
        query: dict[str, object] | None = None,
        patience_s: float = 0,
    ) -> T:
        """Send one request and return its answer.

        Args:
            method: The HTTP method.
            path: A path below the API, quoted by `segments`.
            as_type: The struct that the answer is read as.
            body: A struct to send as JSON.
            query: Parameters; those that are None or empty are left out.
            patience_s: Seconds that the server may wait before it answers.

        Raises:
            AngelError: The one that the server answered with, or one for an unreadable answer.
            DeadlineExceeded: No answer came in time.
            Unavailable: The server cannot be reached, or this transport is closed.
        """
        raw = await self.fetch(method, path, body=body, query=query, patience_s=patience_s)
        try:
            return msgspec.json.decode(raw, type=as_type)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise AngelError(f"{method} {path} answered with something else: {error}") from error

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, object] | None = None,
        patience_s: float = 0,
    ) -> bytes:
        """Send one request and return the bytes of its answer; the arguments are `call`'s."""
        if self._free is None:
            raise Unavailable("The client is not open.", hint="Use it with `async with`.")
        headers = self.headers
        if trace := traceparent():
            headers["traceparent"] = trace
        if body is not None:
            raw = isinstance(body, bytes)
            headers["Content-Type"] = "application/octet-stream" if raw else "application/json"
        request = HTTPRequest(
            self.address(path, query),
            method=method,
            headers=headers,
            body=None if body is None else _encoded(body),
            allow_nonstandard_methods=True,
            connect_timeout=CONNECT_S,
            request_timeout=self.timeout_s + patience_s,
            follow_redirects=False,
            ssl_options=self.tls,
        )
        async with self._free, caller(MAX_ANSWER_BYTES, self.socket) as http:
            return _body(await self.send(request, http), method, path)

    async def send(self, request: HTTPRequest, http: Caller) -> HTTPResponse:
        """Send a request; raise `DeadlineExceeded` or `Unavailable` when no answer comes."""
        try:
            return await http.fetch(request, raise_error=False)
        except HTTPTimeoutError as error:
            raise DeadlineExceeded(f"{request.method} {request.url} took too long.") from error
        except (HTTPStreamClosedError, OSError) as error:
            raise unreachable(self.url, error) from error
        except asyncio.CancelledError:
            raise
        except Exception as error:  # tornado passes on whatever its parser raised
            raise Unavailable(f"{self.url} gave no answer: {error}") from error


def segments(*parts: str) -> str:
    """Return path segments, each quoted so that it stays one segment."""
    with _unicode():
        return "".join("/" + quote(part, safe="") for part in parts)


def unreachable(url: str, error: BaseException) -> Unavailable:
    """Return the error for a server that cannot be reached."""
    return Unavailable(
        f"{url} cannot be reached: {error}.",
        hint="Nothing was sent or the answer was lost; ask again, or see `angelos status`.",
    )


def problem_of(status: int, raw: bytes, request: str) -> AngelError:
    """Return the error that an answer describes; if it holds no problem, one for its status."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        body = None
    if isinstance(body, dict) and "code" in body:
        return from_problem(body)
    message = str(body.get("message", "")) if isinstance(body, dict) else ""
    cls = next((c for c in BY_CODE.values() if c.status == status), AngelError)
    return cls(f"{request} was answered with {status}. {message}".strip())


def _encoded(body: Any) -> bytes:
    """Return the JSON of a body, or itself; raise `TooLarge` for one that no route accepts."""
    if isinstance(body, bytes):
        return body
    with _unicode():
        raw = msgspec.json.encode(body)
    if len(raw) > MAX_BODY_BYTES:
        raise TooLarge(f"The request has {len(raw)} bytes; {MAX_BODY_BYTES} are allowed.")
    return raw


@contextmanager
def _unicode() -> Iterator[None]:
    """Raise `InvalidInput` for text that cannot be sent, such as an argument in Latin-1."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{error.object!r:.80} is not Unicode text.") from error


def _body(response: HTTPResponse, method: str, path: str) -> bytes:
    if 200 <= response.code < 300:  # noqa: PLR2004 - RFC 9110, section 15.3
        return response.body or b""
    if response.error is not None and response.code == 599:  # noqa: PLR2004 - tornado: no answer
        raise Unavailable(f"{method} {path}: {response.error}")
    raise problem_of(response.code, response.body or b"", f"{method} {path}")
