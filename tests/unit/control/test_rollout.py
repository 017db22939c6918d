"""What follows when main moves: canary, roll-out, and back."""

from __future__ import annotations

import pytest

from angelos.core.api import Rollback
from angelos.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Refused
from angelos.core.facts import Kind
from tests.unit.control.fakes import ADA, FILES, OPERATOR, PERSON, FakeNode, FakeRepository, edit


async def promoted(world, **fields):
    """Promote one proposal and return its record."""
    view = await world.control.proposals.propose(ADA, "study", edit(**fields))
    return await world.reaches(view.id, "promoted", "rejected", "rolled-back")


def at(node, revision):
    """Tell whether a node found this revision healthy."""
    return lambda s: s.nodes[node.id].checkouts["study"].healthy == revision


async def test_the_canary_takes_main_first_then_everybody(world):
    async with world.running():
        exec1, labs = await world.node(), await world.node("labs1", "labs")
        first = await world.repository.head("study", "main")
        await world.settled(at(exec1, first))
        labs.health = lambda _: ""
        record = await promoted(world)
        await world.settled(lambda _: labs.checkouts[-1].revision == record.revision)
        order = labs.checkouts[-1]
        assert (order.canary, order.health) == (True, ("python", "-m", "health"))
        assert all(c.revision != record.revision for c in exec1.checkouts)
        await labs.report(order, "ok")
        await world.settled(at(exec1, record.revision))
        assert not exec1.checkouts[-1].canary


async def test_without_a_labs_node_it_goes_straight_on_and_says_so(world):
    async with world.running():
        exec1 = await world.node()
        record = await promoted(world)
        await world.settled(at(exec1, record.revision))
    facts = await world.facts(Kind.checkout_requested)
    assert {f.plain()["no_canary"] for f in facts} == {"no labs node is enrolled"}


async def test_a_sick_canary_rolls_main_back_by_itself(world):
    async with world.running() as control:
        exec1, labs = await world.node(), await world.node("labs1", "labs")
        first = await world.repository.head("study", "main")
        await world.settled(at(exec1, first))
        bad = []
        labs.health = lambda c: "error" if c.revision in bad else "ok"
        real = world.repository.advance

        async def advance(repo, revision, expected):
            bad.append(revision)
            await real(repo, revision, expected)

        world.repository.advance = advance
        view = await control.proposals.propose(ADA, "study", edit())
        record = await world.reaches(view.id, "rolled-back")
        assert "node/labs1 ended as error" in record.reason
        main = await world.repository.head("study", "main")
        assert world.repository.parents[main] == bad[0]
        assert world.repository.files["study"][main] == world.repository.files["study"][first]
        await world.settled(at(exec1, main))
        await world.settled(at(labs, main))
        assert bad[0] not in {c.revision for c in exec1.checkouts}
    done = (await world.facts(Kind.rollback_done))[0]
    assert (done.subject, done.revision) == ("study:main", main)
    assert (done.plain()["from"], done.plain()["to"], done.plain()["cause"]) == (
        bad[0],
        first,
        "health",
    )


async def test_a_sick_execution_node_rolls_main_back_too(world):
    async with world.running() as control:
        exec1, _ = await world.node(), await world.node("labs1", "labs")
        first = await world.repository.head("study", "main")
        await world.settled(at(exec1, first))
        exec1.health = lambda c: "timeout" if len(exec1.checkouts) == 2 else "ok"
        view = await control.proposals.propose(ADA, "study", edit())
        await world.reaches(view.id, "rolled-back")


@pytest.mark.parametrize("outcome", ["unavailable", "forbidden", "killed"])
async def test_a_checkout_that_did_not_come_to_an_end_is_tried_again(world, outcome):
    async with world.running():
        exec1 = FakeNode(world, "exec1")
        world.nodes.append(exec1)
        exec1.health = lambda _: outcome if len(exec1.checkouts) < 3 else "ok"
        await exec1.connect()
        main = await world.repository.head("study", "main")
        await world.settled(at(exec1, main))
    assert not await world.facts(Kind.rollback_done)


async def test_it_is_not_tried_for_ever(world):
    async with world.running():
        exec1 = FakeNode(world, "exec1")
        world.nodes.append(exec1)
        exec1.health = lambda _: "unavailable"
        await exec1.connect()
        await world.settled(lambda s: s.nodes[exec1.id].checkouts["study"].attempt == 3)
        await world.settled(lambda s: s.nodes[exec1.id].checkouts["study"].state == "failed")
        assert len(exec1.checkouts) == 3
        exec1.health = lambda _: "ok"
        await exec1.disconnect()
        await exec1.connect()
        main = await world.repository.head("study", "main")
        await world.settled(at(exec1, main))


async def test_a_missing_canary_is_waited_for(world):
    async with world.running() as control:
        exec1, labs = await world.node(), await world.node("labs1", "labs")
        await labs.disconnect()
        record = await promoted(world)
        await world.settled(lambda s: s.repos["study"].main.revision == record.revision)
        assert "waits for its canary labs1" in (await control.status()).banner
        assert all(c.revision != record.revision for c in exec1.checkouts)
        await labs.connect()
        await world.settled(at(exec1, record.revision))
        assert (await control.status()).banner == ""
    assert not await world.facts(Kind.rollback_done)


async def test_a_canary_that_stays_silent_is_gone_round_and_takes_it_when_it_is_back(world):
    async with world.running() as control:
        exec1, labs = await world.node(), await world.node("labs1", "labs")
        await labs.disconnect()
        record = await promoted(world)
        await world.settled(lambda s: s.repos["study"].main.revision == record.revision)
        control.sweep()
        assert not await world.facts(Kind.checkout_skipped)
        world.clock.advance(61)
        control.sweep()
        await world.settled(at(exec1, record.revision))
        (skipped,) = await world.facts(Kind.checkout_skipped)
        assert skipped.subject == labs.id
        status = await control.status()
        assert [c.kind for c in status.cards if c.subject == "study:main"] == ["rollout"]
        assert "went round node/labs1" in status.banner
        requested = (await world.facts(Kind.checkout_requested))[-1].plain()
        assert "went round" in requested["no_canary"]
        await labs.connect()
        await world.settled(at(labs, record.revision))


async def test_a_node_that_comes_back_gets_the_present_main(world):
    async with world.running():
        exec1, other = await world.node(), await world.node("exec2")
        await other.disconnect()
        record = await promoted(world)
        await world.settled(at(exec1, record.revision))
        await other.connect()
        await world.settled(at(other, record.revision))


async def test_an_operator_rolls_back_and_undoes_it(world):
    async with world.running() as control:
        exec1, labs = await world.node(), await world.node("labs1", "labs")
        first = await world.repository.head("study", "main")
        record = await promoted(world)
        await world.settled(at(exec1, record.revision))
        there = await control.rollout.rollback(OPERATOR, "study", Rollback(to=first, reason="hm"))
        await world.settled(at(exec1, there))
        await world.settled(at(labs, there))
        assert control.projection.state.proposals[record.id].state == "rolled-back"
        back = await control.rollout.rollback(OPERATOR, "study", Rollback(to=record.revision))
        await world.settled(at(exec1, back))
        assert control.projection.state.proposals[record.id].state == "promoted"
    done = await world.facts(Kind.rollback_done)
    assert [f.actor for f in done] == [OPERATOR.id] * 2
    assert [f.plain()["cause"] for f in done] == ["request"] * 2


async def test_one_person_does_not_undo_what_two_decided_by_a_rollback(world):
    async with world.running() as control:
        await world.node()
        first = await world.repository.head("study", "main")
        toml = FILES["angelos.toml"].replace(b"protected/**", b"p/**")
        files = {**FILES, "angelos.toml": toml}
        changed = world.repository._commit("study", files, first)
        later = world.repository._commit("study", {**files, "b.py": b"more"}, changed)
        world.repository.heads["study", "main"] = later
        with pytest.raises(Refused, match=r"angelos\.toml has changed"):
            await control.rollout.rollback(OPERATOR, "study", Rollback(to=first))
        assert await world.repository.head("study", "main") == later
        await control.rollout.rollback(OPERATOR, "study", Rollback(to=changed))
        assert await world.repository.head("study", "main") != later


async def test_a_sick_rollback_goes_back_to_where_it_came_from(world):
    async with world.running() as control:
        exec1 = await world.node()
        first = await world.repository.head("study", "main")
        record = await promoted(world)
        await world.settled(at(exec1, record.revision))
        exec1.health = lambda c: "error" if len(exec1.checkouts) == 3 else "ok"
        await control.rollout.rollback(OPERATOR, "study", Rollback(to=first))
        await world.settled(lambda s: len(s.repos["study"].mains) == 4)
        main = await world.repository.head("study", "main")
        files = world.repository.files["study"]
        assert files[main] == files[record.revision]
        await world.settled(at(exec1, main))
        assert control.projection.state.proposals[record.id].state == "promoted"


async def test_a_first_main_that_is_sick_has_nowhere_to_go(world):
    async with world.running() as control:
        exec1 = FakeNode(world, "exec1")
        world.nodes.append(exec1)
        exec1.health = lambda _: "error"
        await exec1.connect()
        await world.settled(lambda s: s.repos["study"].main.failed)
        assert "not healthy" in (await control.status()).banner
    assert not await world.facts(Kind.rollback_done)


@pytest.mark.parametrize(
    ("to", "error"), [("main", InvalidInput), ("0" * 64, NotFound), (None, Conflict)]
)
async def test_a_rollback_to_nowhere_is_refused(world, to, error):
    async with world.running() as control:
        to = to or await world.repository.head("study", "main")
        with pytest.raises(error):
            await control.rollout.rollback(OPERATOR, "study", Rollback(to=to))
    assert not await world.facts(Kind.rollback_done)


async def test_only_operators_roll_back(world):
    async with world.running() as control:
        first = await world.repository.head("study", "main")
        for principal in (PERSON, ADA):
            with pytest.raises(Forbidden):
                await control.rollout.rollback(principal, "study", Rollback(to=first))


async def test_nobody_else_can_speak_for_a_node(world):
    async with world.running():
        exec1, liar = await world.node(), await world.node("exec2")
        record = await promoted(world)
        await world.settled(at(exec1, record.revision))
        await liar.say(
            Kind.checkout_failed, exec1.id, revision=record.revision, outcome="error",
            data={"repo": "study"},
        )  # fmt: skip
        await promoted(world, path="b.py")
    assert not await world.facts(Kind.rollback_done)


async def test_a_rollback_that_was_not_told_is_told_after_the_crash(world):
    """The process dies between the repository's rollback and its fact."""
    async with world.running() as control:
        exec1 = await world.node()
        first = await world.repository.head("study", "main")
        await world.settled(at(exec1, first))
        exec1.health = lambda c: "ok" if c.revision == first else ""
        record = await promoted(world)
        await world.settled(lambda _: exec1.checkouts[-1].revision == record.revision)
        order = exec1.checkouts[-1]
    await world.repository.rollback("study", first, "system/supervisor", "health")
    await exec1.report(order, "error")
    exec1.health = lambda _: "ok"
    async with world.running() as control:
        await world.settled(lambda s: s.proposals[record.id].state == "rolled-back")
        assert world.repository.calls.count(f"rollback {first}") == 1
        await exec1.connect()
        main = await world.repository.head("study", "main")
        await world.settled(at(exec1, main))
        assert control.projection.state.repos["study"].main.restores == first


async def test_a_new_repository_is_found_and_rolled_out(world):
    async with world.running():
        exec1 = await world.node()
        other = FakeRepository({"x.py": b"1\n"}, "other")
        world.repository.files |= other.files
        world.repository.heads |= other.heads
        head = other.heads["other", "main"]
        await exec1.say(Kind.branch_advanced, "other:main", revision=head, data={"before": ""})
        await world.settled(lambda s: s.nodes[exec1.id].checkouts["other"].healthy == head)
