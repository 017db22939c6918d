"""A repository, nodes and identities in memory, with the promises of their ports."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from angelos.control.config import ControlConfig
from angelos.control.context import ControlContext
from angelos.control.projection import Projection
from angelos.control.service import Control
from angelos.core.api import PersonView, SubmitProposal
from angelos.core.errors import Conflict, NotFound, Stale, Tampered
from angelos.core.facts import Kind, TaskResult
from angelos.core.grants import check_grant
from angelos.core.ids import CommandId, HunkId, PrincipalId, ProposalId, Revision, fact_of
from angelos.core.messages import (
    CancelTask,
    Checkout,
    Command,
    PauseTasks,
    RevokeGrants,
    RunTask,
    Status,
    Tier,
    decode,
    decode_payload,
)
from angelos.core.pending import (
    ChangeKind,
    HunkState,
    Part,
    Pending,
    PendingHunk,
    part_digest,
    without_hunks,
)
from angelos.core.permissions import OWNER, Principal, Role
from angelos.core.policy.access import policy_in_force
from angelos.core.reports import CaseOutcome, CaseReport, RunReport
from angelos.core.repository import (
    NEW,
    Candidate,
    CandidateMember,
    Change,
    NewText,
    Proposed,
)
from angelos.core.revision_v2 import TreeEntry
from angelos.core.signing import SigningKey
from angelos.testing import (
    MemoryContents,
    MemoryEnvelopeQueue,
    MemoryJournal,
    eventually,
    make_fact,
)

TOML = b"""
[pipeline]
timeout_s = 30
steps = [
  { name = "unit", run = ["python", "-m", "unittest"] },
  { name = "static", run = ["ruff", "check"] },
]
[health]
run = ["python", "-m", "health"]
[review]
protected = ["protected/**"]
"""

FILES = {"angelos.toml": TOML, "a.py": b"one\n", "b.py": b"two\n", "protected/x.py": b"1\n"}


class FakeRepository:
    """Whole files instead of CRDTs: the same lines changed twice means the same file twice."""

    def __init__(self, files: dict[str, bytes] | None = None, repo: str = "study") -> None:
        self.files: dict[str, dict[Revision, dict[str, bytes]]] = {}
        self.parents: dict[Revision, Revision | None] = {}
        self.heads: dict[tuple[str, str], Revision] = {}
        self.proposed: dict[ProposalId, tuple[Proposed, dict[str, bytes]]] = {}
        self.merged: list[ProposalId] = []
        self.reverted: list[ProposalId] = []
        self.withdrawn: list[ProposalId] = []
        self.parts: dict[ProposalId, list[ProposalId]] = {}
        self.journal: MemoryJournal | None = None
        self.calls: list[str] = []
        self.serial = 0
        self.strict = False
        """Whether a candidate is refused when its file has changed in main since its base."""
        self.candidates: dict[Any, Candidate] = {}
        self.members: dict[Revision, list[ProposalId]] = {}
        first = self._commit(repo, dict(FILES if files is None else files), None)
        self.heads[repo, "main"] = self.heads[repo, "dev"] = first

    def _commit(self, repo: str, files: dict[str, bytes], parent: Revision | None) -> Revision:
        self.serial += 1
        rev = Revision(hashlib.sha256(f"{self.serial}".encode()).hexdigest())
        self.files.setdefault(repo, {})[rev] = files
        self.parents[rev] = parent
        return rev

    async def repos(self) -> list[str]:
        return list(self.files)

    async def head(self, repo: str, branch: str) -> Revision:
        if (repo, branch) not in self.heads:
            raise NotFound(f"There is no repository {repo}.")
        return self.heads[repo, branch]

    def _at(self, repo: str, revision: str) -> dict[str, bytes]:
        try:
            return self.files[repo][Revision(revision)]
        except KeyError as error:
            raise NotFound(f"There is no {repo} {revision[:12]}.") from error

    async def tree(self, repo: str, revision: Revision) -> tuple[TreeEntry, ...]:
        return tuple(sorted(TreeEntry.of(p, c) for p, c in self._at(repo, revision).items()))

    async def entries(self, repo, revision, paths) -> dict[str, TreeEntry]:
        return {
            entry.path: entry for entry in await self.tree(repo, revision) if entry.path in paths
        }

    async def read(self, repo: str, revision: Revision, path: str) -> bytes:
        files = self._at(repo, revision)
        if path not in files:
            raise NotFound(f"There is no {path}.")
        return files[path]

    def _changes(self, before: dict[str, bytes], after: dict[str, bytes]) -> tuple[Change, ...]:
        found = []
        for path in sorted(before.keys() | after.keys()):
            old, new = before.get(path), after.get(path)
            if old != new:
                had = (old or b"").decode().splitlines()
                diff = "".join(
                    f"+{line}\n" for line in (new or b"").decode().splitlines() if line not in had
                )
                found.append(Change(path=path, before=_sha(old), after=_sha(new), diff=diff))
        return tuple(found)

    async def propose(self, proposal, repo, base, edits, author, message, origin=NEW) -> Proposed:
        before = self._at(repo, base)
        dev = self.files[repo][self.heads[repo, "dev"]]
        texts = {e.path: e.text.encode() for e in edits if isinstance(e, NewText)}
        digest = hashlib.sha256(repr((base, author, sorted(texts.items()))).encode()).hexdigest()
        if proposal in self.proposed:
            known = self.proposed[proposal][0]
            if known.digest != digest:
                raise Conflict("The id was used for other edits.")
            return known
        for path, text in texts.items():
            if before.get(path) != dev.get(path):
                theirs, yours = dev.get(path, b"").decode(), text.decode()
                raise Stale(
                    f"{path} has changed.",
                    conflicts=[{"path": path, "theirs": theirs, "yours": yours}],
                )
        answer = Proposed(
            id=proposal, repo=repo, base=base, author=author, message=message, digest=digest,
            changes=self._changes(before, before | texts),
        )  # fmt: skip
        self.proposed[proposal] = (answer, texts)
        return answer

    async def merge(self, proposal: ProposalId) -> Revision:
        self.calls.append(f"merge {proposal}")
        answer, texts = self.proposed[proposal]
        dev = self.heads[answer.repo, "dev"]
        if proposal not in self.merged:
            self.merged.append(proposal)
            files = self.files[answer.repo][dev] | texts
            self.heads[answer.repo, "dev"] = self._commit(answer.repo, files, dev)
        return self.heads[answer.repo, "dev"]

    async def pending(self, proposal: ProposalId) -> Pending:
        """Each file is a hunk."""
        answer, texts = self.proposed[proposal]
        taken = {h for p in self.parts.get(proposal, []) for h in self.proposed[p][1]}
        dev = self.heads[answer.repo, "dev"]
        hunks = []
        for path in texts:
            state = HunkState.accepted if path in taken else HunkState.open
            hunk = PendingHunk(id=HunkId(path), path=path, kind=ChangeKind.text, state=state)
            hunks.append(hunk)
        return Pending(
            id=proposal, repo=answer.repo, base=answer.base, author=answer.author,
            message=answer.message, digest=answer.digest, hunks=tuple(hunks), dev=dev, at=0.0,
        )  # fmt: skip

    async def take_part(self, part: Part, own_id: ProposalId) -> Proposed:
        self.calls.append(f"take {part.proposal}")
        for other in self.parts.setdefault(part.proposal, []):
            if self.proposed[other][0].digest == part.digest:
                return self.proposed[other][0]
        self.parts[part.proposal].append(own_id)
        return self._narrowed(part, set(part.hunks), own_id)

    async def withdraw_part(self, part: Part, by: PrincipalId, reason: str) -> Proposed:
        left = without_hunks(await self.pending(part.proposal), part)
        answer = self._narrowed(part, {*left}, part.proposal)
        changes = msgspec.to_builtins(answer.changes)
        data = {"digest": answer.digest, "changes": changes, "reason": reason}
        fact = make_fact(Kind.proposal_narrowed, part.proposal, actor=by, data=data)
        assert self.journal is not None
        await self.journal.append([fact])
        return answer

    def _narrowed(self, part: Part, hunks: set[str], own_id: ProposalId) -> Proposed:
        whole, texts = self.proposed[part.proposal]
        texts = {path: text for path, text in texts.items() if path in hunks}
        before = self._at(whole.repo, whole.base)
        digest = part_digest(part.version, tuple(sorted(map(HunkId, hunks))), ())
        answer = msgspec.structs.replace(
            whole, id=own_id, digest=digest, changes=self._changes(before, before | texts)
        )
        self.proposed[own_id] = (answer, texts)
        return answer

    async def candidate(self, *proposals: ProposalId, outputs=None) -> Candidate:
        """Whole files: a second proposal that changes a file of the first does not fit."""
        repo = self.proposed[proposals[0]][0].repo
        main = self.heads[repo, "main"]
        digests = tuple(self.proposed[proposal][0].digest for proposal in proposals)
        asked = (main, proposals, digests, repr(outputs))
        if asked in self.candidates:
            return self.candidates[asked]
        members, files, last, changed = [], self.files[repo][main], main, set()
        for proposal in proposals:
            answer, texts = self.proposed[proposal]
            fits = not changed & texts.keys() and proposal not in self.withdrawn
            base = self.files[repo][answer.base]
            stale = [p for p in texts if base.get(p) != self.files[repo][main].get(p)]
            if proposal == proposals[0]:
                if proposal in self.withdrawn:
                    raise Conflict(f"{proposal} was withdrawn.")
                if stale and self.strict:
                    raise Stale(f"{stale[0]} has changed.")
            elif not fits or (stale and self.strict):
                continue
            before, files = files, files | texts
            if outputs:
                files = files | {p: repr(cells).encode() for p, cells in outputs.items()}
            changed |= texts.keys()
            last = self._commit(repo, files, last)
            rows = self._changes(before, files)
            members.append(CandidateMember(proposal=proposal, commit=last, changes=rows))
        changes = self._changes(self.files[repo][main], files)
        tree = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        self.candidates[asked] = Candidate(
            revision=last, main=main, tree=tree, changes=changes, members=tuple(members),
            left_out=tuple(p for p in proposals if p not in [m.proposal for m in members]),
        )  # fmt: skip
        self.members[last] = [m.proposal for m in members]
        return self.candidates[asked]

    async def own_changes(self, repo: str, commit: Revision) -> tuple[Change, ...]:
        self.calls.append(f"own_changes {commit}")
        return self._changes(self.files[repo][self.parents[commit]], self.files[repo][commit])

    async def advance(self, repo: str, revision: Revision, expected: Revision) -> None:
        self.calls.append(f"advance {revision}")
        if self.heads[repo, "main"] != expected:
            raise Conflict("main has moved.")
        if set(self.members[revision]) & set(self.withdrawn):
            raise Conflict("A member was withdrawn.")
        self.heads[repo, "main"] = revision
        dev = self.heads[repo, "dev"]
        files = self.files[repo][dev] | self.files[repo][revision]
        self.heads[repo, "dev"] = self._commit(repo, files, dev)

    async def withdraw(self, proposal: ProposalId) -> None:
        self.calls.append(f"withdraw {proposal}")
        if proposal not in self.proposed:
            raise NotFound(f"There is no {proposal}.")
        if proposal in self.merged:
            raise Conflict(f"{proposal} is merged.")
        self.withdrawn.append(proposal)

    async def revert(self, proposal: ProposalId) -> Revision:
        self.calls.append(f"revert {proposal}")
        answer, texts = self.proposed[proposal]
        if proposal not in self.merged:
            raise Conflict(f"{proposal} is not merged.")
        if proposal not in self.reverted:
            self.reverted.append(proposal)
            dev = self.heads[answer.repo, "dev"]
            base = self.files[answer.repo][answer.base]
            files = self.files[answer.repo][dev] | {p: base[p] for p in texts if p in base}
            files = {p: c for p, c in files.items() if p in base or p not in texts}
            self.heads[answer.repo, "dev"] = self._commit(answer.repo, files, dev)
        return self.heads[answer.repo, "dev"]

    async def rollback(self, repo, to, author, reason) -> Revision:
        self.calls.append(f"rollback {to}")
        main = self.heads[repo, "main"]
        if to not in await self.history(repo, "main", 1000):
            raise NotFound(f"{to[:12]} is not in main's history.")
        if self.files[repo][to] == self.files[repo][main]:
            raise Conflict("main has that tree already.")
        self.heads[repo, "main"] = self._commit(repo, self.files[repo][to], main)
        return self.heads[repo, "main"]

    async def history(self, repo: str, branch: str, limit: int = 50) -> list[Revision]:
        line, rev = [], self.heads[repo, branch]
        while rev is not None and len(line) < limit:
            line.append(rev)
            rev = self.parents[rev]
        return line


def _sha(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()


class FakeLanding:
    """Looks at candidates as the second process does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.checked: list[Revision] = []
        self.problem = ""

    async def check(self, repo: str, candidate: Revision, main: Revision, tree: str) -> None:
        self.checked.append(candidate)
        files = self.world.repository.files[repo][candidate]
        actual = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        if self.problem or actual != tree:
            raise Tampered(self.problem or "Its tree is another.")


class FakeSignals:
    """Identities: who is refused."""

    def __init__(self) -> None:
        self.refused: set[PrincipalId] = set()

    async def quarantine(self, principal: PrincipalId, reason: str) -> None:
        self.refused.add(principal)

    async def release(self, principal: PrincipalId, **_: object) -> None:
        self.refused.discard(principal)

    async def knows(self, principal: PrincipalId) -> bool:
        return principal != "agent/nobody"

    async def is_quarantined(self, principal: PrincipalId) -> bool:
        return principal in self.refused


def reported(task: RunTask, status: Status, failing: tuple[str, ...] = ()) -> RunReport | None:
    """Return the report of a task's cases: one test, and one sentinel that failed."""
    if task.cases is None:
        return None
    outcome = CaseOutcome.passed if status is Status.ok else CaseOutcome.failed
    cases = [CaseReport(case="t.test_a", outcome=outcome)]
    cases += [CaseReport(case=case, outcome=CaseOutcome.failed) for case in failing]
    cases.append(CaseReport(case="s.must_fail", sentinel=True, outcome=CaseOutcome.failed))
    return RunReport(run="r" * 32, runner="fake", cases=tuple(cases))


def done(node: str, status: Status = Status.ok, out: str = "", **evidence: Any):
    """Return the result of a run."""
    return TaskResult(
        status=status, exit_code=0 if status is Status.ok else 1, stdout=out, stderr="",
        duration_s=0.1, node=node, tier=Tier.full, evidence=evidence or {"source": "exit"},
    )  # fmt: skip


Program = Callable[[RunTask], "tuple[Status, str] | None"]
Health = Callable[[Checkout], str]


class FakeNode:
    """Takes its commands, checks each grant, and says what a node would say.

    `program` returns how a task ends, or None to stay silent about its end.
    """

    def __init__(
        self,
        world: World,
        name: str,
        role: str = "execution",
        tier: str = "full",
        program: Program = lambda _: (Status.ok, "fine\n"),
    ):
        self.world, self.name, self.role, self.tier = world, name, role, tier
        self.id = PrincipalId(f"node/{name}")
        self.program = program
        self.health: Health = lambda _: "ok"
        self.outputs: dict[str, str] = {}
        """Of the cells that a plan asks for: they are the cases of a run then."""
        self.ran: list[RunTask] = []
        self.baselines: list[RunTask] = []
        """Tests of `main` itself, which all pass."""
        self.checkouts: list[Checkout] = []
        self.cancelled: list[CancelTask] = []
        self.revoked: list[RevokeGrants] = []
        self.pauses: list[PauseTasks] = []
        self.seen: set[str] = set()
        self.ended: set[str] = set()
        self.task: asyncio.Task[None] | None = None

    async def enrol(self) -> None:
        await self.say(Kind.node_enrolled, self.id, data={"role": self.role, "serial": "1"})

    async def connect(self) -> None:
        data = {"role": self.role, "tier": self.tier, "serial": "1", "pid": "1"}
        await self.say(Kind.node_connected, self.id, data=data)
        if self.task is None:
            self.task = asyncio.create_task(self._serve())

    async def disconnect(self) -> None:
        await self.stop()
        await self.say(Kind.node_disconnected, self.id)

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None

    async def say(self, kind: str, subject: str, *, once: str = "", **fields: Any) -> None:
        fact = make_fact(kind, subject, actor=self.id, clock=self.world.clock, **fields)
        fact = msgspec.structs.replace(fact, id=once or fact.id)
        await self.world.journal.append([fact])

    async def _serve(self) -> None:
        token = await self.world.queue.claim(self.id, "fake")
        async for delivery in self.world.queue.take(token):
            command = decode(delivery.envelope.body, Command)
            if command.id not in self.seen:
                self.seen.add(command.id)
                now = self.world.clock.time()
                check_grant(self.world.key.public, command.grant, command.payload, self.id, now)
                await self._carry_out(decode_payload(command.payload))
            await self.world.queue.ack(token, [delivery.position])

    async def _carry_out(self, payload: Any) -> None:
        match payload:
            case RunTask() if "(main" in payload.label:
                self.baselines.append(payload)
                await self.finish(payload, Status.ok)
            case RunTask():
                payload = msgspec.structs.replace(
                    payload, label=payload.label.removesuffix(" (again)")
                )
                self.ran.append(payload)
                data = {"node": self.id, "tier": self.tier, "attempt": 1}
                await self.say(Kind.task_started, payload.task, data=data)
                if (end := self.program(payload)) is not None:
                    await self.finish(payload, *end)
            case Checkout():
                self.checkouts.append(payload)
                await self.report(payload, self.health(payload))
            case CancelTask():
                self.cancelled.append(payload)
                self.seen.add(payload.command)  # and is passed over if it comes later
                ran = any(task.task == payload.task for task in self.ran)
                if payload.task not in self.ended:
                    await self.finish(payload, Status.killed, "stopped" if ran else "")
            case RevokeGrants():
                self.revoked.append(payload)
            case PauseTasks():
                self.pauses.append(payload)

    async def finish(
        self, task: RunTask | CancelTask, status: Status, out: str = "", **evidence: Any
    ) -> None:
        self.ended.add(task.task)
        result = done(self.name, status, out, **evidence)
        if isinstance(task, RunTask) and not evidence:
            result = msgspec.structs.replace(result, report=self._reported(task, status))
        data = msgspec.to_builtins(result)
        one = fact_of(CommandId(task.task.replace("task-", "cmd-")), Kind.task_finished)
        await self.say(Kind.task_finished, task.task, once=one, outcome=status, data=data)

    def _reported(self, task: RunTask, status: Status) -> RunReport | None:
        report = reported(task, status)
        if report is None or task.cases is None or not task.cases.fresh:
            return report
        made = [
            CaseReport(case=case, outcome=CaseOutcome.passed, output=output)
            for case, output in self.outputs.items()
        ]
        return msgspec.structs.replace(report, cases=(*made, *report.cases))

    async def report(self, checkout: Checkout, outcome: str) -> None:
        if not outcome:
            return
        kind = Kind.checkout_healthy if outcome == "ok" else Kind.checkout_failed
        data = {"repo": checkout.repo, "branch": "main", "canary": checkout.canary}
        await self.say(kind, self.id, revision=checkout.revision, outcome=outcome, data=data)


PERSON = Principal(id=PrincipalId("person/pat"), role=Role.researcher)
REVIEWER = Principal(id=PrincipalId("person/rita"), role=Role.reviewer)
REVIEWER2 = Principal(id=PrincipalId("person/rob"), role=Role.reviewer)
OPERATOR = Principal(id=PrincipalId("person/olga"), role=Role.operator)
VIEWER = Principal(id=PrincipalId("person/vic"), role=Role.viewer)
ADA = Principal(id=PrincipalId("agent/ada"), role=Role.agent)


class FakePeople:
    """Whoever is there now, in their first generation unless `ended` says more."""

    def __init__(self, *people: Principal) -> None:
        self.known = {person.id: person for person in (OWNER, *people)}
        self.tokens, self.generations = None, self

    async def start(self) -> None:
        """Do nothing."""

    async def announce_owed(self) -> None:
        """Do nothing."""

    async def list(self) -> tuple[PersonView, ...]:
        return tuple(
            PersonView(id=p.id, name=p.id[7:], role=p.role, generation=p.generation)
            for p in self.known.values()
        )

    async def present(self, person: PrincipalId, generation: int) -> Principal | None:
        principal = self.known.get(person)
        return principal if principal and principal.generation == generation else None


class World:
    """A control plane on fakes; `control` is there inside `running`."""

    control: Control

    def __init__(self, clock: Any, **config: Any) -> None:
        self.clock = clock
        self.journal, self.queue = MemoryJournal(clock), MemoryEnvelopeQueue(clock=clock)
        self.repository, self.signals = FakeRepository(), FakeSignals()
        self.repository.journal = self.journal
        self.contents = MemoryContents()
        self.landing = FakeLanding(self)
        self.scorer: Any = None
        self.key = SigningKey.generate()
        self.nodes: list[FakeNode] = []
        self.people: Any = FakePeople(PERSON, REVIEWER, REVIEWER2, OPERATOR, VIEWER)
        # No tick in tests: they call `sweep` when time has gone on.
        values = {"tick_s": 3600, "retry_s": 0.01, "merge_wait_s": 5} | config
        self.config = ControlConfig(**values)

    def waiting(self, node: PrincipalId) -> list[Command]:
        """Return the commands in a node's queue, oldest first."""
        rows = self.queue._queue(node).waiting.values()
        return [decode(row.envelope.body, Command) for row in rows]

    def make(self, journal: Any = None) -> Control:
        context = ControlContext(
            projection=Projection(journal or self.journal, self.clock, self.config),
            queue=self.queue,
            repository=self.repository,  # type: ignore[arg-type]
            contents=self.contents,
            signals=self.signals,
            policy=policy_in_force(),
            key=self.key,
            clock=self.clock,
            config=self.config,
            landing=self.landing,
            scorer=self.scorer,
            past=lambda subject: self.journal.read("0-0", 100, (), subject),
        )
        return Control(context, self.people)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Control]:
        async with self.make() as control:
            self.control = control
            try:
                yield control
            finally:
                for node in self.nodes:
                    await node.stop()

    async def node(self, name: str = "exec1", role: str = "execution", **kw: Any) -> FakeNode:
        node = FakeNode(self, name, role, **kw)
        self.nodes.append(node)
        await node.enrol()
        await node.connect()
        await self.settled(lambda s: s.nodes.get(node.id) and s.nodes[node.id].connected)
        return node

    async def settled(self, predicate: Callable[[Any], Any]) -> None:
        def holds() -> object:
            try:
                return predicate(self.control.projection.state)
            except (KeyError, IndexError):
                return False  # what is asked about is not there yet

        await eventually(holds, "the condition")

    async def reaches(self, proposal: str, *states: str) -> Any:
        await self.settled(lambda s: s.proposals[proposal].state in states)
        return self.control.projection.state.proposals[ProposalId(proposal)]

    async def kinds(self, subject: str = "") -> list[str]:
        facts = await self.journal.read("0-0", 10_000, (), subject)
        return [fact.kind for fact in facts]

    async def facts(self, kind: str, subject: str = "") -> list[Any]:
        return await self.journal.read("0-0", 10_000, (kind,), subject)


def edit(path: str = "a.py", text: str = "changed\n", **fields: Any) -> SubmitProposal:
    """Return a proposal of one file's new text against main."""
    values = {"base": "main", "message": f"Change {path}"} | fields
    return SubmitProposal(edits=(NewText(path=path, text=text),), **values)
