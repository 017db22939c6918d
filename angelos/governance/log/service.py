"""The audit log at work: takes what lasts of the journal, signs it, proves it, checks it.

Four tasks: one reads the journal into a bounded queue, one writes batches from it, one signs when
entries are waiting and asks the witnesses, and one checks at leisure what was signed in earlier
lives. While a store is away they wait for it; no fact is skipped.

    async with LogService(journal, database, signer, clock) as audit:
        proof = await audit.prove(17)
        lines = [piece async for piece in audit.export()]
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol, Self

import msgspec

from angelos.adapters.host.endless import FAILURES
from angelos.adapters.stores.postgres import Database
from angelos.core.errors import AngelError, Tampered, Unavailable
from angelos.core.facts import AuditAccepted, AuditDamaged, AuditKey, Fact
from angelos.core.ids import START, FactId, Offset, PrincipalId, offset_key
from angelos.core.ports import Clock, Journal
from angelos.core.snapshots import LogPoint
from angelos.governance.config import GovernanceConfig
from angelos.governance.log.checkpoint import KeyEpoch
from angelos.governance.log.models import EntryRow, NewEntry, Signed, new_entry
from angelos.governance.log.pages import export
from angelos.governance.log.proof import InclusionProof
from angelos.governance.log.rows import REPAIR
from angelos.governance.log.store import AuditStore, Signer
from angelos.governance.retry import RETRY_S, retried

log = logging.getLogger(__name__)

ME = PrincipalId("system/governance")


class KeyKeeper(Protocol):
    """Keeps the log's public keys where a verifier on this host looks for them."""

    def __call__(self, epochs: Sequence[KeyEpoch]) -> None:
        """Keep these keys, all that ever signed."""
        ...


class Witnesses(Protocol):
    """Cosigners on other hosts."""

    async def cosign(self, signed: Signed, store: AuditStore) -> str:
        """Return the note with every cosignature that came, or an empty text if none did."""
        ...


class LogHooks(NamedTuple):
    """What else happens when the log moves; each may be left out."""

    witnesses: Witnesses | None = None
    """Asked for cosignatures of each checkpoint."""
    keep_keys: KeyKeeper | None = None
    """Called when the signer has new keys."""


class LogService:
    """The immutable log of what happened.

    Args:
        journal: Its facts are the entries.
        database: Migrated.
        signer: Whoever holds the log's keys.
        clock: For the times of checkpoints.
        config: Sizes and times.
        hooks: What else happens.
    """

    def __init__(
        self,
        journal: Journal,
        database: Database,
        signer: Signer,
        clock: Clock,
        config: GovernanceConfig | None = None,
        *,
        hooks: LogHooks | None = None,
    ) -> None:
        self._journal = journal
        self._store = AuditStore(database)
        self._signer = signer
        self._clock = clock
        self._config = config or GovernanceConfig()
        self._hooks = hooks or LogHooks()
        self._announced: KeyEpoch = ()
        self._facts: asyncio.Queue[Fact] = asyncio.Queue(maxsize=2 * self._config.batch)
        self._projected = START
        self._size = 0
        self._progress = asyncio.Condition()
        self._due = asyncio.Event()
        self._signing = asyncio.Lock()
        self._last_signed: Signed | None = None
        self._ended: AngelError | None = None
        """Why the log takes no more facts."""
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Check the last checkpoint and what came since, then start.

        What it signs for is checked while the log works, which takes longer the longer it is. A
        log that was tampered with takes no more entries, and a fact says so.
        """
        try:
            signed = await self._store.check()
        except Tampered as error:
            await self._damaged(error)
            return self
        self._last_signed = signed
        await self._say_accepted()
        await self._announce()
        head = await self._store.head()
        self._projected, self._size = head.offset, head.tree.size
        for work in (self._read(head.offset), self._write()):
            self._start(work, keeps_log=True)
        self._start(self._sign_on(), keeps_log=False)
        if signed is not None:
            self._start(self._check_all(signed), keeps_log=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Take the last facts into the log, sign it, and end.

        What a store that is away holds up is taken at the next start.
        """
        try:
            async with asyncio.timeout(self._config.settle_s):
                await self.settled(await self._journal.last())
        except (Unavailable, Tampered, TimeoutError) as error:
            log.warning("the last facts are not in the audit log yet: %s", error or "no time")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._ended is None:
            with contextlib.suppress(Unavailable, Tampered):
                await self._sign()

    @property
    def position(self) -> Offset:
        """The offset up to which all that lasts is in the log."""
        return self._projected

    async def settled(self, offset: Offset) -> None:
        """Wait until every fact up to `offset` is in the log.

        Raises:
            Tampered: The log was tampered with and takes no more facts.
            Unavailable: The log takes no more facts for another reason.
        """
        goal = offset_key(offset)
        async with self._progress:
            await self._progress.wait_for(
                lambda: self._ended is not None or offset_key(self._projected) >= goal
            )
        self._raise_ended(unless=offset_key(self._projected) >= goal)

    async def checkpoint(self) -> Signed:
        """Return a checkpoint that covers everything in the journal now."""
        await self.settled(await self._journal.last())
        return await self._sign()

    async def point(self, offset: Offset) -> LogPoint:
        """Return a signed point of the log that covers every lasting fact up to `offset`."""
        await self.settled(offset)
        return LogPoint(*(await self._sign()).checkpoint)

    async def holds(self, point: LogPoint) -> bool:
        """Return whether the log still has, and signs for, a point."""
        return self._ended is None and await self._store.holds(point)

    async def entries(self, after: int, limit: int) -> list[EntryRow]:
        """Return at most `limit` entries whose index is over `after`."""
        return await self._store.entries(after, limit)

    async def epochs(self) -> list[KeyEpoch]:
        """Return the keys that ever signed, in order."""
        return await self._store.epochs()

    async def prove(self, index: int) -> InclusionProof:
        """Return the proof that an entry is in the newest signed tree that holds it.

        Raises:
            InvalidInput: There is no such entry.
            Tampered: The stored entry or hashes are not those that were signed.
        """
        signed = self._last_signed
        if signed is None or index >= signed.checkpoint.size:
            signed = await self.checkpoint()
        proof = await self._store.prove(index, signed)
        proof.verify_in(signed.checkpoint)  # whose signatures were verified when it came
        return proof

    async def export(self) -> AsyncGenerator[bytes, None]:
        """Yield an export of everything in the journal now, in pieces of whole lines.

        At most one page of the log is held at once, however long the log is.
        """
        if isinstance(self._ended, Tampered):
            origin, size = await self._store.extent()  # a verifier then names what is wrong
        else:
            origin, size, _ = (await self.checkpoint()).checkpoint
        page = self._config.export_page
        async with aclosing(export(self._store, origin, size, page)) as pieces:
            async for piece in pieces:
                yield piece

    # -- the tasks ---------------------------------------------------------------------------

    async def _read(self, after: Offset) -> None:
        async for fact in self._journal.follow(after):
            await self._facts.put(fact)

    async def _write(self) -> None:
        while True:
            batch = [await self._facts.get()]
            while len(batch) < self._config.batch and not self._facts.empty():
                batch.append(self._facts.get_nowait())
            # Hashing a large batch would hold up whoever else has this loop.
            entries = await asyncio.to_thread(_entries_of, batch)
            head = await retried(lambda: self._store.project(batch, entries))  # noqa: B023
            async with self._progress:
                self._projected, self._size = head.offset, head.tree.size
                self._progress.notify_all()
            if self._unsigned() >= self._config.checkpoint_entries:
                self._due.set()

    async def _sign_on(self) -> None:
        """Sign as long as the log grows: whatever fails but for damage is tried again."""
        while self._ended is None:
            try:
                await self._sign_often()
            except Tampered:
                raise
            except Exception:
                log.critical("the audit log is not signed; trying again", exc_info=True)
                FAILURES["signing of the audit log"] += 1
                await asyncio.sleep(RETRY_S[-1])

    async def _sign_often(self) -> None:
        while True:
            # Not asyncio.wait_for, which before Python 3.12 may swallow a cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.checkpoint_every_s):
                    await self._due.wait()
            self._due.clear()
            if self._unsigned():
                signed = await retried(self._sign)
                await self._cosign(signed)

    async def _sign(self) -> Signed:
        self._raise_ended()
        async with self._signing:
            previous = self._last_signed.checkpoint if self._last_signed else None
            signed = await self._store.sign(self._clock.time(), previous, self._signer)
            self._last_signed = signed
        await self._announce()
        return signed

    async def _announce(self) -> None:
        """Say in the log which keys sign it, when they are new; the fact is signed by them."""
        epoch = self._signer.epoch
        if epoch == self._announced:
            return
        origin, earlier = epoch[0].name, await self._store.epochs()
        if self._hooks.keep_keys is not None:
            self._hooks.keep_keys([*earlier, *([] if epoch in earlier else [epoch])])
        if epoch not in earlier:
            vkeys = tuple(key.vkey for key in epoch)
            digest = hashlib.sha256("\n".join(vkeys).encode()).hexdigest()
            payload = AuditKey(digest=digest, vkeys=vkeys, lasting=self._signer.lasting)
            fact = Fact.of(payload, at=self._clock.time(), actor=ME, subject=origin)
            await self._journal.append([fact])
        self._announced = epoch

    async def _cosign(self, signed: Signed) -> None:
        if self._hooks.witnesses is None:
            return
        note = await self._hooks.witnesses.cosign(signed, self._store)
        if note:
            await retried(lambda: self._store.add_cosigned(signed.checkpoint, note))
            if self._last_signed is signed:
                self._last_signed = msgspec.structs.replace(signed, note=note)

    async def _check_all(self, signed: Signed) -> None:
        await retried(lambda: self._store.check_all(signed))

    def _unsigned(self) -> int:
        return self._size - (self._last_signed.checkpoint.size if self._last_signed else 0)

    def _raise_ended(self, *, unless: bool = False) -> None:
        if self._ended is not None and not unless:
            raise type(self._ended)(self._ended.detail, hint=self._ended.hint) from self._ended

    def _start(self, work: Coroutine[Any, Any, None], *, keeps_log: bool) -> None:
        self._tasks.append(asyncio.create_task(self._guarded(work, keeps_log=keeps_log)))

    async def _guarded(self, work: Coroutine[Any, Any, None], *, keeps_log: bool) -> None:
        """Let one task fail loudly and the others continue: an unsigned log still grows."""
        try:
            await work
        except Tampered as error:
            await self._damaged(error)
        except Exception:
            log.critical("a task of the audit log failed", exc_info=True)
            if keeps_log:
                hint = "See the server's log."
                await self._end(Unavailable("The audit log takes no more facts.", hint=hint))

    async def _damaged(self, error: Tampered) -> None:
        """Take no more entries, and say why in the journal, where nothing is promoted then."""
        log.critical("the audit log was tampered with; nothing is signed", exc_info=error)
        await self._end(Tampered(error.detail, hint=error.hint or REPAIR))
        digest = hashlib.sha256(f"audit.damaged {error.detail}".encode()).hexdigest()
        fact = Fact.of(
            AuditDamaged(detail=error.detail),
            id=FactId(f"fact-{digest[:24]}{int(self._clock.time()):08x}"),
            at=self._clock.time(),
            actor=ME,
            subject="system/audit",
        )
        await retried(lambda: self._journal.append([fact]))

    async def _say_accepted(self) -> None:
        """Say that a person has accepted damage, at the first start of the log that goes on."""
        accepted = await self._store.accepted()
        if accepted is None:
            return
        payload = AuditAccepted(
            previous=accepted.previous,
            reason=accepted.reason,
            size=accepted.size,
            left_out=accepted.left_out,
            evidence=accepted.evidence,
        )
        digest = hashlib.sha256(f"audit.accepted {accepted.origin}".encode()).hexdigest()
        fact = Fact.of(
            payload,
            id=FactId(f"fact-{digest[:32]}"),
            at=accepted.at,
            actor=ME,
            subject=accepted.origin,
        )
        await self._journal.append([fact])

    async def _end(self, error: AngelError) -> None:
        self._ended = error
        async with self._progress:
            self._progress.notify_all()


def _entries_of(facts: Sequence[Fact]) -> list[NewEntry]:
    return [entry for fact in facts if (entry := new_entry(fact)) is not None]
