"""Spans from facts, the headers that carry a trace, and logs as JSON."""

from __future__ import annotations

import io
import json
import logging
import logging.config

import msgspec
import pytest

from angelos.adapters.host.logs import json_formatter, jupyter_logging
from angelos.core.errors import InvalidInput
from angelos.core.facts import Fact, Kind, TaskAccepted
from angelos.core.ids import CommandId, PrincipalId
from angelos.core.tracing import (
    TraceContext,
    TraceSpan,
    current,
    parse_traceparent,
    recording,
    span,
    span_of,
    traced,
    traceparent,
)
from angelos.testing import make_fact
from angelos.wiring.settings import load_log
from angelos.wiring.tracing import spans
from angelos.wiring.tracing.export import exporting
from angelos.wiring.tracing.spans import FactSpans

TRACE = "0af7651916cd43dd8448eb211c80319c"
NODE = PrincipalId("node/exec1")


class Kept:
    """A recorder that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[TraceSpan] = []
        self.subjects: dict[str, TraceContext] = {}

    def record(self, span: TraceSpan) -> None:
        self.spans.append(span)

    def began(self, subject: str, context: TraceContext) -> None:
        self.subjects[subject] = context


def fact(kind: str, subject: str, at: float, **fields) -> Fact:
    return msgspec.structs.replace(make_fact(kind, subject, trace=TRACE, **fields), at=at)


def accepted(subject: str, at: float, proposal: str = "") -> Fact:
    payload = TaskAccepted(
        command=CommandId("cmd-1"), request="", node=NODE, wall_s=1, deadline=9, proposal=proposal
    )
    made = Fact.of(payload, at=at, actor=NODE, subject=subject)
    return msgspec.structs.replace(made, trace=TRACE)


@pytest.mark.parametrize(
    "header",
    [
        "", "00", f"00-{TRACE}-b7ad6b7169203331", f"01-{TRACE}-b7ad6b7169203331-01",
        f"00-{TRACE.upper()}-b7ad6b7169203331-01", f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-b7ad6b7169203331-01-x", "x" * 10_000,
    ],
)  # fmt: skip
def test_a_header_of_another_form_starts_a_trace_of_its_own(header):
    assert parse_traceparent(header) == TraceContext()


def test_a_trace_goes_on_where_its_header_arrives():
    with traced(TRACE, "b7ad6b7169203331"):
        header = traceparent()
    assert parse_traceparent(header) == TraceContext(TRACE, "b7ad6b7169203331")
    assert traceparent() == ""
    with traced("no trace of ours"):
        assert traceparent() == ""


def test_spans_nest_and_tell_of_failures():
    recorder = Kept()
    with recording(recorder), traced(TRACE), span("outer", task="task-1"):
        with pytest.raises(InvalidInput), span("inner"):
            raise InvalidInput("no")
        assert current().span
    inner, outer = recorder.spans
    assert (inner.name, inner.ok, inner.parent) == ("inner", False, outer.span)
    assert (outer.ok, outer.parent, outer.attributes) == (True, "", {"task": "task-1"})
    assert outer.start <= inner.start <= inner.end
    with span("nobody records it"), traced("odd"), span("nor this"):
        pass
    assert len(recorder.spans) == 2


def test_a_task_is_a_tree_of_spans():
    made = FactSpans()
    assert made.note(accepted("task-1", 10.0), TraceContext(TRACE, "a" * 16)) == []
    (queued,) = made.note(fact(Kind.task_started, "task-1", 12.0))
    run, task = made.note(fact(Kind.task_finished, "task-1", 15.0, outcome="oom"))
    assert (queued.start, queued.end, run.start, run.end) == (10, 12, 12, 15)
    assert (task.start, task.end, task.ok, run.ok, queued.ok) == (10, 15, False, False, True)
    assert task.parent == "a" * 16
    assert task.span == queued.parent == run.parent == span_of(TRACE, "task-1")
    assert made.note(fact(Kind.task_finished, "task-1", 16.0)) == []  # it has ended


def test_a_proposal_is_a_tree_with_its_tests_and_its_rollout():
    made, got = FactSpans(), []
    for number, item in enumerate(
        [
            fact(Kind.proposal_received, "prop-1", 1),
            fact(Kind.proposal_testing, "prop-1", 2, revision="c1"),
            accepted("task-1", 2.5, proposal="prop-1"),
            fact(Kind.task_started, "task-1", 3),
            fact(Kind.task_finished, "task-1", 4, outcome="ok"),
            fact(Kind.proposal_tested, "prop-1", 5, outcome="passed"),
            fact(Kind.proposal_waiting, "prop-1", 6),
            fact(Kind.proposal_approved, "prop-1", 16),
            fact(Kind.proposal_promoted, "prop-1", 17, revision="m2"),
            fact(Kind.checkout_requested, "node/labs1", 18, revision="m2"),
            fact(Kind.checkout_healthy, "node/labs1", 20, revision="m2"),
            fact(Kind.checkout_requested, "node/labs1", 21, revision="elsewhere"),
        ]
    ):
        got += made.note(item, TraceContext("f" * 32, "b" * 16) if number == 0 else None)
    one = {item.name: item for item in got}
    root = span_of(TRACE, "prop-1")
    assert one["proposal"].parent == ""  # it began in another trace
    assert (one["proposal"].span, one["proposal"].end, one["proposal"].ok) == (root, 17, True)
    assert one["task"].parent == one["proposal.tests"].span
    assert (one["proposal.review"].start, one["proposal.review"].end) == (6, 16)
    assert {
        one[name].parent
        for name in ("proposal.candidate", "proposal.tests", "proposal.promote", "checkout")
    } == {root}
    assert (one["checkout"].start, one["checkout"].end) == (18, 20)


def test_facts_out_of_place_make_no_spans_and_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(spans, "_MOST", 10)
    made = FactSpans()
    for kind in Kind:
        assert made.note(make_fact(kind, "x")) == []  # without a trace
    for kind in set(Kind) - {Kind.task_accepted, Kind.proposal_received, Kind.proposal_refused}:
        assert made.note(fact(kind, "y", 1.0)) == []  # what began before this process
    for number in range(100):
        made.note(accepted(f"task-{number}", 1.0))
    assert len(made._open) == 10
    assert made.note(fact(Kind.task_finished, "task-1", 2.0)) == []
    assert len(made.note(fact(Kind.task_finished, "task-99", 0.5))) == 2  # a clock set back
    refused = made.note(fact(Kind.proposal_refused, "prop-9", 3.0))
    assert [(item.name, item.ok) for item in refused] == [("proposal", False)]


def test_a_line_is_one_object_with_the_trace_and_without_values_of_variables():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(json_formatter("node/exec1", format="%(x)s", datefmt=None, style="%"))
    log = logging.getLogger("angelos.test_lines")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    secret = "hunter2"
    with traced(TRACE):
        log.info("two\nlines %s", {"a": 1})
        try:
            int(secret[:0] + "x" * len(secret))
        except ValueError:
            log.exception("it failed")
    log.warning("no trace")
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["trace_id"]) == ("two\nlines {'a': 1}", TRACE)
    assert (first["service"], first["logger"], first["level"]) == (
        "node/exec1", "angelos.test_lines", "info",
    )  # fmt: skip
    assert "ValueError" in second["exception"]
    assert secret not in second["exception"]
    assert "trace_id" not in third
    log.removeHandler(handler)


def test_jupyters_configuration_is_one_that_the_standard_library_takes(capsys):
    config = jupyter_logging("server")
    console = {"class": "logging.Formatter", "format": "%(message)s"} | config["formatters"].pop(
        "console"
    )
    logging.config.dictConfig(
        {
            "version": 1, "disable_existing_loggers": False, "formatters": {"console": console},
            "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "console"}},
            "loggers": {"angelos.test_jupyter": config["loggers"]["angelos"]},
        }
    )  # fmt: skip
    logging.getLogger("angelos.test_jupyter").info("hello")
    assert json.loads(capsys.readouterr().err)["service"] == "server"


def test_the_format_and_the_traces_are_settings():
    assert load_log({}) == load_log({"ANGELOS_LOG_FORMAT": ""})
    assert load_log({"ANGELOS_LOG_FORMAT": "JSON"}).format == "json"
    assert load_log({"ANGELOS_LOG_FORMAT": "json"}, "text").format == "text"
    with pytest.raises(InvalidInput, match="text or json"):
        load_log({"ANGELOS_LOG_FORMAT": "xml"})
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
    assert load_log(endpoint).traces
    assert not load_log(endpoint | {"OTEL_SDK_DISABLED": "true"}).traces
    assert not load_log({}).traces


async def test_traces_without_the_extra_are_a_warning_and_no_failure(monkeypatch, caplog):
    monkeypatch.setitem(
        __import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None
    )
    async with exporting("angelos-node", "exec1", wanted=True) as recorder:
        assert recorder is None
    assert "angelos[otel]" in caplog.text
    async with exporting("angelos-node", "exec1", wanted=False) as recorder:
        assert recorder is None
