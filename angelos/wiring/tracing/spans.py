"""Makes spans from facts: both roads, as their facts say they went. Pure but for its memory.

    spans = FactSpans()
    for span in spans.note(fact, began=TraceContext()):
        recorder.record(span)

A task is one span from `task.accepted` to `task.finished`, with its wait and its run below; a
proposal one from `proposal.received` to its end, with candidate, tests, review, promotion and the
checkouts of the new main. Ids follow from the trace and the subject (`core.tracing.span_of`), so
what a node records of a task hangs below it without another word in any message.

What was under way when this process started has no spans; what is remembered is bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from angelos.core.facts import Fact, Kind, TaskAccepted
from angelos.core.messages import Status
from angelos.core.tracing import Attribute, TraceContext, TraceSpan, is_trace, span_of

T = TypeVar("T")
_MOST = 10_000
_STAGES: dict[str, str] = {
    Kind.proposal_merged: "proposal.merge",
    Kind.proposal_testing: "proposal.candidate",
    Kind.proposal_tested: "proposal.tests",
    Kind.proposal_approved: "proposal.review",
    Kind.proposal_promoted: "proposal.promote",
}
"""What has ended when a fact of this kind comes."""
_ENDS = frozenset({Kind.proposal_promoted, Kind.proposal_rejected, Kind.proposal_refused})


@dataclass
class _Open:
    """A task or proposal under way."""

    trace: str
    parent: str
    start: float
    mark: float
    """When its last stage ended."""
    tests: str = ""
    """Of a proposal: the span of the tests that run now."""


class FactSpans:
    """Remembers what is under way, and returns the spans that a fact ends."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._mains: OrderedDict[str, TraceContext] = OrderedDict()
        """By revision of a main, the proposal's span that made it."""

    def note(self, fact: Fact, began: TraceContext | None = None) -> list[TraceSpan]:
        """Return the spans that end with a fact.

        Args:
            fact: From the journal, in order.
            began: Under which span its subject was asked for, if that is known.
        """
        if fact.kind.startswith("checkout."):
            return list(self._checkout(fact))
        if not is_trace(fact.trace):
            return []
        if fact.kind.startswith("task."):
            return list(self._task(fact, began))
        if fact.kind.startswith("proposal."):
            return list(self._proposal(fact, began))
        return []

    def _begin(self, fact: Fact, parent: str) -> _Open:
        opened = _Open(fact.trace, parent, fact.at, fact.at)
        _put(self._open, fact.subject, opened)
        return opened

    def _task(self, fact: Fact, began: TraceContext | None) -> Iterator[TraceSpan]:
        task = self._open.get(fact.subject)
        if fact.kind == Kind.task_accepted:
            payload = fact.payload()
            proposal = payload.proposal if isinstance(payload, TaskAccepted) else ""
            tested = self._open.get(proposal)
            parent = tested.tests if tested is not None else _parent(fact, began)
            self._begin(fact, parent)
        elif task is None:
            return
        elif fact.kind == Kind.task_started:
            yield _step(fact, task, "task.queued", span_of(task.trace, fact.id, "queued"))
            task.mark = fact.at
        elif fact.kind == Kind.task_finished:
            ok = fact.outcome == Status.ok
            attributes: dict[str, Attribute] = {
                "task": fact.subject,
                "status": fact.outcome,
                "node": str(fact.actor),
            }
            yield _step(fact, task, "task.run", span_of(task.trace, fact.id, "run"), ok=ok)
            yield _whole(fact, task, "task", attributes, ok=ok)
            del self._open[fact.subject]

    def _proposal(self, fact: Fact, began: TraceContext | None) -> Iterator[TraceSpan]:
        proposal = self._open.get(fact.subject)
        if proposal is None:
            if fact.kind not in {Kind.proposal_received, Kind.proposal_refused}:
                return
            proposal = self._begin(fact, _parent(fact, began))
        if name := _STAGES.get(fact.kind):
            ok = fact.outcome != "failed"
            identity = proposal.tests or span_of(proposal.trace, fact.id, name)
            yield _step(fact, proposal, name, identity, ok=ok)
            proposal.tests = ""
        if fact.kind == Kind.proposal_testing:
            proposal.tests = span_of(fact.trace, fact.subject, fact.id)
        proposal.mark = fact.at
        if fact.kind in _ENDS:
            promoted = fact.kind == Kind.proposal_promoted
            if promoted and fact.revision:
                identity = span_of(proposal.trace, fact.subject)
                _put(self._mains, fact.revision, TraceContext(proposal.trace, identity))
            end = fact.kind.partition(".")[2]
            attributes: dict[str, Attribute] = {"proposal": fact.subject, "end": end}
            yield _whole(fact, proposal, "proposal", attributes, ok=promoted)
            del self._open[fact.subject]

    def _checkout(self, fact: Fact) -> Iterator[TraceSpan]:
        """Yield how long a node took to have a new main in force."""
        main = self._mains.get(fact.revision or "")
        if main is None:
            return
        key = f"{fact.subject} {fact.revision}"
        if fact.kind == Kind.checkout_requested:
            _put(self._open, key, _Open(main.trace, main.span, fact.at, fact.at))
        elif (opened := self._open.pop(key, None)) is not None:
            ok = fact.kind == Kind.checkout_healthy
            yield TraceSpan(
                name="checkout",
                trace=opened.trace,
                span=span_of(opened.trace, fact.id),
                parent=opened.parent,
                start=opened.start,
                end=max(opened.start, fact.at),
                ok=ok,
                attributes={"node": fact.subject},
            )


def _parent(fact: Fact, began: TraceContext | None) -> str:
    return began.span if began is not None and began.trace == fact.trace else ""


def _step(fact: Fact, opened: _Open, name: str, identity: str, *, ok: bool = True) -> TraceSpan:
    """Return the span of a stage of something under way."""
    return TraceSpan(
        name=name,
        trace=opened.trace,
        span=identity,
        parent=span_of(opened.trace, fact.subject),
        start=min(opened.mark, fact.at),
        end=fact.at,
        ok=ok,
    )


def _whole(
    fact: Fact, opened: _Open, name: str, attributes: dict[str, Attribute], *, ok: bool
) -> TraceSpan:
    """Return the span of a task or proposal that has ended."""
    return TraceSpan(
        name=name,
        trace=opened.trace,
        span=span_of(opened.trace, fact.subject),
        parent=opened.parent,
        start=min(opened.start, fact.at),
        end=fact.at,
        ok=ok,
        attributes=attributes,
    )


def _put(memory: OrderedDict[str, T], key: str, value: T) -> None:
    memory[key] = value
    while len(memory) > _MOST:
        memory.popitem(last=False)
