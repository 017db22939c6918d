r"""A repository in memory, with the promises of `core.ports.BranchingRepository`.

    repository = MemoryRepository()
    base = await repository.create("study", {"a.py": b"x = 1\n"}, ada, "import")
    pending = await repository.propose(
        ProposalDraft(id=new_proposal_id(), repo="study", base=base, author=ada, message="why",
            edits=(NewText(path="a.py", text="x = 2\n"),)))
    await repository.accept(part_of(pending), eve)
    assert repository.live("study", "a.py") == b"x = 2\n"

What real rooms would do a test does by `type_text`; `fence` makes it an owner that was replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import count
from typing import NamedTuple

import msgspec

from angelos.adapters.host.clock import SystemClock
from angelos.core.branches import (
    DEV,
    MAIN,
    PROPOSALS,
    RESERVED,
    BranchName,
    branch_clash,
    branch_name,
    proposal_branch,
)
from angelos.core.errors import (
    Conflict,
    Fenced,
    InvalidInput,
    NotFound,
    Refused,
    Tampered,
    TooLarge,
)
from angelos.core.ids import DocumentId, HunkId, PrincipalId, ProposalId, Revision
from angelos.core.pending import (
    MAX_BATCH,
    MAX_EDITS,
    Acceptance,
    BatchCandidate,
    BatchLeftOut,
    BatchMember,
    EditConflict,
    HunkState,
    LeftOutReason,
    Part,
    Pending,
    PendingHunk,
    PendingState,
    ProposalDraft,
    check_part,
    draft_digest,
    stale,
)
from angelos.core.ports import Clock
from angelos.core.repository import (
    MAX_READ_BYTES,
    BlobRef,
    BranchHead,
    DeleteFile,
    EntryKind,
    FileEntry,
    MoveFile,
    NewText,
    PutBlob,
    PutLink,
    SetMode,
    TreeEdit,
)
from angelos.core.revision_v2 import (
    CommitObject,
    EntryMode,
    SignedCommitObject,
    Trailer,
    TrailerKey,
    TreeEntry,
    build_tree,
    decode_commit,
    directory_hash,
    sign_commit_object,
)
from angelos.core.signing import SigningKey
from angelos.testing.edits import (
    Content,
    Files,
    apply_edits,
    hunks_between,
    kind_of,
    place,
)

_PIECE = 1024 * 1024
_ANGELGIT = PrincipalId("system/angelgit")
_DISK = PrincipalId("person/disk")


class _State(NamedTuple):
    """What one commit holds."""

    files: Files
    documents: dict[str, DocumentId]
    main: Revision | None
    """The newest `main` that it contains."""


class _Held:
    """A proposal with all that is needed to try it again."""

    def __init__(
        self, draft: ProposalDraft, base: Files, proposed: Files, hunks: list[PendingHunk]
    ) -> None:
        self.draft = draft
        self.base = base
        self.proposed = proposed
        self.hunks = {hunk.id: hunk for hunk in hunks}
        self.entered: dict[HunkId, tuple[int, Revision, PrincipalId]] = {}
        self.at = 0.0

    def chosen(self, hunks: Iterable[HunkId], *states: HunkState) -> list[PendingHunk]:
        """Return hunks in order that are in one of these states; of all states without one."""
        names = set(hunks)
        rows = (hunk for hunk in self.hunks.values() if hunk.id in names)
        return [hunk for hunk in rows if not states or hunk.state in states]

    def mark(self, hunks: Iterable[PendingHunk], state: HunkState) -> None:
        for hunk in hunks:
            self.hunks[hunk.id] = msgspec.structs.replace(hunk, state=state)


class _Repo:
    """One repository."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.branches: dict[BranchName, BranchHead] = {}
        self.signed: dict[Revision, SignedCommitObject] = {}
        self.states: dict[Revision, _State] = {}
        self.directories: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.live: Files = {}
        self.documents: dict[str, DocumentId] = {}
        self.typists: list[PrincipalId] = []
        self.proposals: dict[ProposalId, _Held] = {}
        self.candidates: dict[Revision, BatchCandidate] = {}
        self.batches: dict[tuple[Revision, tuple[Part, ...]], BatchCandidate] = {}

    def head(self, branch: BranchName) -> Revision:
        return self.branches[branch].revision

    def files(self, revision: Revision) -> Files:
        return self.states[revision].files


class MemoryRepository:
    """`core.ports.BranchingRepository` in dictionaries."""

    def __init__(
        self,
        key: SigningKey | None = None,
        clock: Clock | None = None,
        max_blob_bytes: int = 64_000_000,
    ) -> None:
        """Take the key that signs commits and the limit of one blob."""
        self.key = key or SigningKey.generate()
        self._clock = clock or SystemClock()
        self._max_blob = max_blob_bytes
        self._repos: dict[str, _Repo] = {}
        self._fenced = False
        self._numbers = count(1)

    # -- what a test does in place of rooms and files ------------------------------------------

    async def create(
        self,
        repo: str,
        files: Mapping[str, bytes],
        author: PrincipalId,
        message: str,
        modes: Mapping[str, EntryMode] | None = None,
    ) -> Revision:
        """Make a repository; `dev` and `main` both start at the revision."""
        if repo in self._repos:
            raise Conflict(f"There is a repository {repo} already.")
        store = _Repo(repo)
        modes = modes or {}
        store.live = {p: Content(b, modes.get(p, EntryMode.file)) for p, b in files.items()}
        revision = self._commit(store, store.live, (), (author,), message)
        for name in (DEV, MAIN):
            store.branches[name] = BranchHead(name=name, revision=revision)
        store.states[revision] = store.states[revision]._replace(main=revision)
        store.documents = dict(store.states[revision].documents)
        self._repos[repo] = store
        return revision

    def type_text(self, repo: str, path: str, text: str, by: PrincipalId) -> None:
        """Be a person who makes a live document read `text`."""
        store = self._repo(repo)
        store.live[path] = store.live[path]._replace(body=text.encode())
        if by not in store.typists:
            store.typists.append(by)

    def live(self, repo: str, path: str) -> bytes:
        """Return a live file of `dev` as it is this moment."""
        store = self._repo(repo)
        if path not in store.live:
            raise NotFound(f"dev has no {path}.")
        return store.live[path].body

    def fence(self) -> None:
        """Be replaced by another owner: nothing is written from now on."""
        self._fenced = True

    # -- branches ------------------------------------------------------------------------------

    async def branches(self, repo: str, after: str = "", limit: int = 100) -> list[BranchHead]:
        """Return branches in the order of their names."""
        _check_limit(limit, 1_000)
        branches = self._repo(repo).branches
        return [branches[name] for name in sorted(branches) if name > after][:limit]

    async def branch(self, repo: str, name: BranchName) -> BranchHead:
        """Return one branch."""
        branch = self._repo(repo).branches.get(name)
        if branch is None:
            raise NotFound(f"{repo} has no branch {name}.")
        return branch

    async def create_branch(
        self, repo: str, name: BranchName, at: Revision, owner: PrincipalId
    ) -> BranchHead:
        """Make a branch at a revision."""
        store = self._writable(repo)
        _check_free_to_move(branch_name(name))
        self._state(store, at)
        existing = store.branches.get(name)
        if existing is not None:
            if (existing.owner, existing.revision) == (owner, at):
                return existing
            raise Conflict(f"{repo} has a branch {name} already.", revision=existing.revision)
        if clash := branch_clash(store.branches, name):
            raise Conflict(f"{name} cannot stand beside {clash}.")
        store.branches[name] = BranchHead(name=name, revision=at, owner=owner)
        return store.branches[name]

    async def move_branch(
        self, repo: str, name: BranchName, to: Revision, expected: Revision
    ) -> BranchHead:
        """Move a branch by compare-and-set."""
        store = self._writable(repo)
        _check_free_to_move(branch_name(name))
        self._state(store, to)
        branch = await self.branch(repo, name)
        if branch.revision != to:
            _expect(branch, expected)
            branch = msgspec.structs.replace(branch, revision=to)
            store.branches[name] = branch
        return branch

    async def delete_branch(self, repo: str, name: BranchName, expected: Revision) -> None:
        """Delete a branch."""
        store = self._writable(repo)
        _check_free_to_move(branch_name(name))
        branch = store.branches.get(name)
        if branch is not None:
            _expect(branch, expected)
            del store.branches[name]

    # -- pending edits -------------------------------------------------------------------------

    async def propose(self, draft: ProposalDraft) -> Pending:
        """Try edits against the present `dev` and keep them; nothing enters it."""
        store = self._writable(draft.repo)
        digest = draft_digest(draft)
        held = store.proposals.get(draft.id)
        if held is not None and draft_digest(held.draft) == digest:
            return self._pending(store, held)
        self._check_replaced(held, draft)
        base = self._state(store, draft.base)
        for named in (draft.depends_on, draft.reverts):
            if named is not None:
                self._held(named)
        if not 0 < len(draft.edits) <= MAX_EDITS:
            raise InvalidInput(f"A proposal has 1 to {MAX_EDITS} edits.")
        proposed = apply_edits(base.files, draft.edits, store.blobs)
        moves = {e.path: e.to for e in draft.edits if isinstance(e, MoveFile)}
        hunks = hunks_between(base.files, proposed, moves)
        if not hunks:
            raise InvalidInput("These edits change nothing in their base revision.")
        placed = place(hunks, base.files, proposed, store.live)
        if placed.conflicts:
            raise stale(f"dev has changed since {draft.base[:12]}.", placed.conflicts)
        fresh = _Held(draft, base.files, proposed, hunks)
        fresh.at = self._clock.time()
        store.proposals[draft.id] = fresh
        self._set_proposal_branch(store, fresh, base)
        return self._pending(store, fresh)

    def _check_replaced(self, held: _Held | None, draft: ProposalDraft) -> None:
        if held is None:
            if draft.replaces or any(draft.id in r.proposals for r in self._repos.values()):
                raise Conflict(f"{draft.id} is another repository's, or there is none to replace.")
            return
        digest = draft_digest(held.draft)
        if draft.replaces != digest or held.draft.author != draft.author:
            raise Conflict(f"Proposal {draft.id} exists already with other edits.", digest=digest)
        if held.chosen(held.hunks, HunkState.accepted, HunkState.promoted):
            raise Conflict(f"A part of {draft.id} is in dev or main already; propose anew.")

    def _set_proposal_branch(self, store: _Repo, held: _Held, base: _State) -> None:
        draft = held.draft
        trailers = [Trailer(TrailerKey.proposal, draft.id)]
        if base.main is None or base.main != draft.base:
            trailers.append(Trailer(TrailerKey.dev_base, draft.base))
        if draft.depends_on is not None:
            trailers.append(Trailer(TrailerKey.depends_on, draft.depends_on))
        main = base.main or store.head(MAIN)
        placed = place([*held.hunks.values()], held.base, held.proposed, store.files(main))
        files = held.proposed if placed.conflicts else placed.files
        revision = self._commit(store, files, (main,), (draft.author,), draft.message, trailers)
        store.states[revision] = store.states[revision]._replace(main=main)
        name = proposal_branch(draft.id)
        store.branches[name] = BranchHead(name=name, revision=revision)

    async def pending(self, proposal: ProposalId) -> Pending:
        """Return a proposal in any state, tried against the present `dev`."""
        store, held = self._held(proposal)
        return self._pending(store, held)

    async def list_pending(
        self, repo: str, path: str = "", after: ProposalId | None = None, limit: int = 100
    ) -> list[Pending]:
        """Return the proposals that have open hunks, in the order in which they first came."""
        _check_limit(limit, 1_000)
        store = self._repo(repo)
        order = [*store.proposals]
        if after is not None and after not in order:
            raise NotFound(f"{repo} has no proposal {after}.")
        later = order[order.index(after) + 1 :] if after is not None else order
        rows = (self._pending(store, store.proposals[proposal]) for proposal in later)
        listed = [
            row
            for row in rows
            if row.state in {PendingState.open, PendingState.stale}
            and (not path or any(path in (hunk.path, hunk.to) for hunk in row.hunks))
        ]
        return listed[:limit]

    async def accept(self, part: Part, by: PrincipalId) -> Acceptance:
        """Merge a part into the live documents of `dev` and commit it."""
        store, held = self._held(part.proposal)
        self._writable(store.name)
        check_part(self._pending(store, held), part)
        if held.chosen(part.hunks, HunkState.withdrawn):
            raise Conflict(f"A hunk of this part of {part.proposal} was withdrawn.")
        fresh = held.chosen(part.hunks, HunkState.open)
        if fresh:
            placed = place(fresh, held.base, held.proposed, store.live)
            if placed.conflicts:
                raise stale("dev has changed since; nothing entered.", placed.conflicts)
            self._commit_typed(store)
            self._put_live(store, placed.files, fresh)
            trailers = [
                Trailer(TrailerKey.proposal, part.proposal),
                Trailer(TrailerKey.part, part.digest),
                Trailer("Accepted-By", by),
            ]
            head, draft = store.head(DEV), held.draft
            revision = self._commit_dev(store, (head,), (draft.author,), draft.message, trailers)
            held.mark(fresh, HunkState.accepted)
            number = next(self._numbers)
            held.entered |= {hunk.id: (number, revision, by) for hunk in fresh}
        _, revision, first = max(held.entered[hunk] for hunk in part.hunks)
        still_open = tuple(hunk.id for hunk in held.chosen(held.hunks, HunkState.open))
        return Acceptance(part=part, revision=revision, by=first, still_open=still_open)

    async def withdraw(self, part: Part, by: PrincipalId, reason: str) -> Pending:
        """Close a part for good: its hunks that are open will not enter."""
        del by, reason
        store, held = self._held(part.proposal)
        self._writable(store.name)
        check_part(self._pending(store, held), part)
        held.mark(held.chosen(part.hunks, HunkState.open), HunkState.withdrawn)
        return self._pending(store, held)

    def _pending(self, store: _Repo, held: _Held) -> Pending:
        draft, waiting = held.draft, held.chosen(held.hunks, HunkState.open)
        placed = place(waiting, held.base, held.proposed, store.live)
        return Pending(
            id=draft.id,
            repo=draft.repo,
            base=draft.base,
            author=draft.author,
            message=draft.message,
            digest=draft_digest(draft),
            hunks=tuple(
                msgspec.structs.replace(hunk, at=placed.at.get(hunk.id, 0))
                for hunk in held.hunks.values()
            ),
            dev=store.head(DEV),
            at=held.at,
            task=draft.task,
            depends_on=draft.depends_on,
            reverts=draft.reverts,
            conflicts=placed.conflicts,
        )

    # -- landing -------------------------------------------------------------------------------

    async def merge_many(self, repo: str, parts: Sequence[Part]) -> BatchCandidate:
        """Commit parts one upon the other on top of the present `main`, on no branch."""
        store = self._writable(repo)
        proposals = [part.proposal for part in parts]
        if not 0 < len(parts) <= MAX_BATCH or len(set(proposals)) != len(parts):
            raise InvalidInput(f"A batch has 1 to {MAX_BATCH} parts, one of each proposal.")
        main = store.head(MAIN)
        before = store.batches.get((main, tuple(parts)))
        if before is not None and not self._void(store, parts):
            return before
        members: list[BatchMember] = []
        left_out: list[BatchLeftOut] = []
        tip = main
        for part in parts:
            reason, conflicts, files = self._try_member(store, part, tip, members)
            if reason is not None:
                left_out.append(BatchLeftOut(part=part, reason=reason, conflicts=conflicts))
                continue
            tip = self._commit_member(store, part, files, tip)
            members.append(BatchMember(part=part, revision=tip))
        candidate = BatchCandidate(
            revision=tip,
            main=main,
            tree=self._commit_of(store, tip).tree,
            members=tuple(members),
            left_out=tuple(left_out),
        )
        store.candidates[tip] = store.batches[main, tuple(parts)] = candidate
        return candidate

    def _void(self, store: _Repo, parts: Sequence[Part]) -> bool:
        """Return whether a part was withdrawn or replaced."""
        rows = [(part, store.proposals[part.proposal]) for part in parts]
        return any(
            part.version != draft_digest(held.draft) or held.chosen(part.hunks, HunkState.withdrawn)
            for part, held in rows
        )

    def _try_member(
        self, store: _Repo, part: Part, tip: Revision, members: Sequence[BatchMember]
    ) -> tuple[LeftOutReason | None, tuple[EditConflict, ...], Files]:
        held = store.proposals.get(part.proposal)
        if held is None:
            raise NotFound(f"{store.name} has no proposal {part.proposal}.")
        try:
            check_part(self._pending(store, held), part)
        except Conflict:
            return LeftOutReason.withdrawn, (), {}
        if held.chosen(part.hunks, HunkState.withdrawn):
            return LeftOutReason.withdrawn, (), {}
        fresh = held.chosen(part.hunks, HunkState.open, HunkState.accepted)
        if not fresh:
            return LeftOutReason.landed, (), {}
        needed = held.draft.depends_on
        before = {member.part.proposal for member in members}
        if needed is not None and needed not in before and not _landed(store.proposals[needed]):
            return LeftOutReason.depends, (), {}
        placed = place(fresh, held.base, held.proposed, store.files(tip))
        if placed.conflicts:
            return LeftOutReason.stale, placed.conflicts, {}
        return None, (), placed.files

    def _commit_member(self, store: _Repo, part: Part, files: Files, tip: Revision) -> Revision:
        draft = store.proposals[part.proposal].draft
        trailers = [
            Trailer(TrailerKey.proposal, draft.id), Trailer(TrailerKey.part, part.digest),
        ]  # fmt: skip
        if draft.reverts is not None:
            trailers.append(Trailer(TrailerKey.reverts, draft.reverts))
        return self._commit(store, files, (tip,), (draft.author,), draft.message, trailers)

    async def advance(self, repo: str, revision: Revision, expected: Revision) -> None:
        """Move `main` to a candidate; `dev` then contains it."""
        store = self._writable(repo)
        main = store.branches[MAIN]
        if main.revision == revision:
            return
        candidate = store.candidates.get(revision)
        if candidate is None:
            raise NotFound(f"{repo} has no candidate {revision[:12]}.")
        _expect(main, expected)
        if candidate.main != expected:
            raise Conflict(
                f"The candidate was made on {candidate.main[:12]}.", revision=main.revision
            )
        if self._void(store, [member.part for member in candidate.members]):
            raise Conflict("A member was withdrawn or replaced.", revision=main.revision)
        self._commit_typed(store)
        store.branches[MAIN] = msgspec.structs.replace(main, revision=revision)
        store.states[revision] = store.states[revision]._replace(main=revision)
        for member in candidate.members:
            self._promote(store, member)
        parents = (store.head(DEV), revision)
        merged = self._commit_dev(store, parents, (_ANGELGIT,), "Merge main", [])
        for member in candidate.members:
            held = store.proposals[member.part.proposal]
            for hunk in member.part.hunks:
                held.entered.setdefault(hunk, (next(self._numbers), merged, _ANGELGIT))

    def _promote(self, store: _Repo, member: BatchMember) -> None:
        held = store.proposals[member.part.proposal]
        for hunk in held.chosen(member.part.hunks, HunkState.open):
            placed = place([hunk], held.base, held.proposed, store.live)
            if not placed.conflicts:  # else people have changed it: dev keeps their text
                self._put_live(store, placed.files, [hunk])
        held.mark(held.chosen(member.part.hunks), HunkState.promoted)

    async def revert(
        self, proposal: ProposalId, revert_id: ProposalId, author: PrincipalId, reason: str
    ) -> Pending:
        """Propose to take one proposal's edits back, around everybody's later work."""
        store, held = self._held(proposal)
        again = store.proposals.get(revert_id)
        if again is not None and (again.draft.reverts, again.draft.author) == (proposal, author):
            return self._pending(store, again)
        promoted = held.chosen(held.hunks, HunkState.promoted)
        entered = promoted or held.chosen(held.hunks, HunkState.accepted)
        if not entered:
            raise Conflict(f"Nothing of {proposal} is in dev or main; withdraw it.")
        after = place(entered, held.base, held.proposed, held.base).files
        moves = {hunk.to: hunk.path for hunk in entered if hunk.to}
        self._commit_typed(self._writable(store.name))
        base = store.head(MAIN if promoted else DEV)
        files = store.files(base)
        placed = place(hunks_between(after, held.base, moves), after, held.base, files)
        if placed.conflicts:
            raise stale(f"Later work changed what {proposal} did.", placed.conflicts)
        draft = ProposalDraft(
            id=revert_id,
            repo=store.name,
            base=base,
            edits=tuple(_edits_between(files, placed.files, moves, store.blobs)),
            author=author,
            message=reason,
            reverts=proposal,
        )
        return await self.propose(draft)

    # -- blobs and reading ---------------------------------------------------------------------

    async def put_blob(self, repo: str, content: AsyncIterator[bytes]) -> BlobRef:
        """Store content and return its SHA-256 and size."""
        store = self._writable(repo)
        body = bytearray()
        async for piece in content:
            body += piece
            if len(body) > self._max_blob:
                raise TooLarge(f"A blob has at most {self._max_blob} bytes.")
        digest = hashlib.sha256(body).hexdigest()
        store.blobs[digest] = bytes(body)
        return BlobRef(sha256=digest, size=len(body))

    async def read_blob(self, repo: str, sha256: str) -> AsyncIterator[bytes]:
        """Yield a blob in pieces."""
        body = self._repo(repo).blobs.get(sha256)
        if body is None:
            raise NotFound(f"{repo} has no blob {sha256[:12]}.")
        for start in range(0, len(body), _PIECE):
            yield body[start : start + _PIECE]
        _check_hash(body, sha256)

    def damage_blob(self, repo: str, sha256: str) -> None:
        """Be a disk that has lost a bit of a blob."""
        body = bytearray(self._repo(repo).blobs[sha256])
        body[0] ^= 1
        self._repo(repo).blobs[sha256] = bytes(body)

    async def signed(self, repo: str, revision: Revision) -> SignedCommitObject:
        """Return a commit's exact bytes and signature."""
        store = self._repo(repo)
        self._state(store, revision)
        return store.signed[revision]

    async def directory(self, repo: str, digest: str) -> bytes:
        """Return a directory object by its hash."""
        body = self._repo(repo).directories.get(digest)
        if body is None:
            raise NotFound(f"{repo} has no directory {digest[:12]}.")
        if directory_hash(body) != digest:
            raise Tampered(f"Directory {digest[:12]} is not what its hash names.")
        return body

    async def files(
        self, repo: str, revision: Revision, under: str = "", after: str = "", limit: int = 1000
    ) -> list[FileEntry]:
        """Return files and links of a revision in the order of their paths."""
        _check_limit(limit, 10_000)
        state = self._state(self._repo(repo), revision)
        paths = (p for p in sorted(state.files) if p > after and f"{p}/".startswith(_folder(under)))
        rows = [_entry(path, state) for path in paths if path != under]
        return rows[:limit]

    async def read(self, repo: str, revision: Revision, path: str) -> bytes:
        """Return a file's content, or a link's target."""
        content = self._state(self._repo(repo), revision).files.get(path)
        if content is None:
            raise NotFound(f"{revision[:12]} has no {path}.")
        if len(content.body) > MAX_READ_BYTES:
            raise TooLarge(f"{path} has more than {MAX_READ_BYTES} bytes; stream it.")
        return content.body

    # -- inside --------------------------------------------------------------------------------

    def _repo(self, repo: str) -> _Repo:
        store = self._repos.get(repo)
        if store is None:
            raise NotFound(f"There is no repository {repo}.")
        return store

    def _writable(self, repo: str) -> _Repo:
        if self._fenced:
            raise Fenced(f"repo/{repo} has a newer owner.")
        return self._repo(repo)

    def _state(self, store: _Repo, revision: Revision) -> _State:
        if revision not in store.states:
            raise NotFound(f"{store.name} has no revision {revision[:12]}.")
        return store.states[revision]

    def _held(self, proposal: ProposalId) -> tuple[_Repo, _Held]:
        for store in self._repos.values():
            if proposal in store.proposals:
                return store, store.proposals[proposal]
        raise NotFound(f"There is no proposal {proposal}.")

    def _commit_of(self, store: _Repo, revision: Revision) -> CommitObject:
        return decode_commit(store.signed[revision].body)

    def _commit(
        self,
        store: _Repo,
        files: Files,
        parents: tuple[Revision, ...],
        authors: tuple[PrincipalId, ...],
        message: str,
        trailers: Sequence[Trailer] = (),
    ) -> Revision:
        tree = build_tree(TreeEntry.of(p, c.body, c.mode) for p, c in files.items())
        store.directories |= tree.objects
        documents = {path: store.documents.get(path) or self._document() for path in files}
        commit = CommitObject(
            repo=store.name,
            parents=parents,
            tree=tree.root,
            authors=authors,
            message=message,
            at=int(self._clock.time() * 1000),
            trailers=tuple(trailers),
        )
        signed = sign_commit_object(self.key, commit)
        main = next((store.states[p].main for p in parents if store.states[p].main), None)
        store.signed[signed.revision] = signed
        store.states[signed.revision] = _State(dict(files), documents, main)
        return signed.revision

    def _commit_dev(
        self,
        store: _Repo,
        parents: tuple[Revision, ...],
        authors: tuple[PrincipalId, ...],
        message: str,
        trailers: Sequence[Trailer],
    ) -> Revision:
        revision = self._commit(store, store.live, parents, authors, message, trailers)
        state = store.states[revision]
        store.states[revision] = state._replace(main=store.head(MAIN))
        store.documents = dict(state.documents)
        store.branches[DEV] = BranchHead(name=DEV, revision=revision)
        return revision

    def _commit_typed(self, store: _Repo) -> None:
        """Commit what people have typed, under their names."""
        head = store.head(DEV)
        if store.live != store.files(head):
            authors = tuple(store.typists) or (_DISK,)
            self._commit_dev(store, (head,), authors, "Typed", [])
        store.typists = []

    def _put_live(self, store: _Repo, files: Files, hunks: Sequence[PendingHunk]) -> None:
        moves = {hunk.path: hunk.to for hunk in hunks if hunk.to}
        documents = {moves.get(path, path): d for path, d in store.documents.items()}
        store.documents = {path: documents.get(path) or self._document() for path in files}
        store.live = files

    def _document(self) -> DocumentId:
        return DocumentId(f"doc-{next(self._numbers)}")


def _edits_between(
    before: Files, after: Files, moves: Mapping[str, str], blobs: dict[str, bytes]
) -> list[TreeEdit]:
    moved = {old: new for old, new in moves.items() if old in before and new in after}
    edits: list[TreeEdit] = [MoveFile(path=old, to=new) for old, new in moved.items()]
    for path in sorted({*before, *after} - {*moved, *moved.values()}):
        was, now = before.get(path), after.get(path)
        if was == now:
            continue
        if now is None:
            edits.append(DeleteFile(path=path))
        elif was is not None and was.body == now.body and EntryMode.symlink not in (was[1], now[1]):
            edits.append(SetMode(path=path, executable=now.mode is EntryMode.executable))
        elif now.mode is EntryMode.symlink:
            edits.append(PutLink(path=path, target=now.body.decode()))
        elif kind_of(path, now) is EntryKind.blob or now.mode is EntryMode.executable:
            digest = hashlib.sha256(now.body).hexdigest()
            blobs[digest] = now.body
            executable = now.mode is EntryMode.executable
            edits.append(
                PutBlob(path=path, sha256=digest, size=len(now.body), executable=executable)
            )
        else:
            edits.append(NewText(path=path, text=now.body.decode()))
    return edits


def _landed(held: _Held) -> bool:
    return not held.chosen(held.hunks, HunkState.open, HunkState.accepted) and bool(
        held.chosen(held.hunks, HunkState.promoted)
    )


def _check_limit(limit: int, most: int) -> None:
    if not 1 <= limit <= most:
        raise InvalidInput(f"The limit must lie between 1 and {most}, not {limit}.")


def _check_free_to_move(name: BranchName) -> None:
    if name in RESERVED or name.split("/")[0] == PROPOSALS:
        raise Refused(
            f"{name} is not moved, made or deleted by hand.",
            hint="Propose the change, or push to a branch of your own.",
        )


def _expect(branch: BranchHead, expected: Revision) -> None:
    if branch.revision != expected:
        raise Conflict(
            f"{branch.name} is at {branch.revision[:12]}, not at {expected[:12]}.",
            revision=branch.revision,
        )


def _check_hash(body: bytes, sha256: str) -> None:
    if hashlib.sha256(body).hexdigest() != sha256:
        raise Tampered(f"The content of {sha256[:12]} is not what its hash names.")


def _folder(under: str) -> str:
    return f"{under.rstrip('/')}/" if under else ""


def _entry(path: str, state: _State) -> FileEntry:
    content = state.files[path]
    kind = kind_of(path, content)
    live = kind in {EntryKind.text, EntryKind.notebook}
    return FileEntry(
        path=path,
        kind=kind,
        mode=content.mode,
        sha256=hashlib.sha256(content.body).hexdigest(),
        size=len(content.body),
        document=state.documents[path] if live else None,
    )
