"""A long change is approved only by who was given every page of it, as it is now."""

from __future__ import annotations

import msgspec
import pytest

from angelos.control.proposals import showing
from angelos.core.api import PartReview, Review
from angelos.core.errors import Conflict, InvalidInput, NotShown
from angelos.core.ids import ProposalId
from tests.unit.control.fakes import ADA, REVIEWER, REVIEWER2, edit

LONG = "".join(f"line {n}\n" for n in range(2_000))


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr(showing, "PAGE_CHARS", 7_000)


async def waiting(world, control, path="protected/x.py", text=LONG):
    view = await control.proposals.propose(ADA, "study", edit(path, text))
    view = await control.proposals.view(view.id, wait_s=10)
    assert view.state == "waiting", view.reason
    return view


async def pages(control, principal, proposal):
    answers, after = [], ""
    while True:
        answers.append(await control.proposals.diff(principal, proposal, after))
        after = answers[-1].next
        if not after:
            return answers


async def approve(control, principal, view, shown=""):
    review = Review(digest=view.digest, shown=shown)
    return await control.proposals.approve(principal, view.id, review)


async def test_every_page_then_an_approval(world):
    async with world.running() as control:
        await world.node()
        view = await waiting(world, control)
        assert view.long
        with pytest.raises(NotShown, match="not shown"):
            await approve(control, REVIEWER, view)
        given = await pages(control, REVIEWER, view.id)
        assert len(given) > 2
        assert [bool(page.shown) for page in given] == [False] * (len(given) - 1) + [True]
        text = "".join(change.diff for page in given for change in page.changes)
        assert text == "".join(f"+{line}\n" for line in LONG.splitlines())
        assert [page.changes[-1].cut for page in given] == [not page.shown for page in given]
        assert {page.digest for page in given} == {view.digest}
        await approve(control, REVIEWER, view, given[-1].shown)
        await world.reaches(view.id, "promoted")


async def test_what_stands_for_no_whole(world):
    async with world.running() as control:
        await world.node()
        view = await waiting(world, control)
        other = await waiting(world, control, "protected/y.py")
        given = await pages(control, REVIEWER, view.id)
        of_another = (await pages(control, REVIEWER, other.id))[-1].shown
        of_somebody = (await pages(control, REVIEWER2, view.id))[-1].shown
        later = msgspec.structs.replace(REVIEWER, generation=REVIEWER.generation + 1)
        of_another_session = (await pages(control, later, view.id))[-1].shown
        first = given[0].next.partition(".")[2]
        for shown in (of_another, of_somebody, of_another_session, first, "x", "\u00e9", ""):
            with pytest.raises(NotShown):
                await approve(control, REVIEWER, view, shown)
        # No page is skipped: each needs what the one before gave.
        place, _, ticket = given[0].next.partition(".")
        for after in (f"{int(place) + 1}.{ticket}", "999999.", f"-1.{given[-1].shown}", "x", "1"):
            with pytest.raises(InvalidInput):
                await control.proposals.diff(REVIEWER, view.id, after)
        assert not world.control.projection.state.proposals[view.id].approvals


async def test_a_short_change_is_shown_by_every_list(world):
    async with world.running() as control:
        await world.node()
        view = await waiting(world, control, text="one line\n")
        assert not view.long
        (only,) = await pages(control, REVIEWER, view.id)
        assert only.shown
        await approve(control, REVIEWER, view)
        await world.reaches(view.id, "promoted")


async def test_many_files_come_in_pages(world, monkeypatch):
    monkeypatch.setattr(showing, "PAGE_FILES", 2)
    async with world.running() as control:
        await world.node()
        view = await waiting(world, control)
        record = world.control.projection.state.proposals[view.id]
        changes = tuple(
            msgspec.structs.replace(record.changes[0], path=f"f{n}", diff="+x\n") for n in range(5)
        )

        async def own_changes(repo, commit):
            return changes

        monkeypatch.setattr(world.repository, "own_changes", own_changes)
        given = await pages(control, REVIEWER, view.id)
        assert [[c.path for c in page.changes] for page in given] == [
            ["f0", "f1"],
            ["f2", "f3"],
            ["f4"],
        ]


async def test_an_acceptance_of_what_was_not_shown_is_no_approval(world):
    async with world.running() as control:
        await world.node()
        view = await waiting(world, control)
        body = PartReview(digest=view.digest)
        view = await control.proposals.accept(REVIEWER, view.id, body)
        assert view.in_dev
        assert (view.state, view.approvals) == ("waiting", ())


async def test_there_is_nothing_to_show_before_the_tests(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        view = await control.proposals.propose(ADA, "study", edit("protected/x.py", LONG))
        record = world.control.projection.state.proposals[ProposalId(view.id)]
        if record.commit is None:
            with pytest.raises(Conflict, match="no candidate"):
                await control.proposals.diff(REVIEWER, view.id)
