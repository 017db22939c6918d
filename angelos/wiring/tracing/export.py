"""Sends spans to an OpenTelemetry collector: the extra `angelos[otel]`.

    async with exporting("angelos-server", wanted=True) as recorder:
        ...

Where to, and which share of the traces, say OpenTelemetry's own variables
(OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, ...). A collector that does not answer costs
nothing but its spans: the queue is bounded and a thread of its own sends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from angelos import __version__
from angelos.core.tracing import TraceContext, TraceSpan, recording

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)
_MOST = 10_000
_NANO = 1_000_000_000


class OtelRecorder:
    """A `SpanRecorder` that hands spans to OpenTelemetry's SDK.

    Args:
        service: The name of the service.
        instance: Which one of them.
        exporter: Sends the spans.
    """

    def __init__(self, service: str, instance: str, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._resource = Resource.create(
            {
                "service.name": service,
                "service.instance.id": instance,
                "service.version": __version__,
            }
        )
        self._sampler = TracerProvider(resource=self._resource, shutdown_on_exit=False).sampler
        self._processor = BatchSpanProcessor(exporter)
        self._began: OrderedDict[str, TraceContext] = OrderedDict()

    def record(self, span: TraceSpan) -> None:
        """Take one span; a thread sends it."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

        trace = int(span.trace, 16)
        sampled = self._sampler.should_sample(None, trace, span.name).decision.is_sampled()
        if not sampled:
            return
        flags = TraceFlags(TraceFlags.SAMPLED)

        def context(identity: str) -> SpanContext:
            return SpanContext(trace, int(identity, 16), is_remote=False, trace_flags=flags)

        self._processor.on_end(
            ReadableSpan(
                name=span.name,
                context=context(span.span),
                parent=context(span.parent) if span.parent else None,
                resource=self._resource,
                attributes=span.attributes,
                status=Status(StatusCode.OK if span.ok else StatusCode.ERROR),
                start_time=int(span.start * _NANO),
                end_time=int(span.end * _NANO),
            )
        )

    def began(self, subject: str, context: TraceContext) -> None:
        """Note under which span the work on a task or proposal began: the first counts."""
        self._began.setdefault(subject, context)
        while len(self._began) > _MOST:
            self._began.popitem(last=False)

    def origin(self, subject: str) -> TraceContext | None:
        """Return under which span the work on a subject began, if it was in this process."""
        return self._began.pop(subject, None)

    def close(self) -> None:
        """Send what waits, for some seconds at most."""
        self._processor.shutdown()


@asynccontextmanager
async def exporting(
    service: str, instance: str, *, wanted: bool
) -> AsyncIterator[OtelRecorder | None]:
    """Record the spans of this process and send them; None where nobody wants them."""
    recorder = _open(service, instance) if wanted else None
    try:
        with recording(recorder):
            yield recorder
    finally:
        if recorder is not None:
            await asyncio.to_thread(recorder.close)


def _open(service: str, instance: str) -> OtelRecorder | None:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        log.warning(
            "Traces are asked for (OTEL_EXPORTER_OTLP_ENDPOINT), but OpenTelemetry is missing. "
            "Run: pip install 'angelos[otel]'"
        )
        return None
    return OtelRecorder(service, instance, OTLPSpanExporter())
