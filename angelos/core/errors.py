"""Every error that crosses a boundary, once, with a stable code.

    AngelError
    +-- InvalidInput        400 invalid-input       +-- TooLarge           413 too-large
    +-- Unauthenticated     401 unauthenticated     +-- Stale              409 stale
    +-- Forbidden           403 forbidden           +-- Conflict           409 conflict
    +-- NotFound            404 not-found           +-- Busy               429 busy
    +-- Refused             422 refused             +-- Unavailable        503 unavailable
    +-- Tampered            422 tampered            +-- DeadlineExceeded   504 deadline-exceeded
    +-- MethodNotAllowed    405 method-not-allowed  +-- Fenced             409 fenced
    +-- HistoryLost         410 history-lost

A docstring *is* the default message. On the wire an error is an RFC 9457 problem whose `code` is
looked up in `BY_CODE`; a class path never crosses the wire.

    >>> from_problem({"code": "stale", "detail": "lines 3-4 changed"})
    Stale('lines 3-4 changed')
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar


class AngelError(Exception):
    """An unexpected error."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, detail: str | None = None, *, hint: str = "", **extra: Any) -> None:
        """Describe an error.

        Args:
            detail: What happened, and what was kept; the docstring of the class by default.
            hint: What to do next.
            extra: Evidence for programs, which decide by it and by `code`, never by a sentence.
        """
        self.detail = detail or (type(self).__doc__ or "").strip()
        self.hint = hint
        self.extra = extra
        super().__init__(self.detail)

    def __str__(self) -> str:
        return f"{self.detail} {self.hint}".strip()

    def problem(self) -> dict[str, Any]:
        """Return the error as the body of an `application/problem+json` answer (RFC 9457)."""
        body: dict[str, Any] = {
            "type": f"urn:angelos:problem:{self.code}",
            "title": type(self).__name__,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.hint:
            body["hint"] = self.hint
        if self.extra:
            body["extra"] = self.extra
        return body


class InvalidInput(AngelError):
    """The input has the wrong form."""

    code, status = "invalid-input", 400


class Unauthenticated(AngelError):
    """Nobody is signed in, or the certificate or token is not known (any more)."""

    code, status = "unauthenticated", 401


class Forbidden(AngelError):
    """The policy does not allow this."""

    code, status = "forbidden", 403


class NotFound(AngelError):
    """There is nothing by that name."""

    code, status = "not-found", 404


class MethodNotAllowed(AngelError):
    """There is something by that name, but not for this method."""

    code, status = "method-not-allowed", 405


class Stale(AngelError):
    """The same lines have changed since the base revision; nothing was written."""

    code, status = "stale", 409


class Conflict(AngelError):
    """Something else happened first; nothing was written."""

    code, status = "conflict", 409


class NotShown(AngelError):
    """What is to be approved was not shown whole to whoever approves it; nothing was counted."""

    code, status = "not-shown", 409


class Fenced(AngelError):
    """Another process owns this now; nothing was written."""

    code, status = "fenced", 409


class HistoryLost(AngelError):
    """The facts after that offset are not there any more, or it is none of this journal's."""

    code, status = "history-lost", 410


class TooLarge(AngelError):
    """The input is larger than the limit; nothing was written."""

    code, status = "too-large", 413


class Refused(AngelError):
    """The request was understood, and is refused."""

    code, status = "refused", 422


class Tampered(AngelError):
    """A hash or signature does not match; nothing was used."""

    code, status = "tampered", 422


class Busy(AngelError):
    """A bounded queue is full; nothing was accepted, try again later."""

    code, status = "busy", 429


class Unavailable(AngelError):
    """A part of the system that this needs is not running."""

    code, status = "unavailable", 503


class ServerState(StrEnum):
    """How far the system behind a server is: `extra["state"]` of that server's `Unavailable`."""

    starting = "starting"
    running = "running"
    not_started = "not-started"
    """It could not start, and trying again will not help."""
    failed = "failed"
    """It ran, and has failed."""


class DeadlineExceeded(AngelError):
    """The answer did not come before the deadline."""

    code, status = "deadline-exceeded", 504


BY_CODE: dict[str, type[AngelError]] = {
    cls.code: cls
    for cls in (
        AngelError,
        InvalidInput,
        Unauthenticated,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        Stale,
        Conflict,
        Fenced,
        HistoryLost,
        TooLarge,
        Refused,
        Tampered,
        Busy,
        Unavailable,
        DeadlineExceeded,
    )
}


def from_problem(body: dict[str, Any]) -> AngelError:
    """Return the error that a problem document describes.

    Args:
        body: The document, decoded. An unknown `code` becomes an `AngelError`.
    """
    cls = BY_CODE.get(str(body.get("code", "")), AngelError)
    detail = str(body.get("detail") or body.get("message") or body.get("title") or "")
    extra = body.get("extra")
    evidence = {str(k): v for k, v in extra.items()} if isinstance(extra, dict) else {}
    for name in ("self", "detail", "hint"):  # parameters of the constructor
        evidence.pop(name, None)
    return cls(detail or None, hint=str(body.get("hint", "")), **evidence)


def first_of(group: ExceptionGroup[Exception]) -> AngelError | None:
    """Return the first `AngelError` of a task group, None if it holds errors of another kind.

    For `except ExceptionGroup`: an error raised inside an `except*` is wrapped in a group again on
    some Pythons (3.11.2, but not 3.11.7), so a caller could not catch it by its class.
    """
    ours, unexpected = group.split(AngelError)
    error: BaseException | None = ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, AngelError) and unexpected is None else None
