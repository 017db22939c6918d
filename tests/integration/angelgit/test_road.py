"""A patch's way: proposed, merged around others, promoted, taken back."""

from __future__ import annotations

import asyncio

import pytest

from angelos.angelgit.service import AngelGit
from angelos.core.errors import Conflict, InvalidInput, NotFound, Stale
from angelos.core.facts import Kind
from angelos.core.ids import START, new_proposal_id
from angelos.core.repository import DeleteFile, NewText, UnifiedDiff
from angelos.core.revision import KnownObjects, verify_bundle
from angelos.core.revision_v2 import verify_commit_object
from angelos.testing import next_fact

from .conftest import ADA, BOB, EVE, FILE, queued


async def test_an_import_is_signed_readable_and_on_both_branches(git, base, key, tmp_path):
    assert await git.repos() == ["study"]
    assert await git.head("study", "dev") == await git.head("study", "main") == base
    bundle = await git.bundle("study", base)
    verified = verify_bundle(key.public, bundle, base, KnownObjects())
    files = {entry.path: bundle.blobs[entry.sha256] for entry in verified.entries}
    assert files == {"a.txt": FILE.encode(), "b/b.txt": b"b\n"}
    assert [e.path for e in await git.tree("study", base)] == ["a.txt", "b/b.txt"]
    assert (tmp_path / "ws/study/b/b.txt").read_bytes() == b"b\n"
    address = git.locate("study/b/b.txt")
    assert (address.repo, address.path) == ("study", "b/b.txt")
    assert git.locate("study/none") is git.locate("none") is None


async def test_two_agents_and_a_person_change_one_file_at_once(git, base, rooms, tmp_path):
    room = await rooms.enter(git, "study", "a.txt")
    one, two = new_proposal_id(), new_proposal_id()
    diff = "@@ -3 +3 @@\n-line 3\n+line three\n"
    whole = FILE.replace("line 18\n", "line eighteen\n")
    await asyncio.gather(
        git.propose(one, "study", base, [UnifiedDiff(path="a.txt", diff=diff)], ADA, "diff"),
        git.propose(two, "study", base, [NewText(path="a.txt", text=whole)], BOB, "text"),
        room.type("line 10", "a person was here\n"),
    )
    await asyncio.gather(git.merge(one), git.merge(two), room.type("line 12", "and here\n"))
    text = (await git.read_live("study", "a.txt")).decode()
    assert text == str(room.text)
    for mine in ("line three\n", "line eighteen\n", "a person was here\n", "and here\n"):
        assert mine in text
    assert len(text.splitlines()) == 22
    dev = await git.head("study", "dev")
    assert "line three" in (await git.read("study", dev, "a.txt")).decode()


async def test_typing_that_waited_behind_a_deletion_is_refused(git, base, rooms):
    """It was on its way when the file went: saying that it is kept would be untrue."""
    room = await rooms.enter(git, "study", "b/b.txt")
    proposal = new_proposal_id()
    await git.propose(proposal, "study", base, [DeleteFile(path="b/b.txt")], ADA, "gone")
    document = git._live.index.document("study", "b/b.txt")

    async with git._live.lock([document]):
        merge = asyncio.create_task(git.merge(proposal))
        await queued(git, document, 1)
        typed = asyncio.create_task(room.type("b\n", "typed\n"))
        await queued(git, document, 2)
    await merge
    with pytest.raises(NotFound):
        await typed


async def test_a_proposal_for_a_file_that_goes_meanwhile_is_stale(git, base, put):
    gone = new_proposal_id()
    await git.propose(gone, "study", base, [DeleteFile(path="b/b.txt")], ADA, "gone")
    document = git._live.index.document("study", "b/b.txt")
    edit = NewText(path="b/b.txt", text="b\nmore\n")
    async with git._live.lock([document]):
        merge = asyncio.create_task(git.merge(gone))
        await queued(git, document, 1)
        mine = asyncio.create_task(
            git.propose(new_proposal_id(), "study", base, [edit], BOB, "more")
        )
        await queued(git, document, 2)
    await merge
    with pytest.raises(Stale, match="the file was deleted"):
        await mine


async def test_typing_is_committed_under_the_rooms_name_before_a_merge(git, base, rooms, put, key):
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("line 10", "typed\n")
    await put(base, "a.txt", FILE.replace("line 1\n", "line one\n"))
    merged, typed, first = await git.history("study", "dev")
    assert first == base
    signed, mine = await git.signed("study", merged), await git.commit("study", typed)
    assert verify_commit_object(key.public, signed, merged).authors == (ADA,)
    assert (mine.authors, mine.message) == ((EVE,), "live edits")
    assert [c.path for c in await git.changed("study", base, typed)] == ["a.txt"]
    assert b"line one" not in await git.read("study", typed, "a.txt")


async def test_a_candidate_holds_main_and_the_proposal_and_nothing_else(git, base, rooms, put, key):
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("line 10", "half a li")
    await put(base, "a.txt", FILE.replace("line 18\n", "line eighteen\n"), BOB)
    mine = await put(base, "a.txt", FILE.replace("line 2\n", "line two\n"))
    candidate = await git.candidate(mine)
    assert candidate.main == base
    assert await git.candidate(mine) == candidate
    content = await git.read("study", candidate.revision, "a.txt")
    assert content.decode() == FILE.replace("line 2\n", "line two\n")
    assert "+line two" in candidate.changes[0].diff
    await git.advance("study", candidate.revision, base)
    await git.advance("study", candidate.revision, base)  # asked twice, moved once
    assert await git.history("study", "main") == [candidate.revision, base]
    bundle = await git.bundle("study", candidate.revision)
    verify_bundle(key.public, bundle, candidate.revision, KnownObjects())


async def test_main_moves_by_compare_and_set_and_nothing_is_doubled(git, base, put):
    one = await put(base, "a.txt", FILE.replace("line 2\n", "line two\n"))
    two = await put(base, "a.txt", FILE.replace("line 9\n", "line nine\n"), BOB)
    first, late = await git.candidate(one), await git.candidate(two)
    await git.advance("study", first.revision, base)
    with pytest.raises(Conflict):
        await git.advance("study", late.revision, base)
    again = await git.candidate(two)
    await git.advance("study", again.revision, first.revision)
    both = FILE.replace("line 2\n", "line two\n").replace("line 9\n", "line nine\n")
    assert (await git.read("study", again.revision, "a.txt")).decode() == both
    assert (await git.read_live("study", "a.txt")).decode() == both


async def test_main_refuses_what_is_no_candidate(git, base, put):
    await put(base, "a.txt", FILE.replace("line 2\n", "line two\n"))
    dev = await git.head("study", "dev")
    with pytest.raises(Conflict, match="no candidate"):
        await git.advance("study", dev, base)
    gone = await put(base, "b/b.txt", "B\n")
    candidate = await git.candidate(gone)
    await git.revert(gone)
    with pytest.raises(Conflict, match="no candidate"):
        await git.advance("study", candidate.revision, base)


async def test_a_stale_proposal_is_refused_with_the_texts(git, base, put):
    await put(base, "a.txt", FILE.replace("line 5\n", "line five\n"))
    with pytest.raises(Stale) as caught:
        await put(base, "a.txt", FILE.replace("line 5\n", "LINE 5\n"), BOB)
    (found,) = caught.value.extra["conflicts"]
    assert (found["path"], found["start"], found["end"]) == ("a.txt", 5, 5)
    assert (found["base"], found["theirs"], found["yours"]) == (
        "line 5\n", "line five\n", "LINE 5\n",
    )  # fmt: skip


async def test_typing_makes_a_proposal_stale_before_and_after_propose(git, base, rooms):
    room = await rooms.enter(git, "study", "a.txt")
    proposal = new_proposal_id()
    edits = [NewText(path="a.txt", text=FILE.replace("line 5\n", "line five\n"))]
    await git.propose(proposal, "study", base, edits, ADA, "why")
    await room.type("5\n", "number ")
    before = await git.read_live("study", "a.txt")
    with pytest.raises(Stale):
        await git.merge(proposal)
    with pytest.raises(Stale):
        await git.propose(new_proposal_id(), "study", base, edits, ADA, "why")
    assert await git.read_live("study", "a.txt") == before


async def test_revert_takes_out_one_authors_text_around_the_others(git, base, rooms, put, tmp_path):
    room = await rooms.enter(git, "study", "a.txt")
    await put(base, "a.txt", FILE.replace("line 18\n", "line eighteen\n"), BOB)
    mine = await put(base, "a.txt", FILE.replace("line 4\nline 5\n", "four\nfive\nmore\n"))
    await room.type("five\n", "typed inside, ")
    revision = await git.revert(mine)
    assert await git.revert(mine) == revision
    text = str(room.text)
    assert text.encode() == await git.read_live("study", "a.txt")
    # What was typed into a line that is taken out stays, beside the line that comes back.
    assert "line 3\nline 4\nline 5" in text
    assert "typed inside, " in text
    assert "five\n" not in text
    assert "line eighteen" in text
    assert "more" not in text
    with pytest.raises(Conflict):
        await git.merge(mine)
    with pytest.raises(Conflict):
        await git.candidate(mine)


async def test_rejected_text_does_not_reach_main_with_a_later_proposal(git, base, put):
    bad = await put(base, "a.txt", FILE.replace("line 4\n", "evil\n"))
    dev = await git.head("study", "dev")
    text = (await git.read("study", dev, "a.txt")).decode()
    good = await put(dev, "a.txt", text.replace("line 18\n", "good\n"), BOB)
    await git.revert(bad)
    candidate = await git.candidate(good)
    content = (await git.read("study", candidate.revision, "a.txt")).decode()
    assert content == FILE.replace("line 18\n", "good\n")


async def test_files_are_made_and_deleted_and_both_can_be_taken_back(git, base, tmp_path):
    proposal = new_proposal_id()
    edits = [NewText(path="new/n.txt", text="n\n"), DeleteFile(path="b/b.txt")]
    proposed = await git.propose(proposal, "study", base, edits, ADA, "why")
    assert [(c.path, c.before is None, c.after is None) for c in proposed.changes] == [
        ("new/n.txt", True, False), ("b/b.txt", False, True),
    ]  # fmt: skip
    await git.merge(proposal)
    ws = tmp_path / "ws/study"
    assert (ws / "new/n.txt").read_text() == "n\n"
    assert not (ws / "b").exists()
    candidate = await git.candidate(proposal)
    assert [e.path for e in await git.tree("study", candidate.revision)] == ["a.txt", "new/n.txt"]
    await git.revert(proposal)
    assert not (ws / "new").exists()
    assert (ws / "b/b.txt").read_text() == "b\n"
    tree = await git.tree("study", await git.head("study", "dev"))
    assert tree == await git.tree("study", base)


async def test_two_proposals_that_make_one_file_conflict(git, base, put):
    await put(base, "n.txt", "one\n")
    with pytest.raises(Stale) as caught:
        await put(base, "n.txt", "two\n", BOB)
    assert caught.value.extra["conflicts"][0]["theirs"] == "one\n"
    for path in ("n.txt/x", "a.txt/x", "b"):
        with pytest.raises((Stale, InvalidInput)):
            await put(base, path, "x\n", BOB)


async def test_a_file_deleted_meanwhile_is_stale(git, base, put):
    late = new_proposal_id()
    await git.propose(late, "study", base, [NewText(path="b/b.txt", text="B\n")], BOB, "why")
    early = new_proposal_id()
    await git.propose(early, "study", base, [DeleteFile(path="b/b.txt")], ADA, "why")
    await git.merge(early)
    with pytest.raises(Stale, match="the file was deleted"):
        await git.merge(late)


async def test_rollback_restores_the_tree_and_can_be_undone(git, base, rooms, put, tmp_path):
    proposal = new_proposal_id()
    edits = [
        NewText(path="a.txt", text=FILE.replace("line 4\n", "bad\n")),
        NewText(path="n.txt", text="n\n"),
        DeleteFile(path="b/b.txt"),
    ]
    await git.propose(proposal, "study", base, edits, ADA, "why")
    await git.merge(proposal)
    candidate = await git.candidate(proposal)
    await git.advance("study", candidate.revision, base)
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("line 9", "typed meanwhile\n")
    back = await git.rollback("study", base, EVE, "health check failed")
    commit, first = await git.commit("study", back), await git.commit("study", base)
    assert commit.tree == first.tree
    assert commit.parents == (candidate.revision,)
    assert str(room.text) == FILE.replace("line 9", "typed meanwhile\nline 9")
    assert (tmp_path / "ws/study/b/b.txt").exists()
    assert not (tmp_path / "ws/study/n.txt").exists()
    with pytest.raises(Conflict):
        await git.rollback("study", base, EVE, "again")
    with pytest.raises(NotFound):
        await git.rollback("study", await git.head("study", "dev"), EVE, "not on main")
    forth = await git.rollback("study", candidate.revision, EVE, "it was not that")
    again = await git.commit("study", forth)
    assert again.tree == candidate.tree
    assert again.parents == (back,)
    assert "bad\n" in str(room.text)
    assert git.locate("study/n.txt")
    # And proposals go on from there.
    later = await put(forth, "n.txt", "n\nm\n")
    await git.advance("study", (await git.candidate(later)).revision, forth)
    assert await git.read("study", await git.head("study", "main"), "n.txt") == b"n\nm\n"


async def test_the_same_id_again_is_the_same_proposal(git, base):
    proposal = new_proposal_id()
    edits = [NewText(path="a.txt", text="x\n")]
    first = await git.propose(proposal, "study", base, edits, ADA, "why")
    assert await git.propose(proposal, "study", base, edits, ADA, "why") == first
    for other, author in (([NewText(path="a.txt", text="y\n")], ADA), (edits, BOB)):
        with pytest.raises(Conflict):
            await git.propose(proposal, "study", base, other, author, "why")
    assert await git.merge(proposal) == await git.merge(proposal)


@pytest.mark.parametrize(
    ("edits", "error"),
    [
        ([], InvalidInput),
        ([NewText(path="a.txt", text=FILE)], InvalidInput),
        ([NewText(path="a.txt", text="x"), DeleteFile(path="a.txt")], InvalidInput),
        ([NewText(path="../a.txt", text="x")], InvalidInput),
        ([NewText(path="a.txt", text="\0")], InvalidInput),
        ([NewText(path="a.txt", text="\ud800")], InvalidInput),
        ([UnifiedDiff(path="a.txt", diff="@@ -1 +1 @@\n-x\n+y\n")], InvalidInput),
        ([UnifiedDiff(path="none.txt", diff="@@ -1 +1 @@\n-x\n+y\n")], InvalidInput),
        ([DeleteFile(path="none.txt")], InvalidInput),
        ([NewText(path="n.ipynb", text="{}")], InvalidInput),
    ],
)
async def test_edits_that_do_not_fit_are_refused(git, base, edits, error):
    with pytest.raises(error):
        await git.propose(new_proposal_id(), "study", base, edits, ADA, "why")
    assert await git.head("study", "dev") == base


async def test_unknown_names_are_not_found(git, base):
    for call in (
        git.head("none", "dev"), git.tree("study", "0" * 64), git.read("study", base, "none"),
        git.read_live("study", "none"), git.merge("prop-none"), git.room_updates("none"),
        git.ingest("none", b"\0\0", EVE), git.commit("none", base),
        git.propose(new_proposal_id(), "study", "0" * 64, [NewText(path="a", text="b")], ADA, ""),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            await call
    with pytest.raises(Conflict):
        await git.create("study", {"a.txt": b"x"}, EVE, "again")
    for files in ({"a.ipynb": b"\0"}, {"a": b"", "a/b": b""}, {"/a": b""}):
        with pytest.raises(InvalidInput):
            await git.create("other", files, EVE, "bad")
    with pytest.raises(InvalidInput):
        await git.create("../other", {}, EVE, "bad")


async def test_facts_announce_that_branches_advance(git, base, put, journal):
    proposal = await put(base, "a.txt", FILE + "more\n")
    candidate = await git.candidate(proposal)
    await git.advance("study", candidate.revision, base)
    facts = await journal.read(START, kinds=[Kind.branch_advanced])
    assert [(f.subject, f.plain()["cause"]) for f in facts] == [
        ("study:dev", "import"), ("study:main", "import"), ("study:dev", "proposal"),
        ("study:dev", "advance"), ("study:main", "advance"),
    ]  # fmt: skip
    assert facts[2].plain()["proposal"] == proposal
    assert (facts[4].plain()["before"], facts[4].revision) == (base, candidate.revision)


async def test_typing_is_announced_now_and_then(git, base, rooms, journal):
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("line 1", "hello ")
    fact = await next_fact(journal, kind=Kind.document_edited, subject="study:a.txt")
    assert fact.plain()["bytes"] > 0


async def test_a_caller_that_goes_away_does_not_leave_half_a_merge(git, base):
    proposal = new_proposal_id()
    await git.propose(proposal, "study", base, [NewText(path="a.txt", text="x\n")], ADA, "why")
    call = asyncio.create_task(git.merge(proposal))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    revision = await git.merge(proposal)
    assert await git.read("study", revision, "a.txt") == b"x\n"
    assert len(await git.history("study", "dev")) == 2


def test_it_is_the_port():
    from angelos.core.ports import Repository

    def takes(_: Repository) -> None: ...

    takes(AngelGit.__new__(AngelGit))


async def test_a_path_is_a_file_or_a_folder_and_never_both(git, base, put):
    files = [NewText(path=path, text="x\n") for path in ("n/m", "n")]
    with pytest.raises(InvalidInput, match="n/m cannot be beside n"):
        await git.propose(new_proposal_id(), "study", base, files, ADA, "why")
    with pytest.raises(InvalidInput, match=r"b/b\.txt cannot be beside b"):
        await put(base, "b", "x\n")
    file, below = new_proposal_id(), new_proposal_id()
    await git.propose(file, "study", base, [files[1]], ADA, "why")
    await git.propose(below, "study", base, [files[0]], BOB, "why")
    await git.merge(file)
    with pytest.raises(Stale, match="n is in the way"):
        await git.merge(below)
    with pytest.raises(Stale, match="n is in the way"):
        await put(base, "n/o", "x\n")


async def test_a_deleted_file_does_not_come_back_beside_its_own_folder(git, base, put):
    await put(base, "n", "x\n")
    gone, dev = new_proposal_id(), await git.head("study", "dev")
    await git.propose(gone, "study", dev, [DeleteFile(path="n")], ADA, "why")
    await put(await git.merge(gone), "n/m", "x\n")
    with pytest.raises(Conflict, match="n/m"):
        await git.revert(gone)
