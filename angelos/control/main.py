"""Builds the control plane from its parts; `angelos.wiring` calls it.

async with build(journal, queue, repository, database, keys / "grant.key", signals) as control:
...
"""

from __future__ import annotations

from pathlib import Path

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.identity.keys import load_or_create
from angelos.adapters.stores.postgres import Database
from angelos.control.config import ControlConfig
from angelos.control.service import Control
from angelos.core.ports import Journal, Queue, Repository, Signals


def build(
    journal: Journal,
    queue: Queue,
    repository: Repository,
    database: Database,
    grant_key: Path,
    signals: Signals,
    config: ControlConfig | None = None,
) -> Control:
    """Return a control plane on these parts, by the machine's clock; enter it to start it."""
    key = load_or_create(grant_key)
    return Control(journal, queue, repository, database, key, signals, SystemClock(), config)
