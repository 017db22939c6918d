"""Routes of the audit log, below /angelos/api."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping

import msgspec

from angelos.core.api import AuditEntries, AuditEntry, AuditProofView, CheckpointView
from angelos.core.audit import fact_of, read_header
from angelos.core.errors import InvalidInput
from angelos.core.facts import FactView
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Period, Route, period, whole_number
from angelos.governance.log.checkpoint import parse_checkpoint
from angelos.governance.log.models import EntryRow
from angelos.governance.log.notes import parse_note
from angelos.governance.log.service import LogService

MAX_LIMIT = 1_000
_PAGE, _PAGES = 1_000, 8
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}")


def routes(log: LogService) -> list[Route]:
    """Return the routes that read the audit log."""
    reading = AuditRoutes(log)
    read = Permission.audit_read
    return [
        Route(
            "GET",
            "/audit/entries",
            read,
            reading.entries,
            response=AuditEntries,
            query=("kind", "subject", "author", "since", "until", "after", "limit"),
            summary="Entries of the audit log, by index; of a kind, subject, author and time",
        ),
        Route(
            "GET",
            "/audit/entries/{index}/proof",
            read,
            reading.proof,
            response=AuditProofView,
            summary="The proof that an entry is in the signed log",
        ),
        Route(
            "GET",
            "/audit/checkpoint",
            read,
            reading.checkpoint,
            response=CheckpointView,
            summary="A signed checkpoint of everything up to now",
        ),
        Route(
            "GET",
            "/audit/export",
            read,
            reading.export,
            response=bytes,
            media_type="application/jsonl",
            summary="The whole log, for offline verification",
        ),
    ]


class AuditRoutes:
    """The handlers, over one log."""

    def __init__(self, log: LogService) -> None:
        self._log = log

    async def entries(self, call: Call[Nothing]) -> AuditEntries:
        """Return a page of entries."""
        after = whole_number(call, "after", -1, 2**62, low=-1)
        limit = whole_number(call, "limit", 100, MAX_LIMIT)
        within = period(call)
        names = {name: call.query.get(name, "") for name in ("kind", "subject", "author")}
        chosen: list[EntryRow] = []
        for _ in range(_PAGES):
            rows = await self._log.entries(after, _PAGE if any(names.values()) else limit)
            for row in rows:
                if len(chosen) == limit:
                    return _page(chosen, after)
                after = row.index
                if _is_named(row, names, within):
                    chosen.append(row)
            if not rows:
                return _page(chosen, None)
        return _page(chosen, after)

    async def checkpoint(self, call: Call[Nothing]) -> CheckpointView:
        """Return a checkpoint of everything up to now."""
        del call
        signed = await self._log.checkpoint()
        keys = tuple(tuple(key.vkey for key in epoch) for epoch in await self._log.epochs())
        return CheckpointView(
            origin=signed.checkpoint.origin,
            size=signed.checkpoint.size,
            root=signed.checkpoint.root.hex(),
            note=signed.note,
            keys=keys,
        )

    async def export(self, call: Call[Nothing]) -> AsyncGenerator[bytes, None]:
        """Return an export, piece by piece."""
        del call
        return self._log.export()

    async def proof(self, call: Call[Nothing]) -> AuditProofView:
        """Return the proof of an entry."""
        index = call.params["index"]
        if not _INDEX.fullmatch(index):
            raise InvalidInput(f"{index[:40]!r} is not the number of an entry.")
        proved = await self._log.prove(int(index))
        size = parse_checkpoint(parse_note(proved.note).text).size
        return AuditProofView(index=proved.index, size=size, proof=proved.encoded)


def _page(rows: list[EntryRow], after: int | None) -> AuditEntries:
    return AuditEntries(entries=tuple(map(_view, rows)), next=after)


def _is_named(row: EntryRow, names: Mapping[str, str], within: Period) -> bool:
    leaf = read_header(row.body)
    shown = {"kind": leaf.kind, "subject": leaf.subject, "author": leaf.actor}
    return leaf.at in within and all(word in ("", shown[name]) for name, word in names.items())


def _view(row: EntryRow) -> AuditEntry:
    fact = fact_of(row.body, row.data)
    return AuditEntry(
        index=row.index,
        offset=fact.offset,
        body=row.body.decode(),
        leaf=row.leaf.hex(),
        fact=msgspec.to_builtins(FactView.of(fact, commands=True)),
        erased=row.data is None,
    )
