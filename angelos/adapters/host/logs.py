"""Logs of a process: lines for people, or JSON for machines.

    configure("json", service="node/exec1")
    log.info("Task %s starts", task)
    # {"time": "2026-11-28T05:00:00.000000Z", "level": "info", "logger": "angelos.node",
    #  "event": "Task task-1 starts", "trace_id": "0af7...", "service": "node/exec1"}

Every line has the id of the trace that the code works for (`core/tracing.py`); the same id is in
the facts, in problem documents and in the header `X-Trace-Id`. Tracebacks have no values of
variables, which may be secrets.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Literal

from angelos.core.tracing import current

if TYPE_CHECKING:
    import structlog

LogFormat = Literal["text", "json"]
OURS = ("angelos", "jupyter_ext")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def json_formatter(service: str = "", **_: object) -> logging.Formatter:
    """Return a formatter that makes each record one line of JSON.

    It takes and ignores what the standard library's `dictConfig` gives to formatters.
    """
    from structlog.processors import JSONRenderer, TimeStamper, format_exc_info
    from structlog.stdlib import ProcessorFormatter, add_log_level, add_logger_name

    def named(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if service:
            event["service"] = service
        if trace := current().trace:
            event["trace_id"] = trace
        return event

    chain: list[structlog.typing.Processor] = [
        TimeStamper(fmt="iso", utc=True, key="time"),
        add_log_level,
        add_logger_name,
        named,
        format_exc_info,
    ]
    return ProcessorFormatter(
        processors=[ProcessorFormatter.remove_processors_meta, JSONRenderer(default=str)],
        foreign_pre_chain=chain,
    )


def configure(form: LogFormat, service: str) -> None:
    """Have this process log to its standard error, from INFO on for our own code."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = json_formatter(service) if form == "json" else logging.Formatter(_TEXT)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(capture=True)


def jupyter_logging(service: str) -> dict[str, Any]:
    """Return the `logging_config` with which Jupyter's applications log as JSON."""
    ours = {"level": "INFO", "handlers": ["console"], "propagate": False}
    return {
        "formatters": {
            "console": {"()": f"{__name__}.json_formatter", "service": service},
        },
        "loggers": dict.fromkeys(OURS, ours),
        "root": {"level": "WARNING", "handlers": ["console"]},
    }
