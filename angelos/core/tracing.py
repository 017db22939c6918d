"""The trace that this code works for, and spans: its steps with their times. Pure.

    with traced(command.trace), span("node.task", task=task.id):
        log.info("Task %s starts", task.id)        # a JSON log has the trace's id in this line

A trace id is 32 hex digits, that of a span 16, as in W3C Trace Context. Spans go to the recorder of
the process, if there is one (`recording`); otherwise they cost next to nothing.

>>> parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
TraceContext(trace='0af7651916cd43dd8448eb211c80319c', span='b7ad6b7169203331')
>>> parse_traceparent("00-00000000000000000000000000000000-b7ad6b7169203331-01")
TraceContext(trace='', span='')
>>> with traced("0af7651916cd43dd8448eb211c80319c"):
...     current().trace
'0af7651916cd43dd8448eb211c80319c'
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol

import msgspec

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_TRACE = re.compile(r"[0-9a-f]{32}")
_SPAN_DIGITS = 16
Attribute = str | int | float | bool


class TraceContext(NamedTuple):
    """Where in which trace this code is; empty texts outside of one."""

    trace: str = ""
    span: str = ""


class TraceSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A step that has ended."""

    name: str
    trace: str
    span: str
    parent: str = ""
    start: float
    """Unix seconds."""
    end: float
    ok: bool = True
    attributes: dict[str, Attribute] = {}


class SpanRecorder(Protocol):
    """Takes spans; must not block."""

    def record(self, span: TraceSpan) -> None:
        """Take one span."""
        ...

    def began(self, subject: str, context: TraceContext) -> None:
        """Note under which span the work on a task or proposal began."""
        ...


_NOWHERE = TraceContext()
_context: ContextVar[TraceContext] = ContextVar("trace", default=_NOWHERE)


class _Process:
    """What this process does with spans, as it has one root logger.

    It is no context variable: Jupyter accepts connections in contexts older than the system.
    """

    recorder: SpanRecorder | None = None


def current() -> TraceContext:
    """Return where this code is."""
    return _context.get()


def is_trace(text: str) -> bool:
    """Return whether a text is a trace id."""
    return _TRACE.fullmatch(text) is not None and set(text) != {"0"}


def parse_traceparent(header: str) -> TraceContext:
    """Return what a `traceparent` header says; nothing if it has another form."""
    match = _TRACEPARENT.fullmatch(header.strip())
    if match is None or not is_trace(match[1]) or set(match[2]) == {"0"}:
        return TraceContext()
    return TraceContext(match[1], match[2])


def traceparent() -> str:
    """Return the header that continues the present trace elsewhere; empty outside of one."""
    trace, span = _context.get()
    return f"00-{trace}-{span or span_of(trace)}-01" if is_trace(trace) else ""


def span_of(trace: str, *names: str) -> str:
    """Return the span id that follows from a trace and names, wherever it is computed.

    >>> span_of("0af7651916cd43dd8448eb211c80319c", "task-1")
    '1a4e4494bb15da72'
    """
    return hashlib.sha256("\n".join((trace, *names)).encode()).hexdigest()[:_SPAN_DIGITS]


@contextmanager
def traced(trace: str, span: str = "") -> Iterator[None]:
    """Work for a trace inside the `with`, and in the asyncio tasks that are started there."""
    token = _context.set(TraceContext(trace, span))
    try:
        yield
    finally:
        _context.reset(token)


@contextmanager
def recording(recorder: SpanRecorder | None) -> Iterator[None]:
    """Have the spans of this process go to a recorder."""
    before, _Process.recorder = _Process.recorder, recorder
    try:
        yield
    finally:
        _Process.recorder = before


@contextmanager
def span(name: str, **attributes: Attribute) -> Iterator[None]:
    """Record what is done inside the `with` as a step of the present trace."""
    recorder, context = _Process.recorder, _context.get()
    if recorder is None or not is_trace(context.trace):
        yield
        return
    identity = secrets.token_hex(_SPAN_DIGITS // 2)
    start, begin, ok = time.time(), time.monotonic(), False
    try:
        with traced(context.trace, identity):
            yield
        ok = True
    finally:
        recorder.record(
            TraceSpan(
                name=name,
                trace=context.trace,
                span=identity,
                parent=context.span,
                start=start,
                end=start + time.monotonic() - begin,
                ok=ok,
                attributes=attributes,
            )
        )


def began(subject: str) -> None:
    """Note that the work on a task or proposal begins here."""
    recorder, context = _Process.recorder, _context.get()
    if recorder is not None and context.span:
        recorder.began(subject, context)
