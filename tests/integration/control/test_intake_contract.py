"""What every door for proposals promises (`core.ports.ProposalIntake`).

In memory at present; ADAM's joins `make_intake` when it exists. A door under test also offers
`repository`, `generations` and `refusals`, as `angelos.testing.MemoryIntake` does.
"""

from __future__ import annotations

import msgspec
import pytest

from angelos.core.branches import DEV, BranchName
from angelos.core.errors import (
    AngelError,
    Busy,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    Stale,
    Unauthenticated,
)
from angelos.core.ids import PrincipalId, ProposalId, Revision, TaskId, new_proposal_id
from angelos.core.intake import IntakeNext, IntakeSource, Submission, refusal_of
from angelos.core.pending import PendingState, conflicts_of, part_of
from angelos.core.principals import ActingSession, EndCause, SessionKind
from angelos.core.repository import NewText
from angelos.testing import MemoryGenerations, MemoryIntake, MemoryRepository

ADA, BOB, EVE = PrincipalId("agent/ada"), PrincipalId("agent/bob"), PrincipalId("person/eve")
TEXT = "one\ntwo\nthree\nfour\nfive\n"
replace = msgspec.structs.replace


@pytest.fixture(params=["memory"])
async def make_intake(request):
    """Makes a door to the repository `study`; options say what policy allows."""

    async def make(**options):
        repository = MemoryRepository()
        files = {"a.py": TEXT.encode(), "b.py": TEXT.encode()}
        await repository.create("study", files, EVE, "import")
        generations = MemoryGenerations()
        for principal in (ADA, BOB, EVE):
            await generations.begin(principal)
        return MemoryIntake(repository, generations, **options)

    return make


@pytest.fixture
async def intake(make_intake):
    return await make_intake()


async def session_of(intake, principal=ADA, **fields):
    standing = await intake.generations.standing(principal)
    return ActingSession(
        id=f"s-{principal}", principal=principal, generation=standing.generation,
        kind=SessionKind.certificate, **fields,
    )  # fmt: skip


async def submission(intake, principal=ADA, text="one\n2\nthree\nfour\nfive\n", **fields):
    session = fields.pop("session", None) or await session_of(intake, principal)
    edits = fields.pop("edits", (NewText(path=fields.pop("path", "a.py"), text=text),))
    return Submission(
        id=fields.pop("id", None) or new_proposal_id(), repo=fields.pop("repo", "study"),
        base=fields.pop("base", "main"), edits=edits, message="why", session=session,
        source=fields.pop("source", IntakeSource.mcp), **fields,
    )  # fmt: skip


def live(intake, path="a.py"):
    return intake.repository.live("study", path).decode()


async def refused(intake, handed_in, error):
    """Hand in what is refused, and check that it left a trace and nothing else."""
    before = live(intake), await intake.repository.list_pending("study")
    count = len(intake.refusals)
    with pytest.raises(error) as raised:
        await intake.submit(handed_in)
    assert intake.refusals[count:] == [(handed_in.id, error.code)]
    assert (live(intake), await intake.repository.list_pending("study")) == before
    return raised.value


async def test_a_proposal_is_taken_in_and_changes_nothing_yet(intake):
    handed_in = await submission(intake, task=TaskId("task-1"))
    receipt = await intake.submit(handed_in)
    main = (await intake.repository.branch("study", BranchName("main"))).revision
    assert (receipt.id, receipt.repo, receipt.author) == (handed_in.id, "study", ADA)
    assert (receipt.base, receipt.state, receipt.next) == (
        main, PendingState.open, IntakeNext.review,
    )  # fmt: skip
    assert not receipt.live
    assert not receipt.duplicate
    assert live(intake) == TEXT
    pending = await intake.repository.pending(receipt.id)
    assert (pending.digest, pending.author, pending.task) == (receipt.digest, ADA, "task-1")
    assert intake.refusals == []


async def test_a_lost_answer_can_be_asked_again(intake):
    handed_in = await submission(intake)
    first = await intake.submit(handed_in)
    again = await intake.submit(handed_in)
    assert again == replace(first, duplicate=True)
    later = replace(handed_in, session=await session_of(intake, expires_at=4e9), trace="t")
    assert await intake.submit(later) == again
    assert len(await intake.repository.list_pending("study")) == 1


async def test_a_branch_as_base_is_not_resolved_anew(intake):
    handed_in = await submission(intake, base="dev")
    first = await intake.submit(handed_in)
    other = await intake.submit(await submission(intake, BOB, path="b.py"))
    pending = await intake.repository.pending(other.id)
    await intake.repository.accept(part_of(pending), EVE)
    assert (await intake.repository.branch("study", DEV)).revision != first.base
    again = await intake.submit(handed_in)
    assert (again.base, again.digest, again.duplicate) == (first.base, first.digest, True)


async def test_what_was_decided_says_so_when_it_is_asked_again(intake):
    handed_in = await submission(intake)
    await intake.submit(handed_in)
    part = part_of(await intake.repository.pending(handed_in.id))
    await intake.repository.withdraw(part, EVE, "no")
    again = await intake.submit(handed_in)
    assert (again.next, again.state) == (IntakeNext.settled, PendingState.withdrawn)


async def test_an_id_is_one_authors_and_one_contents(intake):
    handed_in = await submission(intake)
    first = await intake.submit(handed_in)
    edits = (NewText(path="a.py", text="other\n"),)
    await refused(intake, replace(handed_in, edits=edits), Conflict)
    theft = replace(handed_in, session=await session_of(intake, BOB))
    await refused(intake, theft, Conflict)
    await refused(intake, replace(theft, edits=edits, replaces=first.digest), Conflict)


async def test_a_newer_version_replaces_the_older(intake):
    handed_in = await submission(intake)
    first = await intake.submit(handed_in)
    newer = replace(handed_in, edits=(NewText(path="a.py", text="other\n"),), replaces=first.digest)
    second = await intake.submit(newer)
    assert second.base == first.base
    assert (second.id, second.duplicate) == (first.id, False)
    assert second.digest != first.digest
    assert (await intake.submit(newer)).duplicate
    await refused(intake, handed_in, Conflict)  # the older one comes late


async def test_a_newer_version_may_have_a_newer_base(intake):
    handed_in = await submission(intake, base="dev")
    first = await intake.submit(handed_in)
    other = await intake.submit(await submission(intake, BOB, path="b.py"))
    await intake.repository.accept(part_of(await intake.repository.pending(other.id)), EVE)
    edits = (NewText(path="a.py", text="other\n"),)
    second = await intake.submit(replace(handed_in, edits=edits, replaces=first.digest))
    assert second.base == (await intake.repository.branch("study", DEV)).revision != first.base


@pytest.mark.parametrize("cause", EndCause)
async def test_a_session_that_is_over_hands_nothing_in(intake, cause):
    handed_in = await submission(intake)
    await intake.generations.end(ADA, handed_in.session.generation, cause)
    error = await refused(intake, handed_in, Unauthenticated)
    assert error.extra["cause"] == cause
    with pytest.raises(Unauthenticated):
        await intake.find(handed_in.id, handed_in.session)


async def test_an_expired_session_or_nobodys_hands_nothing_in(intake):
    expired = await submission(intake, session=await session_of(intake, expires_at=1.0))
    assert (await refused(intake, expired, Unauthenticated)).extra["cause"] == "expired"
    nobody = replace(expired.session, principal=PrincipalId("agent/nobody"), expires_at=None)
    await refused(intake, replace(expired, session=nobody), Unauthenticated)


async def test_what_policy_does_not_allow_is_refused(make_intake):
    intake = await make_intake(may_propose=lambda s: s.session.principal != ADA)
    await refused(intake, await submission(intake), Forbidden)
    await intake.submit(await submission(intake, BOB))


async def test_live_needs_a_right_of_its_own(make_intake):
    intake = await make_intake(may_enter=lambda s: s.session.principal == BOB)
    await refused(intake, await submission(intake, live=True), Forbidden)
    handed_in = await submission(intake, BOB, live=True, source=IntakeSource.room)
    receipt = await intake.submit(handed_in)
    assert (receipt.live, receipt.state) == (True, PendingState.accepted)
    assert live(intake) == "one\n2\nthree\nfour\nfive\n"
    assert await intake.submit(handed_in) == replace(receipt, duplicate=True)
    assert live(intake) == "one\n2\nthree\nfour\nfive\n"


async def test_what_was_cut_off_before_it_entered_enters_when_it_is_asked_again(make_intake):
    intake = await make_intake(may_enter=lambda s: True)
    handed_in = await submission(intake, live=True, base="dev")
    await intake.submit(replace(handed_in, live=False))  # as far as it came
    await intake.submit(await submission(intake, BOB, path="b.py", live=True))
    receipt = await intake.submit(handed_in)
    assert receipt.live
    assert live(intake) == "one\n2\nthree\nfour\nfive\n"


async def test_a_stale_one_is_refused_with_the_newer_text(intake):
    intake.repository.type_text("study", "a.py", TEXT.replace("two", "typed"), EVE)
    error = await refused(intake, await submission(intake), Stale)
    assert [conflict.current for conflict in conflicts_of(error)] == ["typed\n"]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"id": ProposalId("mine")}, InvalidInput),
        ({"id": ProposalId("task-" + "0" * 32)}, InvalidInput),
        ({"base": "0" * 40}, InvalidInput),
        ({"base": "a..b"}, InvalidInput),
        ({"target": BranchName("-x")}, InvalidInput),
        ({"edits": ()}, InvalidInput),
        ({"edits": (NewText(path="a.py", text=TEXT),)}, InvalidInput),
        ({"edits": (NewText(path="../x", text="x"),)}, InvalidInput),
        ({"edits": (NewText(path="x", text="x" * 16_000_001),)}, InvalidInput),
        ({"base": "nosuch"}, NotFound),
        ({"base": Revision("0" * 64)}, NotFound),
        ({"repo": "nosuch"}, NotFound),
    ],
)
async def test_what_cannot_be_is_refused(intake, fields, error):
    await refused(intake, await submission(intake, **fields), error)


async def test_one_authors_flood_is_busy_for_that_author_alone(make_intake):
    intake = await make_intake(max_open=2)
    handed_in = [await submission(intake, path=path) for path in ("a.py", "b.py")]
    receipts = [await intake.submit(each) for each in handed_in]
    error = await refused(intake, await submission(intake), Busy)
    assert error.extra["retry_after_s"] > 0
    assert (await intake.submit(handed_in[0])).duplicate
    await intake.submit(replace(
        handed_in[1], edits=(NewText(path="b.py", text="x\n"),), replaces=receipts[1].digest
    ))  # fmt: skip
    await intake.submit(await submission(intake, BOB))
    part = part_of(await intake.repository.pending(handed_in[0].id))
    await intake.repository.withdraw(part, EVE, "no")
    await intake.submit(await submission(intake))


async def test_a_proposal_is_shown_to_its_author_and_not_to_other_agents(intake):
    receipt = await intake.submit(await submission(intake))
    assert await intake.find(receipt.id, await session_of(intake)) == replace(
        receipt, duplicate=True
    )
    for proposal, who in ((receipt.id, BOB), (new_proposal_id(), ADA)):
        with pytest.raises(NotFound):
            await intake.find(proposal, await session_of(intake, who))


async def test_a_refusal_is_data_for_ways_without_exceptions(intake):
    error = await refused(intake, await submission(intake, base="nosuch"), NotFound)
    refusal = refusal_of(error)
    assert (refusal.code, refusal.detail) == (NotFound.code, error.detail)
    long = refusal_of(AngelError("two\nlines " + "x" * 2_000, hint="a\tb"))
    assert (long.detail[:9], len(long.detail), long.hint) == ("two lines", 1_000, "a b")
