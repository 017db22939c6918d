"""Routes of the audit log, below /angelos/api."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec

from angelos.core.api import AuditEntries, AuditEntry, CheckpointView
from angelos.core.facts import Fact, FactView
from angelos.core.messages import decode
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route, whole_number
from angelos.governance.service import Governance
from angelos.governance.store import EntryRow

MAX_LIMIT = 1_000


def routes(governance: Governance) -> list[Route]:
    """Return the routes that read the audit log."""

    async def entries(call: Call[Nothing]) -> AuditEntries:
        after = whole_number(call, "after", -1, 2**62, low=-1)
        limit = whole_number(call, "limit", 100, MAX_LIMIT)
        return AuditEntries(entries=tuple(map(_view, await governance.entries(after, limit))))

    async def checkpoint(_: Call[Nothing]) -> CheckpointView:
        signed = await governance.checkpoint()
        return CheckpointView(
            size=signed.checkpoint.size,
            root=signed.checkpoint.root.hex(),
            note=signed.note,
            key=governance.key.raw,
        )

    async def export(_: Call[Nothing]) -> AsyncGenerator[bytes, None]:
        return governance.export()

    read = Permission.audit_read
    return [
        Route(
            "GET",
            "/audit/entries",
            read,
            entries,
            response=AuditEntries,
            query=("after", "limit"),
            summary="Entries of the audit log, by index",
        ),
        Route(
            "GET",
            "/audit/checkpoint",
            read,
            checkpoint,
            response=CheckpointView,
            summary="A signed checkpoint of everything up to now",
        ),
        Route(
            "GET",
            "/audit/export",
            read,
            export,
            response=bytes,
            media_type="application/jsonl",
            summary="The whole log, for offline verification",
        ),
    ]


def _view(row: EntryRow) -> AuditEntry:
    return AuditEntry(
        index=row.index,
        offset=row.offset,
        body=row.body,
        leaf=row.leaf.hex(),
        fact=msgspec.to_builtins(FactView.of(decode(row.body, Fact), commands=True)),
    )
