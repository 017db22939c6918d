"""The merge queue: batches that land as one, are split when they fail, and whose turn it is."""

from __future__ import annotations

import json

import msgspec
import pytest

from angelos.control.proposals.limits import AuthorLimits
from angelos.control.state.models import ControlState, ProposalRecord
from angelos.control.state.queue import split, turn
from angelos.core.api import PartReview
from angelos.core.facts import CandidateOutcome, Kind
from angelos.core.ids import PrincipalId, ProposalId, Revision
from angelos.core.messages import Status
from angelos.core.permissions import Principal, Role
from tests.unit.control.fakes import ADA, FILES, PERSON, REVIEWER, FakeRepository, World, edit

LIMITS = AuthorLimits(open_proposals=2_000, proposals_per_hour=2_000, repo_proposals=2_000)
EVE = Principal(id=PrincipalId("agent/eve"), role=Role.agent)
SIGMA = Principal(id=PrincipalId("agent/sigma"), role=Role.agent)


async def queued(world, control, *edits):
    """Have proposals wait behind one that is under test; return them and the one before."""
    before = await control.proposals.propose(PERSON, "study", edit("first.txt", "1"))
    views = [await control.proposals.propose(author, "study", body) for author, body in edits]
    await world.reaches(before.id, "testing")
    return views


def bad_files(world, *names):
    """Return a program whose unit tests fail wherever one of these files is."""

    def program(task):
        files = world.repository.files["study"][task.revision]
        if task.label.endswith("unit") and any(name in files for name in names):
            return Status.error, "no"
        return Status.ok, ""

    return program


def runs(node):
    """Return the candidates that were tested, in order; one that failed was tested twice."""
    return list(dict.fromkeys(t.revision for t in node.ran if t.label.endswith("unit")))


async def test_512_disjoint_proposals_land_as_one_that_is_tested_once(clock):
    world = World(clock, author_limits=LIMITS)
    async with world.running() as control:
        views = await queued(
            world, control, *((ADA, edit(f"n{n}.txt", f"{n}")) for n in range(512))
        )
        node = await world.node()
        await world.reaches(views[-1].id, "promoted")
        states = {control.projection.state.proposals[view.id].state for view in views}
        assert states == {"promoted"}
        assert len(runs(node)) == 2, "the first one alone, and then all that had come meanwhile"
        main = await world.repository.head("study", "main")
        files = world.repository.files["study"][main]
        assert all(files[f"n{n}.txt"] == b"%d" % n for n in range(512))
        facts = await world.facts(Kind.proposal_promoted)
        assert {fact.revision for fact in facts[1:]} == {main}
        assert len({fact.plain()["commit"] for fact in facts}) == 513


async def test_a_flooder_delays_others_by_one_test_run(world):
    async with world.running() as control:
        flood = [(EVE, edit(f"bad{n}.txt", "x")) for n in range(8)]
        views = await queued(
            world, control, *flood, (ADA, edit("a1.txt", "1")), (SIGMA, edit("s.txt", "1"))
        )
        node = await world.node(program=bad_files(world, *(f"bad{n}.txt" for n in range(8))))
        for view in views[8:]:
            await world.reaches(view.id, "promoted")
        order = runs(node)
        landed = control.projection.state.proposals[views[8].id].revision
        assert order.index(landed) == 2, "the first one, all together, all but the flooder's"
        for view in views[:8]:
            assert (await world.reaches(view.id, "rejected")).outcome is CandidateOutcome.failed
        late = await control.proposals.propose(EVE, "study", edit("good.txt", "x"))
        await world.reaches(late.id, "promoted")


async def test_one_bad_proposal_of_an_author_costs_the_good_ones_nothing_but_time(world):
    async with world.running() as control:
        views = await queued(world, control, *((ADA, edit(f"n{n}.txt", f"{n}")) for n in range(8)))
        node = await world.node(program=bad_files(world, "n5.txt"))
        for number, view in enumerate(views):
            state = "rejected" if number == 5 else "promoted"
            assert (await world.reaches(view.id, "promoted", "rejected")).state == state
        assert len(runs(node)) <= 1 + 2 * 4
        kinds = await world.kinds(views[5].id)
        assert kinds[-2:] == [Kind.proposal_rejected, Kind.proposal_reverted]


async def test_what_does_not_fit_the_others_comes_after_them(world):
    async with world.running() as control:
        views = await queued(
            world, control, *((author, edit("same.txt", author.id)) for author in (ADA, EVE))
        )
        node = await world.node()
        for view in views:
            await world.reaches(view.id, "promoted")
        assert len(runs(node)) == 3


async def test_who_waits_for_people_stops_nobody_and_is_in_nobodys_candidate(world):
    async with world.running() as control:
        views = await queued(
            world, control,
            (ADA, edit("n1.txt", "1")), (EVE, edit("protected/x.py", "2")),
            (SIGMA, edit("n2.txt", "1")),
        )  # fmt: skip
        node = await world.node()
        one, asked, two = [await world.reaches(view.id, "promoted", "waiting") for view in views]
        assert (one.state, asked.state, two.state) == ("promoted", "waiting", "promoted")
        assert one.revision == two.revision
        files = world.repository.files["study"][one.revision]
        assert files["protected/x.py"] == FILES["protected/x.py"]
        assert len(runs(node)) == 3


async def test_rejecting_one_of_a_batch_lets_the_others_go_on_without_it(world):
    async with world.running() as control:
        views = await queued(world, control, (ADA, edit("n1.txt", "1")), (EVE, edit("n2.txt", "2")))
        tested = set()

        def program(task):
            tested.add(task.revision)
            return None if len(tested) == 2 else (Status.ok, "")

        node = await world.node(program=program)
        await world.settled(lambda s: s.proposals[views[1].id].state == "testing")
        await world.settled(lambda _: len(runs(node)) == 2)
        await control.proposals.reject(REVIEWER, views[1].id, PartReview(digest=views[1].digest))
        record = await world.reaches(views[0].id, "promoted")
        assert "n2.txt" not in world.repository.files["study"][record.revision]


async def test_what_is_not_what_was_tested_does_not_land(world):
    async with world.running() as control:
        await world.node()
        world.landing.problem = "a directory is not as signed"
        main = await world.repository.head("study", "main")
        view = await control.proposals.propose(ADA, "study", edit())
        record = await world.reaches(view.id, "rejected")
        assert "not what was tested" in record.reason
        assert world.landing.checked == [record.candidate]
        assert await world.repository.head("study", "main") == main


# -- whose turn it is ------------------------------------------------------------------------


def record(number, author="agent/ada", **fields):
    values = {"state": "pending", "at": float(number)} | fields
    return ProposalRecord(
        id=ProposalId(f"prop-{number:032x}"), repo="study", base=Revision("0"),
        author=PrincipalId(author), message="", digest="", changes=(), **values,
    )  # fmt: skip


def numbers(records, *, apart=False):
    state = ControlState(
        proposals={r.id: r for r in records}, apart=frozenset({"study"} if apart else ())
    )
    return [int(r.id.removeprefix("prop-"), 16) for r in turn(state, "study")]


def test_authors_take_turns_and_who_was_tested_longest_ago_is_first():
    records = [record(n) for n in range(3)]
    records += [record(8, "agent/eve"), record(9, "agent/eve")]
    records.append(record(7, state="promoted", tested_at=5.0))
    assert numbers(records) == [8, 0, 9, 1, 2]


def test_an_author_whose_last_one_failed_comes_alone_and_every_other_time():
    failed = record(1, state="rejected", tested_at=1.0, outcome=CandidateOutcome.failed)
    records = [failed, record(2), record(3), record(4, "agent/eve"), record(5, "agent/sigma")]
    assert numbers(records) == [2], "the last tests were of the others"
    assert numbers(records, apart=True) == [4, 5]
    mended = record(6, state="promoted", tested_at=2.0, outcome=CandidateOutcome.passed)
    assert numbers([*records, mended], apart=True) == [4, 5, 2, 3]


@pytest.mark.parametrize(
    ("authors", "second"),
    [("eeea", "eee"), ("aaaa", "aa"), ("ab", "a"), ("aabbc", "a"), ("aaab", "aaa"), ("abc", "a")],
)
def test_who_has_most_in_a_batch_that_failed_is_alone_in_the_second_group(authors, second):
    batch = [record(n, f"agent/{letter}") for n, letter in enumerate(authors)]
    groups = split(batch)
    labels = sorted(set(groups.values()))
    assert len(labels) == 2
    chosen = "".join(a for a, r in zip(authors, batch, strict=True) if groups[r.id] == labels[1])
    assert set(chosen) == set(second)
    assert 0 < len(chosen) < len(authors)


# -- a person's kernel -----------------------------------------------------------------------


async def test_what_a_kernel_proposes_is_judged_as_an_agents(world):
    toml = FILES["angelos.toml"] + b"hold_agents = true\n"
    kernel = msgspec.structs.replace(PERSON, kernel=True)
    world.repository = FakeRepository({**FILES, "angelos.toml": toml})
    async with world.running() as control:
        await world.node()
        own = await control.proposals.propose(PERSON, "study", edit("n.py", "import ctypes\n"))
        assert (await control.proposals.view(own.id, wait_s=10)).state == "promoted"
        odd = await control.proposals.propose(kernel, "study", edit("o.py", "import ctypes\n"))
        odd = await control.proposals.view(odd.id, wait_s=10)
        assert (odd.state, odd.findings[0].rule) == ("waiting", "syntax")
        plain = await control.proposals.propose(kernel, "study", edit("x.txt", "x"))
        plain = await control.proposals.view(plain.id, wait_s=10)
        assert plain.state == "waiting"
        assert "hold_agents" in plain.reason


# -- outputs of a clean re-run ---------------------------------------------------------------

TOML = b'[pipeline]\nsteps = [{ name = "nb", notebook = "a.ipynb" }]\n'


def book(*sources):
    cells = [
        {"cell_type": "code", "id": f"c{n}", "source": text, "outputs": [], "metadata": {}}
        for n, text in enumerate(sources)
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


async def test_outputs_of_a_clean_rerun_are_part_of_what_is_tested_and_lands(world):
    world.repository = FakeRepository(
        {"a.ipynb": book("1", "2", "3").encode(), "angelos.toml": TOML}
    )
    async with world.running() as control:
        node = await world.node()
        node.outputs = {"a.ipynb::c1": "[]", "a.ipynb::c2": "[1]"}
        view = await control.proposals.propose(ADA, "study", edit("a.ipynb", book("1", "x", "3")))
        promoted = await world.reaches(view.id, "promoted")
        fresh = [task.cases.fresh for task in node.ran]
        assert fresh == [("c1", "c2"), (), ()], "the cell that changed, and what comes after it"
        assert promoted.candidate == node.ran[1].revision == node.ran[2].revision
        assert promoted.candidate != node.ran[0].revision
        files = world.repository.files["study"][promoted.revision]
        assert files["a.ipynb"] == repr({"c1": "[]", "c2": "[1]"}).encode()
    testing = await world.facts(Kind.proposal_testing)
    assert [bool(fact.plain()["fresh"]) for fact in testing] == [True, False]


async def test_a_rerun_that_fails_writes_nothing_and_the_tests_say_why(world):
    world.repository = FakeRepository({"a.ipynb": book("1").encode(), "angelos.toml": TOML})
    async with world.running() as control:
        node = await world.node(program=lambda _: (Status.error, ""))
        view = await control.proposals.propose(ADA, "study", edit("a.ipynb", book("1/0")))
        record = await world.reaches(view.id, "rejected")
        assert record.steps[0].failed
        assert {task.revision for task in node.ran} == {record.candidate}
