"""metrics.md: every metric, from the table that the page of a running server is made of."""

from __future__ import annotations

from angelos.wiring.monitoring.counters import BUCKETS_S
from angelos.wiring.monitoring.families import FAMILIES
from tools.reference.source import code, head, table

_TOP = f"""\
What `/metrics` of a server and of a node says, in Prometheus's text format. Counters begin with 0
at each start of their process, except `angelos_restarts_total`, which is folded from the journal.
What is not known is left out. Histograms have the buckets
{", ".join(f"{bound:g}" for bound in BUCKETS_S)} seconds. The server's page ends with what
Jupyter Server and the process say of themselves (`http_request_duration_seconds`,
`process_resident_memory_bytes` and others). How to read it:
[monitor](../how-to/monitor.md)."""


def page() -> str:
    """Return the page."""
    rows = [(code(f.name), f.type, ", ".join(map(code, f.labels)) or "-", f.help) for f in FAMILIES]
    return head("Metrics", _TOP) + "\n" + table(("metric", "type", "labels", ""), rows) + "\n"
