"""Parts of a proposal that waits: some hunks become a proposal of their own, or are withdrawn.

    part = part_of(await git.pending(proposal), PartChoice(cells=(("a.ipynb", "one"),)))
    await parts.take(part, new_proposal_id())     # has the part's digest, and its own tests
    await parts.narrow(part_of(...), by=person)   # the rest goes on under another digest

What was taken is still in the proposal, where an equal change is no conflict: its tests need it.
"""

from __future__ import annotations

from msgspec import structs

from angelos.angelgit.changes import sides
from angelos.angelgit.changes.outbox import FactOutbox
from angelos.angelgit.changes.proposals import DevProposals, proposed
from angelos.angelgit.merge.changes import ChangedFile, refuse_stale
from angelos.angelgit.merge.files import Resolve
from angelos.angelgit.merge.parts import part_of_changes
from angelos.angelgit.storage.models import ProposalStatus, StoredProposal
from angelos.angelgit.storage.store import Store
from angelos.angelgit.threads import in_thread
from angelos.core.errors import Conflict, InvalidInput
from angelos.core.facts import Fact, ProposalNarrowed
from angelos.core.ids import HunkId, PrincipalId, ProposalId
from angelos.core.pending import Part, check_part, part_digest, without_hunks
from angelos.core.ports import Clock
from angelos.core.repository import Proposed


class ProposalParts:
    """Takes parts of proposals, and withdraws them."""

    def __init__(self, proposals: DevProposals, outbox: FactOutbox, clock: Clock) -> None:
        self._proposals = proposals
        self._stores = proposals.stores
        self._live = proposals.live
        self._transactions = proposals.transactions
        self._outbox = outbox
        self._clock = clock

    async def take(self, part: Part, own_id: ProposalId) -> Proposed:
        """Store a part as a proposal of its own; the same part again is the same proposal."""
        pending = await self._proposals.pending(part.proposal)
        check_part(pending, part)
        async with self._transactions.branch_lock(pending.repo):
            await self._transactions.recover(pending.repo)
            async with self._stores.begin() as store:
                whole = await self._waiting(store, part)
                for other in await store.parts(part.proposal):
                    open_or_in = other.status not in _CLOSED
                    if open_or_in and other.record.digest == part.digest:
                        changed = await sides.changed_files(store, other.record.changes)
                        return await proposed(other.record, changed)
                changed = await _chosen(store, whole, part.hunks)
            await self._fits(whole, changed)
            async with self._stores.change(pending.repo) as store:
                record = structs.replace(
                    whole.record,
                    id=own_id,
                    digest=part.digest,
                    changes=await self._proposals.stored_changes(store, changed),
                    part_of=whole.record.id,
                    hunks=part.hunks,
                    whole=whole.record.whole or whole.record.changes,
                )
                if not await store.add_proposal(record):
                    raise Conflict(f"Proposal {own_id} exists already.")
        return await proposed(record, changed)

    async def narrow(self, part: Part, by: PrincipalId, reason: str) -> Proposed:
        """Withdraw a part for good; what is left has another digest, so approvals lapse."""
        pending = await self._proposals.pending(part.proposal)
        left = without_hunks(pending, part)
        async with self._transactions.branch_lock(pending.repo):
            async with self._stores.change(pending.repo) as store:
                stored = await self._waiting(store, part)
                changed = await _chosen(store, stored, left)
                record = structs.replace(
                    stored.record,
                    digest=part_digest(part.version, left, {hunk.id for hunk in pending.hunks}),
                    changes=await self._proposals.stored_changes(store, changed),
                    hunks=left,
                    whole=stored.record.whole or stored.record.changes,
                )
                await store.narrow_proposal(record)
                answer = await proposed(record, changed)
                fact = ProposalNarrowed(
                    digest=record.digest, changes=answer.changes, hunks=part.hunks, reason=reason
                )
                await store.add_facts([self._fact(fact, record.id, by, record.author)])
            await self._outbox.flush()
        return answer

    async def _waiting(self, store: Store, part: Part) -> StoredProposal:
        """Return the proposal of a part, which is the version that the part is of, and waits."""
        stored = await store.proposal(part.proposal)
        if stored.record.digest != part.version:
            raise Conflict(
                f"{part.proposal} has a newer version than the one that was looked at.",
                hint="Look at the proposal again.",
                digest=stored.record.digest,
            )
        if stored.status is not ProposalStatus.proposed:
            raise Conflict(f"Proposal {part.proposal} is {stored.status}; it has no open parts.")
        return stored

    async def _fits(self, whole: StoredProposal, changed: list[ChangedFile]) -> None:
        """Raise `Stale` unless a part fits the live text."""
        record = whole.record
        paths = {path for c in changed for path in (c.path, c.to) if path}
        documents = self._live.index.paths(record.repo)
        locked = {documents[path] for path in paths if path in documents}
        async with self._live.lock(locked), self._stores.begin() as store:
            current = await self._transactions.dev_files(store, record.repo, paths)
            merged = await self._proposals.merged_with_dev(
                store, record.repo, changed, current, Resolve.refuse
            )
        refuse_stale(merged.conflicts, "dev", record.base, changed, current)

    def _fact(
        self, payload: ProposalNarrowed, proposal: ProposalId, by: PrincipalId, author: PrincipalId
    ) -> Fact:
        return Fact.of(
            payload, at=self._clock.time(), actor=by, on_behalf_of=author, subject=proposal
        )


_CLOSED = (ProposalStatus.reverted, ProposalStatus.withdrawn)


async def _chosen(
    store: Store, stored: StoredProposal, hunks: tuple[HunkId, ...]
) -> list[ChangedFile]:
    """Return what some hunks of a proposal change in its base."""
    record = stored.record
    files = await sides.changed_files(store, record.whole or record.changes)
    size = sum(len(f.body) for c in files for f in (c.before, c.after) if f)
    changed = await in_thread(size, part_of_changes, files, hunks)
    if not changed:
        raise InvalidInput("Nothing of this part changes its base.")
    return changed
