"""Heads of requests and answers: read once, into one meaning, and written anew. Pure.

What a box says about the framing of its message is not passed on: the broker reads the body and
frames it itself, so that no server can take one request for two.
"""

from __future__ import annotations

from collections.abc import Iterable

import h11

from angelos.core.errors import InvalidInput
from angelos.core.network import (
    NetworkVerdict,
    Scheme,
    WebRequest,
    normal_authority,
    normal_target,
)
from angelos.node.broker.models import Credential, RequestRefused

Headers = list[tuple[bytes, bytes]]
Origin = tuple[Scheme, str, int]
_OF_THE_HOP = frozenset({
    b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization",
    b"proxy-authenticate", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect",
    b"http2-settings", b"content-length", b"host", b"alt-svc",
})  # fmt: skip
"""Headers that concern one connection (RFC 9110, 7.6.1), and those that the broker writes."""
_DEFAULT = {"https": 443, "http": 80}


def read_request(request: h11.Request, origin: Origin | None, headers: int) -> WebRequest:
    """Return what a box asks for.

    Args:
        request: Its head.
        origin: Where the tunnel leads in which it came; None outside of one.
        headers: How many it may have.

    Raises:
        RequestRefused: It can be read in two ways, or is for another host than its tunnel.
    """
    names = [name for name, _ in request.headers]
    if len(names) > headers:
        raise RequestRefused(NetworkVerdict.limit, f"it has over {headers} headers")
    if b"transfer-encoding" in names and (
        b"content-length" in names or request.http_version == b"1.0"
    ):
        raise RequestRefused(NetworkVerdict.malformed, "it says its length in two ways")
    try:
        method, target = request.method.decode("ascii"), request.target.decode("ascii")
        if origin is None:
            scheme, separator, rest = target.partition("://")
            if scheme.lower() != "http" or not separator:
                raise InvalidInput("a proxy is asked for http://host/path, or by CONNECT")  # noqa: TRY301
            authority, slash, path = rest.partition("/")
            origin = ("http", *normal_authority(authority, 80))
            target = slash + path or "/"
        asked = WebRequest(*origin, method, normal_target(target))
        hosts = [value.decode("ascii") for name, value in request.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and request.http_version != b"1.0"):
            raise InvalidInput("it names no host, or two")  # noqa: TRY301
        for host in hosts:
            if normal_authority(host, _DEFAULT[origin[0]]) != origin[1:]:
                raise RequestRefused(
                    NetworkVerdict.other_host, f"its Host header says {host[:100]!r}"
                )
    except (InvalidInput, UnicodeDecodeError) as error:
        raise RequestRefused(NetworkVerdict.malformed, str(error)) from error
    return asked


def head_for_host(
    request: h11.Request, asked: WebRequest, credential: Credential | None
) -> h11.Request:
    """Return the head that the broker sends in place of the one that a box has sent."""
    port = "" if asked.port == _DEFAULT[asked.scheme] else f":{asked.port}"
    headers: Headers = [(b"host", f"{asked.host}{port}".encode()), *_passed(request.headers)]
    if credential is not None:
        # What comes back must hold no trace of it (`redact.py`): so no parts, and no compression.
        own = {credential.header.lower().encode(), b"range", b"accept-encoding"}
        headers = [(name, value) for name, value in headers if name not in own]
        headers.append((credential.header.encode(), credential.value.encode()))
        headers.append((b"accept-encoding", b"identity"))
    headers += _framing(request.headers)
    headers.append((b"connection", b"close"))
    target = asked.target.path + asked.target.query
    return h11.Request(method=asked.method, target=target, headers=headers)


def head_for_box(answer: h11.Response) -> h11.Response:
    """Return the head of an answer as the box gets it."""
    headers = [*_passed(answer.headers), *(_framing(answer.headers, chunked=False))]
    return h11.Response(status_code=answer.status_code, headers=headers, reason=answer.reason)


def _passed(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers that concern the message itself."""
    headers = list(headers)
    listed = {
        word.strip().lower()
        for name, value in headers
        if name == b"connection"
        for word in value.split(b",")
    }
    return [(n, v) for n, v in headers if n not in _OF_THE_HOP and n not in listed]


def _framing(headers: Iterable[tuple[bytes, bytes]], *, chunked: bool = True) -> Headers:
    names = dict(headers)
    if b"transfer-encoding" in names:
        return [(b"transfer-encoding", b"chunked")] if chunked else []
    return [(b"content-length", names[b"content-length"])] if b"content-length" in names else []
