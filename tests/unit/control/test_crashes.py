"""Control dies at each fact that it says, once before and once after the journal took it.

Started again on the same journal, queue and repository it must come to the same end, with
nothing done twice.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from angelos.core.api import SubmitTask
from angelos.core.errors import AngelError
from angelos.core.facts import Kind
from angelos.core.ids import CommandId, ProposalId
from angelos.core.messages import Status
from angelos.testing import ManualClock, eventually
from tests.unit.control.fakes import ADA, PERSON, FakeNode, World, edit

PROPOSAL = ProposalId("prop-" + "1" * 32)
COMMAND = CommandId("cmd-" + "2" * 32)
MOST_FACTS = 30


class MortalJournal:
    """The journal as control sees it: at its n-th append, control is dead."""

    def __init__(self, real, appends, *, taken):
        self.real, self.left, self.taken = real, appends, taken
        self.died = asyncio.Event()

    async def append(self, facts):
        if self.left == 0 or self.died.is_set():
            if self.taken and not self.died.is_set():
                await self.real.append(facts)
            self.died.set()
            await asyncio.Event().wait()
        self.left -= 1
        return await self.real.append(facts)

    def __getattr__(self, name):
        return getattr(self.real, name)


async def ask(world, control):
    """Ask for a task and a proposal, as a client does that repeats what was not answered."""
    for node in world.nodes:
        await node.enrol()
        await node.connect()
    await world.settled(lambda s: all(s.nodes[node.id].connected for node in world.nodes))
    body = SubmitTask(code="print(1)", command=COMMAND)
    with contextlib.suppress(AngelError):
        await control.tasks.submit(PERSON, body)
    with contextlib.suppress(AngelError):
        await control.proposals.propose(ADA, "study", edit(proposal=PROPOSAL))


async def live_and_die(world, appends, *, taken):
    """Run until control is dead; tell whether it died at all."""
    mortal = MortalJournal(world.journal, appends, taken=taken)
    await asyncio.wait_for(_until_dead(world, mortal, ask, mortal), 10)
    return mortal.died.is_set()


async def _until_dead(world, mortal, request, journal):
    async def enter():
        async with world.make(journal) as control:
            world.control = control
            asking = asyncio.create_task(request(world, control))
            try:
                await eventually(
                    lambda: mortal.died.is_set() or (asking.done() and world.over()), "an end"
                )
            finally:
                asking.cancel()

    living = asyncio.create_task(enter())
    dead = asyncio.create_task(mortal.died.wait())
    try:
        await asyncio.wait({living, dead}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        living.cancel()
        dead.cancel()
        await asyncio.gather(living, dead, return_exceptions=True)


def make_world(ending):
    """Return a world whose proposal ends as `ending`."""
    world = World(ManualClock())

    def ended():
        state = world.control.projection.state
        record = state.proposals.get(PROPOSAL)
        task = next((t for t in state.tasks.values() if t.command == COMMAND), None)
        if record is None or task is None or task.open or record.state != ending:
            return False
        if ending == "rejected":
            return record.reverted
        main = world.repository.heads["study", "main"]
        healthy = [n.checkouts.get("study") for n in state.nodes.values()]
        return all(c and c.healthy == main for c in healthy)

    world.over = ended
    return world


def populate(world, ending):
    """Give a world the nodes that bring its ending about."""
    world.nodes = [FakeNode(world, "exec1"), FakeNode(world, "labs1", "labs")]
    if ending == "rejected":
        world.nodes[0].program = lambda t: (
            (Status.error, "no") if t.label == "study: unit" else (Status.ok, "")
        )
    if ending == "rolled-back":
        files = world.repository.files["study"]
        world.nodes[1].health = lambda c: (
            "error" if files[c.revision]["a.py"] == b"changed\n" else "ok"
        )


@pytest.mark.parametrize("taken", [False, True], ids=["lost", "taken"])
@pytest.mark.parametrize("ending", ["promoted", "rejected", "rolled-back"])
async def test_whenever_it_dies_the_end_is_the_same(ending, taken):
    for appends in range(MOST_FACTS):
        world = make_world(ending)
        populate(world, ending)
        died = await live_and_die(world, appends, taken=taken)
        async with world.running() as control:
            await ask(world, control)
            await eventually(world.over, f"the end after a death at fact {appends}")
        await check(world, ending)
        if not died:
            assert appends > 7, "the scenario says more facts than that"
            return
    pytest.fail("the scenario never ends within the facts tried")


BATCH = [ProposalId(f"prop-{number:032x}") for number in range(10, 14)]


class MortalRepository:
    """The repository as control sees it: at its n-th call that writes, control is dead."""

    def __init__(self, real, calls, *, taken):
        self.real, self.left, self.taken = real, calls, taken
        self.died = asyncio.Event()

    async def _write(self, call):
        if self.left == 0 or self.died.is_set():
            if self.taken and not self.died.is_set():
                await call()
            self.died.set()
            await asyncio.Event().wait()
        self.left -= 1
        return await call()

    async def candidate(self, *proposals, outputs=None):
        return await self._write(lambda: self.real.candidate(*proposals, outputs=outputs))

    async def advance(self, repo, revision, expected):
        return await self._write(lambda: self.real.advance(repo, revision, expected))

    async def withdraw(self, proposal):
        return await self._write(lambda: self.real.withdraw(proposal))

    def __getattr__(self, name):
        return getattr(self.real, name)


def batch_world():
    """Return a world in which four proposals come at once; the third fails its tests."""
    world = World(ManualClock())
    world.nodes = [FakeNode(world, "exec1")]
    world.nodes[0].program = lambda t: (
        (Status.error, "no")
        if "n2.txt" in world.repository.files["study"][t.revision] and t.label.endswith("unit")
        else (Status.ok, "")
    )

    def over():
        records = [world.control.projection.state.proposals.get(id_) for id_ in BATCH]
        return all(r and not r.open for r in records)

    world.over = over
    return world


async def ask_batch(world, control):
    """Propose the four, again and again, and then connect the node."""
    for number, proposal in enumerate(BATCH):
        with contextlib.suppress(AngelError):
            body = edit(f"n{number}.txt", "x", proposal=proposal)
            await control.proposals.propose(ADA, "study", body)
    for node in world.nodes:
        await node.enrol()
        await node.connect()


@pytest.mark.parametrize("taken", [False, True], ids=["lost", "taken"])
@pytest.mark.parametrize("part", ["journal", "repository"])
async def test_a_batch_ends_the_same_whenever_control_dies(part, taken):
    for step in range(80):
        world = batch_world()
        real = world.repository
        if part == "journal":
            mortal = MortalJournal(world.journal, step, taken=taken)
        else:
            mortal = world.repository = MortalRepository(real, step, taken=taken)
        journal = mortal if part == "journal" else world.journal
        await asyncio.wait_for(_until_dead(world, mortal, ask_batch, journal), 30)
        world.repository = real
        async with world.running() as control:
            await ask_batch(world, control)
            await eventually(world.over, f"the end after a death at step {step}")
        await check_batch(world)
        if not mortal.died.is_set():
            assert step > 4, "there are more steps than that"
            return
    pytest.fail("the scenario never ends within the steps tried")


async def check_batch(world):
    """Check that each of the four landed or failed once, and main has exactly what landed."""
    repository = world.repository
    files = repository.files["study"][repository.heads["study", "main"]]
    assert [f"n{n}.txt" in files for n in range(4)] == [True, True, False, True]
    for number, proposal in enumerate(BATCH):
        kinds = await world.kinds(proposal)
        last = Kind.proposal_reverted if number == 2 else Kind.proposal_promoted
        assert kinds.count(last) == 1, kinds
        assert kinds[-1] == last, kinds
    advances = [call for call in repository.calls if call.startswith("advance")]
    assert len(advances) == len(set(advances))
    for node in world.nodes:
        assert len({task.task for task in node.ran}) == len(node.ran)


async def check(world, ending):
    """Check that everything happened once and in order."""
    repository, nodes = world.repository, world.nodes
    kinds = await world.kinds(PROPOSAL)
    once = [k for k in kinds if k != Kind.proposal_testing]
    assert len(once) == len(set(once)), kinds
    assert repository.merged == repository.reverted == []
    assert len({task.task for task in nodes[0].ran}) == len(nodes[0].ran)
    files = repository.files["study"][repository.heads["study", "main"]]
    changed = ending == "promoted"
    assert (files["a.py"] == b"changed\n") is changed
    advances = [call for call in repository.calls if call.startswith("advance")]
    rollbacks = [call for call in repository.calls if call.startswith("rollback")]
    assert len(advances) == (ending != "rejected")
    assert len(rollbacks) == (ending == "rolled-back")
    assert len(await world.facts(Kind.rollback_done)) == len(rollbacks)
    assert set(repository.withdrawn) == ({PROPOSAL} if ending == "rejected" else set())
    accepted = [fact.subject for fact in await world.facts(Kind.task_accepted)]
    assert len(accepted) == len(set(accepted))
