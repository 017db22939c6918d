"""Memory at work: remember, recall, correct, forget.

    remember   gate -> embed -> the same is there ? confirm it : add it
    recall     embed -> nearest by vector, best by words -> fused ranks, weighted by age
    correct    the new text in the place of the old, which is kept with its dates
    forget     first the tombstone in the journal and in a file, then the rows; so a crash in
               between, a database that is older than the journal, or a backup that is older than
               both ends the same way at the next start

A fact about a memory names its id, its namespace and its sources, never its text: what is forgotten
is in no log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Self

import msgspec

from angelos.adapters.host.endless import endless
from angelos.adapters.stores.postgres import Database
from angelos.core.errors import AngelError, Conflict, Forbidden, InvalidInput, NotFound, Refused
from angelos.core.facts import (
    Fact,
    FactPayload,
    Kind,
    MemoryForgotten,
    MemoryRefused,
    MemoryRemembered,
    MemorySuperseded,
)
from angelos.core.ids import START, CommandId, PrincipalId, fact_of, offset_key
from angelos.core.memories import (
    SHARED,
    Consolidate,
    Consolidated,
    Correct,
    Embedder,
    ForgetCause,
    Forgotten,
    MemoryHit,
    MemoryId,
    MemoryPage,
    MemoryStats,
    MemoryView,
    Recall,
    Recalled,
    Remember,
    Remembered,
    SupersedeCause,
    is_namespace,
    new_memory_id,
)
from angelos.core.permissions import Principal
from angelos.core.policy.engine import Policy, Request
from angelos.core.ports import Clock, Journal
from angelos.memory.config import MemoryConfig
from angelos.memory.gate import figures, junk, normal
from angelos.memory.ranking import Ranks, decay, ranked
from angelos.memory.store import Draft, MemoryStore, Version
from angelos.memory.tombstones import TombstoneFile

log = logging.getLogger(__name__)
ME = PrincipalId("system/memory")
_PAGE = 500
_NEAR = 5


class MemoryService:
    """The memories of everybody, in one database."""

    def __init__(
        self,
        database: Database,
        journal: Journal,
        clock: Clock,
        policy: Policy,
        embedder: Embedder,
        config: MemoryConfig | None = None,
        tombstones: TombstoneFile | None = None,
    ) -> None:
        self._config = config or MemoryConfig()
        self._store = MemoryStore(database, self._config)
        self._journal = journal
        self._clock = clock
        self._policy = policy
        self._embedder = embedder
        self._tombstones = tombstones
        self._outcomes: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Carry out tombstones that the database does not know, and purge from now on."""
        await self._replay()
        await self._bury_again()
        self._task = endless("expiry of memories", self._purge_on)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def remember(self, caller: Principal, body: Remember) -> Remembered:
        """Keep a text, unless it is junk; what is there already is confirmed.

        Raises:
            Refused: It is not worth remembering; `extra["cause"]` is a `JunkCause`.
            Forbidden: The namespace is not the caller's.
            Conflict: A memory of this id was forgotten, or says something else.
        """
        namespace = _namespace(caller, body.namespace)
        self._allow("remember", caller, namespace)
        await self._gate(caller, namespace, body.text)
        now = self._clock.time()
        expires_at = None if body.ttl_s is None else now + body.ttl_s
        view = MemoryView(
            id=MemoryId(body.memory) if body.memory else new_memory_id(int(now * 1000)),
            namespace=namespace,
            text=body.text,
            by=caller.id,
            at=now,
            confirmed_at=now,
            task=body.task,
            repo=body.repo,
            revision=body.revision,
            expires_at=expires_at,
        )
        if body.memory and (earlier := await self._repeated(view)):
            return earlier
        draft = await self._draft(view)
        near = await self._store.near(draft, now, _NEAR)
        for neighbour, similarity in near:
            if similarity >= self._config.same and figures(neighbour.text) == figures(view.text):
                return await self._confirm(caller, neighbour.id, view)
        if not await self._store.add(draft):  # somebody says the same just now
            same = await self._store.same(namespace, draft.normal)
            if same is None:
                raise Conflict(f"{view.id} is another memory already.")
            return await self._confirm(caller, same, view)
        self._outcomes["added"] += 1
        await self._record_added(caller, view)
        similar = tuple(view for view, value in near if value >= self._config.similar)
        return Remembered(memory=view, outcome="added", similar=similar)

    async def recall(self, caller: Principal, body: Recall) -> Recalled:
        """Return the memories that fit a question, best first.

        Raises:
            Forbidden: A namespace is not the caller's to read.
        """
        namespaces = [_namespace(caller, n) for n in body.namespaces] or [caller.id, SHARED]
        for namespace in namespaces:
            self._allow("recall", caller, namespace)
        now = self._clock.time()
        by_vector: list[MemoryView] = []
        by_text: list[MemoryView] = []
        if body.mode != "text":
            (vector,) = await self._embedder.embed([body.query])
            by_vector = await self._store.by_vector(namespaces, vector, self._embedder.name, now)
        if body.mode != "vector":
            by_text = await self._store.by_text(namespaces, body.query, now)
        return Recalled(hits=self._fuse(by_vector, by_text, now, body.limit))

    async def get(self, caller: Principal, memory: str) -> MemoryView:
        """Return one memory, also a superseded one.

        Raises:
            NotFound: There is none of this id that the caller may read.
        """
        view = await self._store.get(MemoryId(memory), self._clock.time())
        if view is None or not self._may("recall", caller, view.namespace):
            raise NotFound(f"There is no memory {memory[:64]} that you may read.")
        return view

    async def page(
        self, caller: Principal, namespace: str, cursor: str, limit: int, *, superseded: bool
    ) -> MemoryPage:
        """Return a namespace's memories, newest first.

        Raises:
            Forbidden: The namespace is not the caller's to read.
        """
        namespace = _namespace(caller, namespace)
        self._allow("recall", caller, namespace)
        now = self._clock.time()
        views = await self._store.page(namespace, cursor, limit + 1, now, superseded=superseded)
        more = len(views) > limit
        return MemoryPage(memories=tuple(views[:limit]), cursor=views[limit - 1].id if more else "")

    async def correct(self, caller: Principal, memory: str, body: Correct) -> MemoryView:
        """Say what is right instead of a memory.

        Raises:
            NotFound: There is no such memory.
            Conflict: It was corrected or merged before.
            Refused: The new text is junk.
        """
        old = await self.get(caller, memory)
        self._allow("remember", caller, old.namespace)
        await self._gate(caller, old.namespace, body.text)
        now = self._clock.time()
        view = msgspec.structs.replace(
            old,
            id=new_memory_id(int(now * 1000)),
            text=body.text,
            by=caller.id,
            at=now,
            confirmed_at=now,
            confirmations=1,
            superseded_by=None,
            superseded_at=None,
            superseded_cause=None,
        )
        draft = await self._draft(view)
        if not await self._store.correct(draft, old.id):
            raise Conflict(
                f"{old.id} is not current any more, or another memory has this text.",
                hint=f"It became {old.superseded_by}." if old.superseded_by else "",
            )
        self._outcomes["added"] += 1
        await self._record_added(caller, view)
        await self._record_superseded(caller.id, old.id, view, SupersedeCause.corrected)
        return view

    async def forget(self, caller: Principal, memory: str) -> Forgotten:
        """Remove a memory and everything that it supersedes, for ever.

        Raises:
            NotFound: There is no such memory.
            Forbidden: It is not the caller's to forget.
        """
        view = await self.get(caller, memory)
        versions = await self._store.versions([view.id])
        for version in versions:
            self._allow("forget", caller, version.namespace, author=version.by == caller.id)
        await self._forget(caller.id, view.namespace, versions, ForgetCause.request)
        return Forgotten(ids=tuple(version.id for version in versions))

    async def consolidate(self, caller: Principal, body: Consolidate) -> Consolidated:
        """Merge memories of a namespace that say the same into the newest of them.

        Raises:
            Forbidden: The namespace is not the caller's to change.
        """
        namespace = _namespace(caller, body.namespace)
        self._allow("forget", caller, namespace, author=False)
        merged: list[tuple[MemoryId, MemoryId]] = []
        removed: set[MemoryId] = set()
        now = self._clock.time()
        async for draft in self._drafts(namespace):
            if draft.view.id in removed:
                continue
            for neighbour, similarity in await self._store.near(draft, now, _NEAR):
                same = figures(neighbour.text) == figures(draft.view.text)
                if similarity < body.similarity or not same or neighbour.id in removed:
                    continue
                into, old = max(draft.view.id, neighbour.id), min(draft.view.id, neighbour.id)
                if not body.dry_run:
                    if not await self._store.merge(old, into, now):
                        continue
                    stays = neighbour if into == neighbour.id else draft.view
                    await self._record_superseded(caller.id, old, stays, SupersedeCause.merged)
                removed.add(old)
                merged.append((into, old))
                if old == draft.view.id:
                    break
        return Consolidated(merged=tuple(merged))

    async def stats(self) -> MemoryStats:
        """Return what became of the texts that were offered since the start."""
        refused = {name[1:]: n for name, n in self._outcomes.items() if name.startswith("-")}
        offered = sum(self._outcomes.values())
        return MemoryStats(
            model=self._embedder.name,
            memories=await self._store.count(),
            added=self._outcomes["added"],
            confirmed=self._outcomes["confirmed"],
            refused=refused,
            junk_rate=sum(refused.values()) / offered if offered else 0.0,
        )

    # -- pieces ------------------------------------------------------------------------------

    async def _gate(self, caller: Principal, namespace: str, text: str) -> None:
        cause = junk(text)
        if cause is None:
            return
        self._outcomes[f"-{cause}"] += 1
        await self._append(MemoryRefused(), caller.id, namespace, outcome=cause)
        raise Refused(
            f"This is not remembered: {cause}.",
            hint="A memory is a sentence that will still mean something in a month.",
            cause=str(cause),
        )

    async def _repeated(self, view: MemoryView) -> Remembered | None:
        """Return the answer to a request that was asked before."""
        if await self._store.is_forgotten(view.id):
            raise Conflict(f"{view.id} was forgotten; its id is never used again.")
        earlier = await self._store.get(view.id, view.at)
        if earlier is None:
            return None
        if (earlier.by, earlier.namespace, earlier.text) != (view.by, view.namespace, view.text):
            raise Conflict(f"{view.id} is another memory already.")
        await self._append(
            _added(earlier), earlier.by, earlier.id, id=fact_of(CommandId(earlier.id), "remembered")
        )
        return Remembered(memory=earlier, outcome="added")

    async def _confirm(self, caller: Principal, memory: MemoryId, view: MemoryView) -> Remembered:
        if not await self._store.confirm(memory, view.at, view.expires_at):
            raise Conflict(f"{memory} has just been replaced; ask again.")
        self._outcomes["confirmed"] += 1
        return Remembered(memory=await self.get(caller, memory), outcome="confirmed")

    async def _draft(self, view: MemoryView) -> Draft:
        (vector,) = await self._embedder.embed([view.text])
        return Draft(view, normal(view.text), vector, self._embedder.name)

    async def _drafts(self, namespace: str) -> AsyncIterator[Draft]:
        """Yield what a namespace holds, with the vectors that it has."""
        after, model = "", self._embedder.name
        while rows := await self._store.unmerged(namespace, model, after, _PAGE):
            for memory, text, vector in rows:
                view = MemoryView(
                    id=memory, namespace=namespace, text=text, by=ME, at=0, confirmed_at=0
                )
                yield Draft(view, "", msgspec.json.decode(vector, type=list[float]), model)
            after = rows[-1][0]

    def _fuse(
        self,
        by_vector: Sequence[MemoryView],
        by_text: Sequence[MemoryView],
        now: float,
        limit: int,
    ) -> tuple[MemoryHit, ...]:
        vector_ranks = {view.id: rank for rank, view in enumerate(by_vector, 1)}
        text_ranks = {view.id: rank for rank, view in enumerate(by_text, 1)}
        views = {view.id: view for view in (*by_vector, *by_text)}
        candidates = [
            (
                view,
                Ranks(vector_ranks.get(view.id), text_ranks.get(view.id)),
                decay(now - view.confirmed_at, self._config.half_life_s),
            )
            for view in views.values()
        ]
        return tuple(
            MemoryHit(
                memory=view,
                score=score,
                vector_rank=vector_ranks.get(view.id),
                text_rank=text_ranks.get(view.id),
            )
            for view, score in ranked(candidates, limit)
        )

    # -- policy ------------------------------------------------------------------------------

    def _request(self, action: str, caller: Principal, namespace: str, *, author: bool) -> Request:
        return Request(
            principal=caller.id,
            role=caller.role,
            action=action,
            resource=("Service", "memory"),
            context={
                "own": namespace == caller.id,
                "shared": namespace == SHARED,
                "agents": namespace.startswith("agent/"),
                "author": author,
            },
        )

    def _may(self, action: str, caller: Principal, namespace: str) -> bool:
        return self._policy.ask(self._request(action, caller, namespace, author=False)).allowed

    def _allow(
        self, action: str, caller: Principal, namespace: str, *, author: bool = False
    ) -> None:
        request = self._request(action, caller, namespace, author=author)
        answer = self._policy.ask(request)
        if not answer.allowed:
            raise Forbidden(
                f"{caller.id} may not {action} in the memory of {namespace}: {answer.reason}. "
                "Nothing was done.",
                hint=self._policy.hint(answer)
                or f"`angelos policy explain {action}` names the rules about it.",
                rules=list(answer.rules),
                policy=answer.policy,
            )

    # -- facts -------------------------------------------------------------------------------

    async def _record_added(self, caller: Principal, view: MemoryView) -> None:
        await self._append(
            _added(view), caller.id, view.id, id=fact_of(CommandId(view.id), "remembered")
        )

    async def _record_superseded(
        self, actor: PrincipalId, old: MemoryId, view: MemoryView, cause: SupersedeCause
    ) -> None:
        payload = MemorySuperseded(namespace=view.namespace, by=view.id)
        await self._append(payload, actor, old, outcome=cause)

    async def _append(
        self, payload: FactPayload, actor: PrincipalId, subject: str, **header: object
    ) -> None:
        fact = Fact.of(payload, at=self._clock.time(), actor=actor, subject=subject, **header)  # type: ignore[arg-type]
        await self._journal.append([fact])

    async def _forget(
        self,
        actor: PrincipalId,
        namespace: str,
        versions: Sequence[Version],
        cause: ForgetCause,
    ) -> None:
        ids = [version.id for version in versions]
        await self._append(MemoryForgotten(ids=tuple(ids)), actor, namespace, outcome=cause)
        if self._tombstones is not None:
            await asyncio.to_thread(self._tombstones.append, ids)
        await self._store.forget(ids, namespace, self._clock.time())

    # -- in the background -------------------------------------------------------------------

    async def _replay(self) -> None:
        """Carry out the journal's tombstones: the database may have been restored since."""
        after, last = await self._store.cursor(), await self._journal.last()
        if offset_key(after) > offset_key(last):  # of another life of the journal
            after = START
        while page := await self._journal.read(after, _PAGE, kinds={Kind.memory_forgotten}):
            for fact in page:
                payload = fact.payload()
                if isinstance(payload, MemoryForgotten):
                    ids = [MemoryId(i) for i in payload.ids]
                    versions = [v.id for v in await self._store.versions(ids)]
                    await self._store.forget([*ids, *versions], fact.subject, fact.at)
            after = page[-1].offset
        await self._store.move_cursor(max(after, last, key=offset_key))

    async def _bury_again(self) -> None:
        """Forget what was forgotten after the backup that both stores come from."""
        if self._tombstones is None:
            return
        ids = await asyncio.to_thread(self._tombstones.read)
        if not ids or await self._store.is_forgotten(ids[-1]):
            return  # each was buried after it had been written, in this order
        for start in range(0, len(ids), _PAGE):
            part = ids[start : start + _PAGE]
            by_namespace: dict[str, list[Version]] = {}
            for version in await self._store.versions(part):
                by_namespace.setdefault(version.namespace, []).append(version)
            for namespace, versions in by_namespace.items():
                log.warning("%d memories of %s are forgotten again", len(versions), namespace)
                forgotten = [version.id for version in versions]
                payload = MemoryForgotten(ids=tuple(forgotten))
                await self._append(payload, ME, namespace, outcome=ForgetCause.restored)
                await self._store.forget(forgotten, namespace, self._clock.time())
            await self._store.forget(part, "", self._clock.time())

    async def _purge_on(self) -> None:
        while True:
            try:
                await self.purge()
            except AngelError as error:
                log.warning("expired memories stay a while: %s", error)
            await asyncio.sleep(self._config.purge_every_s)

    async def purge(self) -> int:
        """Forget what is expired; return how many memories went."""
        count = 0
        while rows := await self._store.expired(self._clock.time(), self._config.purge_batch):
            by_namespace: dict[str, list[MemoryId]] = {}
            for memory, namespace in rows:
                by_namespace.setdefault(namespace, []).append(memory)
            for namespace, ids in by_namespace.items():
                versions = await self._store.versions(ids)
                await self._forget(ME, namespace, versions, ForgetCause.expired)
                count += len(versions)
        return count


def _namespace(caller: Principal, text: str) -> str:
    """Return the namespace that a request names, by default the caller's own."""
    namespace = text or caller.id
    if not is_namespace(namespace):
        raise InvalidInput(
            f"{text[:40]!r} is no namespace.",
            hint="It is `shared`, or whose memory it is, such as agent/ada.",
        )
    return namespace


def _added(view: MemoryView) -> MemoryRemembered:
    return MemoryRemembered(
        namespace=view.namespace,
        task=view.task,
        repo=view.repo,
        expires_at=view.expires_at,
    )
