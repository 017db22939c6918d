"""What a git client asks over HTTP: clone, fetch, pull, and pushes.

    server = GitServer(repository, intake_of)
    await server.advertise("study", "git-upload-pack")
    answer = await server.receive("study", body, principal)

A push to `refs/for/main` is handed to `ProposalIntake`; pushed again it replaces what the same
person pushed there before, so that approvals of that lapse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from angelos.angelgit.git.pushing import (
    ZERO,
    CheckedPush,
    PushCommand,
    PushRequest,
    check_push,
    read_push,
)
from angelos.angelgit.git.service import GitView
from angelos.angelgit.git.serving import ServiceName, advertisement, report, upload_pack
from angelos.angelgit.storage.git_table import LastPush
from angelos.angelgit.storage.models import proposal_digest
from angelos.core.branches import MAIN, PROPOSALS, RESERVED, BranchName, branch_name
from angelos.core.errors import AngelError, Conflict, NotFound, Refused
from angelos.core.ids import Revision, new_proposal_id
from angelos.core.intake import IntakeNext, IntakeReceipt, IntakeSource, Submission, refusal_of
from angelos.core.permissions import Principal
from angelos.core.ports import ProposalIntake
from angelos.core.principals import ActingSession, SessionKind

if TYPE_CHECKING:
    from angelos.angelgit.service import AngelGit

MAX_PUSH_BYTES = 256_000_000
_HEADS, _FOR = "refs/heads/", "refs/for/"
_MAX_MESSAGE = 2_000
_NEXT = {
    IntakeNext.review: "it waits beside the live documents until somebody accepts it",
    IntakeNext.testing: "its tests run; nobody needs to do anything",
    IntakeNext.approval: "a person has to approve it",
    IntakeNext.settled: "it is decided already",
}


class _Outcome(NamedTuple):
    ref: bytes
    problem: str
    """Empty: it was done."""
    words: str


class GitServer:
    """Serves all repositories to git clients; who they are is established before."""

    def __init__(
        self, repository: AngelGit, intake_of: Callable[[Principal], ProposalIntake]
    ) -> None:
        """Build it.

        Args:
            repository: AngelGit.
            intake_of: returns the intake by which somebody proposes.
        """
        self._repository = repository
        self._git = repository.git
        self._intake_of = intake_of

    async def advertise(self, repo: str, service: ServiceName) -> bytes:
        """Return the references of a repository.

        Raises:
            NotFound: there is no such repository.
        """
        async with self._git.lock(repo):
            view = await self._git.view(repo)
            return await asyncio.to_thread(advertisement, view, service)

    async def upload(self, repo: str, request: bytes) -> bytes:
        """Return the answer to what a client wants and has.

        Raises:
            InvalidInput: the request is not in the protocol.
            NotFound: there is no such repository.
        """
        answer = BytesIO()
        async with self._git.lock(repo):
            view = await self._git.view(repo)
            await asyncio.to_thread(upload_pack, view, BytesIO(request), answer)
        return answer.getvalue()

    async def receive(self, repo: str, body: bytes, principal: Principal) -> bytes:
        """Carry out a push and return the report.

        Raises:
            InvalidInput: it is not in the protocol.
            NotFound: there is no such repository.
        """
        request = read_push(body)
        outcomes = [_refused(command) for command in request.commands]
        todo = [c for c, outcome in zip(request.commands, outcomes, strict=True) if not outcome]
        done: dict[bytes, _Outcome] = {}
        if todo:
            try:
                view = await self._take(repo, request._replace(commands=tuple(todo)))
            except AngelError as error:
                rows = [(c.ref, "not taken") for c in request.commands]
                return report(rows, f"{_line(error)}\n", unpacked="error")
            for command in todo:
                done[command.ref] = await self._carry_out(repo, view, command, principal)
        rows = [o or done[c.ref] for c, o in zip(request.commands, outcomes, strict=True)]
        words = "".join(f"{row.words}\n" for row in rows if row.words)
        return report([(row.ref, row.problem) for row in rows], words)

    async def _take(self, repo: str, request: PushRequest) -> GitView:
        """Check and store what a push brings; return the references before it."""
        async with self._git.lock(repo):
            view = await self._git.view(repo)
            # What is on a branch of somebody may go with it: a push brings that along.
            checked: CheckedPush = await asyncio.to_thread(
                check_push, view.cache, request, view.lasting, self._git.folder
            )
            if checked.pack:
                await self._git.store_pack(repo, checked.pack)
        return view

    async def _carry_out(
        self, repo: str, view: GitView, command: PushCommand, principal: Principal
    ) -> _Outcome:
        try:
            ref = command.ref.decode()
            if ref.startswith(_FOR):
                words = await self._propose(repo, command, ref, principal)
            else:
                words = await self._move(repo, view, command, principal)
        except UnicodeDecodeError:
            return _Outcome(command.ref, "its name is not UTF-8", "")
        except AngelError as error:
            return _Outcome(command.ref, _line(error)[:200], _line(error))
        return _Outcome(command.ref, "", words)

    async def _move(
        self, repo: str, view: GitView, command: PushCommand, principal: Principal
    ) -> str:
        """Make, move or delete a branch of one's own."""
        name = branch_name(command.ref.decode().removeprefix(_HEADS))
        if view.refs.get(command.ref, ZERO) != command.before:
            raise Conflict(f"{name} has moved since; fetch first.")
        repository, by = self._repository, principal.id
        if command.after == ZERO:
            await repository.delete_branch(repo, name, _expected(view, command), by)
            return f"{name} is deleted."
        if command.before != ZERO:
            await repository.check_owner(repo, name, by)
        revision = await repository.adopt(repo, command.after, by)
        if command.before == ZERO:
            await repository.create_branch(repo, name, revision, by)
        else:
            await repository.move_branch(repo, name, revision, _expected(view, command), by)
        return f"{name} is at {revision[:12]}; to propose it: git push ... HEAD:refs/for/main"

    async def _propose(
        self, repo: str, command: PushCommand, ref: str, principal: Principal
    ) -> str:
        """Propose what a commit changes; replace what the same person pushed there before."""
        target, _, topic = ref.removeprefix(_FOR).partition("/")
        if target != MAIN or command.after == ZERO:
            raise Refused(f"{ref} proposes nothing.", hint="Push to refs/for/main.")
        draft = await self._repository.pushed_draft(repo, command.after)
        last = await self._git.last_push(repo, principal.id, topic)
        session = ActingSession(
            id=principal.session or "git",
            principal=principal.id,
            generation=principal.generation,
            kind=SessionKind.token,
            expires_at=principal.expires_at,
        )
        digest = proposal_digest(repo, draft.base, principal.id, draft.edits)
        replaces = last.digest if last and last.digest != digest else ""
        submission = Submission(
            id=last.proposal if last else new_proposal_id(),
            repo=repo,
            base=draft.base,
            edits=draft.edits,
            message=draft.message[:_MAX_MESSAGE],
            session=session,
            source=IntakeSource.git,
            target=BranchName(target),
            replaces=replaces,
        )
        receipt = await self._intake_of(principal).submit(submission)
        made = LastPush(receipt.id, receipt.digest)
        await self._git.put_last_push(repo, principal.id, topic, made)
        return _words(receipt, last.proposal if last else "")


def _words(receipt: IntakeReceipt, before: str) -> str:
    lines = [f"Proposal {receipt.id}, digest {receipt.digest[:12]}: {_NEXT[receipt.next]}."]
    if receipt.id == before:
        lines.append("It had been pushed before, and is unchanged.")
    elif before:
        lines.append(f"It replaces {before}, whose approvals no longer count.")
    lines.append(f"See it: angelos proposal show {receipt.id}")
    return "\n".join(lines)


def _expected(view: GitView, command: PushCommand) -> Revision:
    """Return where a branch was when the push was compared with it.

    Raises:
        NotFound: it is no branch of ours.
    """
    if command.ref not in view.heads:
        raise NotFound(f"There is no branch {command.ref.removeprefix(_HEADS.encode())!r:.200}.")
    return view.heads[command.ref]


def _refused(command: PushCommand) -> _Outcome | None:
    """Return why nobody pushes to a reference, None if somebody may."""
    ref = command.ref.decode(errors="replace")
    name = ref.removeprefix(_HEADS)
    if ref.startswith(_FOR):
        return None
    if not ref.startswith(_HEADS):
        problem = f"{ref} is not taken: push branches, or to refs/for/main"
    elif name in RESERVED or name.partition("/")[0] == PROPOSALS:
        problem = f"{name} moves to what was tested or accepted: push to refs/for/main instead"
    else:
        return None
    return _Outcome(command.ref, problem, "Propose it: git push ... HEAD:refs/for/main")


def _line(error: AngelError) -> str:
    refusal = refusal_of(error)
    return f"{refusal.detail} {refusal.hint}".strip()
