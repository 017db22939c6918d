"""A route as data: method, path, permission, types and handler in one line.

Planes list their routes; `jupyter_ext` mounts them behind Jupyter's sign-in and the hub behind
mutual TLS, with the same code for parsing, permission and errors (`adapters/net/http.py`). The
OpenAPI document is generated from the same list (`core/openapi.py`).

    Route("POST", "/tasks", Permission.tasks_run, submit, request=SubmitTask, response=TaskView,
          status=202, summary="Run code on a node")

A handler is `async def submit(call: Call[SubmitTask]) -> TaskView`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar, get_args

import msgspec

from angelos.core.errors import InvalidInput, TooLarge
from angelos.core.permissions import Permission, Principal

B = TypeVar("B")
MAX_BODY_BYTES = 16_000_000
MAX_LIMIT = 500
PREFIX = "/angelos/api"
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_WHOLE = re.compile(r"-?[0-9]{1,19}")
"""At most 19 digits: `int` refuses thousands of them with an error of its own."""


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An empty body."""


class Call(msgspec.Struct, Generic[B], frozen=True, kw_only=True):
    """One request, already authenticated, permitted, parsed and bounded."""

    principal: Principal
    params: Mapping[str, str]
    query: Mapping[str, str]
    body: B
    trace: str = ""
    peer_url: str = ""
    """Scheme and host of the request's address."""


class Route(msgspec.Struct, frozen=True):
    """One operation of the control API."""

    method: str
    path: str
    """Below `/angelos/api`, parameters as `{name}`."""
    permission: Permission
    handler: Callable[[Call[Any]], Awaitable[Any]]
    request: Any = Nothing
    """A struct, sent as JSON, or `bytes`."""
    response: Any = Nothing
    status: int = 200
    summary: str = ""
    query: tuple[str, ...] = ()
    """The query parameters that it knows; any other is refused."""
    media_type: str = "application/json"
    """`application/msgpack` answers are encoded as MessagePack; `application/octet-stream` and
    `text/plain` handlers return bytes, `application/jsonl` handlers yield them."""
    max_body: int = MAX_BODY_BYTES


def parse_body(route: Route, body: bytes) -> Any:
    """Return the request in a body of JSON.

    Raises:
        TooLarge: The body is larger than the route's `max_body`.
        InvalidInput: It is not JSON, or not the route's request.
    """
    if len(body) > route.max_body:
        raise TooLarge(f"The body has {len(body)} bytes; {route.max_body} are allowed.")
    if route.request is bytes:
        return body
    try:
        return msgspec.json.decode(body or b"{}", type=route.request)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"The body of {route.method} {route.path} is not valid: {error}",
            hint=f"Its form is described at {PREFIX}/openapi.json.",
        ) from error


def parse_query(route: Route, query: Mapping[str, list[bytes] | list[str]]) -> dict[str, str]:
    """Return the query as text, each parameter once; unknown and repeated ones are refused."""
    texts: dict[str, str] = {}
    for name, values in query.items():
        if name not in route.query:
            raise InvalidInput(
                f"{route.method} {route.path} has no query parameter {name!r}.",
                hint=f"It knows: {', '.join(route.query) or 'none'}.",
            )
        if len(values) != 1:
            raise InvalidInput(f"The query parameter {name!r} is given {len(values)} times.")
        value = values[0]
        try:
            texts[name] = value.decode() if isinstance(value, bytes) else value
        except UnicodeDecodeError as error:
            raise InvalidInput(f"The query parameter {name!r} is not UTF-8.") from error
    return texts


def whole_number(call: Call[Any], name: str, default: int, high: int, low: int = 1) -> int:
    """Return a query parameter from `low` to `high`; raise `InvalidInput` for anything else."""
    text = call.query.get(name, str(default))
    value = int(text) if _WHOLE.fullmatch(text) else low - 1
    if not low <= value <= high:
        raise InvalidInput(
            f"{name} must be a whole number from {low} to {high}, not {text[:40]!r}."
        )
    return value


class Period(NamedTuple):
    """From when to when, Unix seconds; `since` counts, `until` does not."""

    since: float = 0.0
    until: float = math.inf

    def __contains__(self, at: object) -> bool:
        return isinstance(at, int | float) and self.since <= at < self.until


def period(call: Call[Any]) -> Period:
    """Return the period of the query parameters `since` and `until`."""
    bounds = {name: call.query[name] for name in Period._fields if name in call.query}
    for name, text in bounds.items():
        if not _SECONDS.fullmatch(text):
            raise InvalidInput(f"{name} must be a number of Unix seconds, not {text[:40]!r}.")
    return Period(**{name: float(text) for name, text in bounds.items()})


def render(route: Route, answer: Any) -> bytes:
    """Return the bytes of a handler's answer in the route's media type."""
    if route.media_type == "application/json":
        return msgspec.json.encode(answer)
    if route.media_type == "application/msgpack":
        return msgspec.msgpack.encode(answer)
    if not isinstance(answer, bytes):
        msg = f"{route.path} must answer with bytes, not {type(answer).__name__}"
        raise TypeError(msg)
    return answer


def choice(query: Mapping[str, str], name: str, words: Any) -> str | None:
    """Return a query parameter that is one of a Literal's words, or None."""
    word = query.get(name)
    if word is not None and word not in get_args(words):
        raise InvalidInput(f"{name}={word!r} is none of {', '.join(get_args(words))}.")
    return word


def limit(call: Call[Any]) -> int:
    """Return the requested length of a list; raise `InvalidInput` out of bounds."""
    return whole_number(call, "limit", 50, MAX_LIMIT)


def wait_seconds(call: Call[Any]) -> float:
    """Return the seconds to wait, at most the bound."""
    text = call.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError as error:
        raise InvalidInput(f"wait must be a number of seconds, not {text!r}.") from error
    if not seconds >= 0:
        raise InvalidInput(f"wait must be a number of seconds from 0, not {text!r}.")
    return seconds
