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
from angelos.node.broker.models import BrokerLimits, Credential, RequestRefused

Headers = list[tuple[bytes, bytes]]
Origin = tuple[Scheme, str, int]
_OF_THE_HOP = frozenset(
    b"connection proxy-connection keep-alive proxy-authorization proxy-authenticate te trailer"
    b" transfer-encoding upgrade expect http2-settings content-length host alt-svc".split()
)
"""Headers that concern one connection (RFC 9110, 7.6.1), and those that the broker writes."""
_OVERRIDES = frozenset(
    b"x-original-url x-rewrite-url x-http-method x-http-method-override x-method-override"
    b" x-forwarded-host x-host".split()
)
"""Headers by which some servers replace the method, the path or the host of a request."""
_PARTIAL = 206
_DEFAULT = {"https": 443, "http": 80}


def read_request(request: h11.Request, origin: Origin | None, limits: BrokerLimits) -> WebRequest:
    """Return what a box asks for.

    Args:
        request: Its head.
        origin: Where the tunnel leads in which it came; None outside of one.
        limits: Of its head.

    Raises:
        RequestRefused: It can be read in two ways, or is for another host than its tunnel.
    """
    _check_form(request, limits)
    try:
        target = request.target.decode("ascii")
        if origin is None:
            origin, target = _absolute(target)
        method = request.method.decode("ascii")
        wanted = WebRequest(*origin, method, normal_target(target))
        hosts = [value.decode("ascii") for name, value in request.headers if name == b"host"]
        authorities = {normal_authority(host, _DEFAULT[origin[0]]) for host in hosts}
    except (InvalidInput, UnicodeDecodeError) as error:
        raise RequestRefused(NetworkVerdict.malformed, str(error)) from error
    if len(hosts) > 1 or (not hosts and request.http_version != b"1.0"):
        raise RequestRefused(NetworkVerdict.malformed, "it names no host, or two")
    if authorities - {origin[1:]}:
        raise RequestRefused(NetworkVerdict.other_host, f"its Host header says {hosts[0][:100]!r}")
    return wanted


def _check_form(request: h11.Request, limits: BrokerLimits) -> None:
    names = [name for name, _ in request.headers]
    if len(names) > limits.headers:
        raise RequestRefused(NetworkVerdict.limit, f"it has over {limits.headers} headers")
    # h11 bounds a head that is not complete yet, and not one that comes as a whole.
    if sum(len(name) + len(value) for name, value in request.headers) > limits.head_bytes:
        raise RequestRefused(NetworkVerdict.limit, f"its head has over {limits.head_bytes} bytes")
    # Many servers read an underscore in a name as a hyphen.
    for name in names:
        if name.replace(b"_", b"-") in _OVERRIDES:
            raise RequestRefused(NetworkVerdict.malformed, f"it has a header {name.decode()}")
    chunked = b"transfer-encoding" in names
    if chunked and (b"content-length" in names or request.http_version == b"1.0"):
        raise RequestRefused(NetworkVerdict.malformed, "it says its length in two ways")


def _absolute(target: str) -> tuple[Origin, str]:
    """Return where a request of a proxy goes (RFC 9112, 3.2.2), and its path."""
    scheme, separator, rest = target.partition("://")
    if scheme.lower() != "http" or not separator:
        raise InvalidInput("A proxy is asked for http://host/path, or by CONNECT.")
    authority, slash, path = rest.partition("/")
    return ("http", *normal_authority(authority, 80)), slash + path or "/"


def head_for_host(
    request: h11.Request, wanted: WebRequest, credential: Credential | None
) -> h11.Request:
    """Return the head that the broker sends in place of the one that a box has sent."""
    port = "" if wanted.port == _DEFAULT[wanted.scheme] else f":{wanted.port}"
    headers: Headers = [(b"host", f"{wanted.host}{port}".encode()), *_passed(request.headers)]
    if credential is not None:
        # What comes back must hold no trace of it (`redact.py`): so no parts, and no compression.
        own = {credential.header.lower().encode(), b"range", b"accept-encoding"}
        headers = [(name, value) for name, value in headers if name not in own]
        headers.append((credential.header.encode(), credential.value.encode()))
        headers.append((b"accept-encoding", b"identity"))
    headers += _framing(request.headers)
    headers.append((b"connection", b"close"))
    target = wanted.target.path + wanted.target.query
    return h11.Request(method=wanted.method, target=target, headers=headers)


def head_for_box(answer: h11.Response) -> h11.Response:
    """Return the head of an answer as the box gets it."""
    headers = [*_passed(answer.headers), *(_framing(answer.headers, chunked=False))]
    return h11.Response(status_code=answer.status_code, headers=headers, reason=answer.reason)


def check_readable(answer: h11.Response) -> None:
    """Raise `RequestRefused` if a credential that an answer repeats could not be seen in it."""
    codings = {value.lower() for name, value in answer.headers if name == b"content-encoding"}
    if codings - {b"identity", b""} or answer.status_code == _PARTIAL:
        raise RequestRefused(
            NetworkVerdict.unreachable,
            "it answers a request with a credential in parts or compressed, without being asked",
        )


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
