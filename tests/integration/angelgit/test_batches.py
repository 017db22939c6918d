"""Candidates of several proposals, and the second process that looks at them."""

from __future__ import annotations

import json

import msgspec
import pytest

from angelos.control.gate.landing import SecondProcess
from angelos.core.errors import Conflict, InvalidInput, Stale, Tampered
from angelos.core.ids import new_proposal_id
from angelos.core.repository import NewText
from angelos.core.revision import KnownObjects, verify_bundle
from angelos.core.signing import SigningKey
from tests.integration.angelgit.conftest import ADA, BOB, FILE


@pytest.fixture
def put(git):
    """Propose a file's new text; it waits beside dev."""

    async def put(base, path, text, author=ADA):
        proposal = new_proposal_id()
        edit = NewText(path=path, text=text)
        await git.propose(proposal, "study", base, [edit], author, f"Change {path}")
        return proposal

    return put


async def test_a_batch_is_one_commit_a_proposal_and_moves_main_once(git, base, put, key):
    one = await put(base, "a.txt", FILE.replace("line 2\n", "line two\n"))
    two = await put(base, "a.txt", FILE.replace("line 9\n", "line nine\n"), BOB)
    clash = await put(base, "a.txt", FILE.replace("line 2\n", "another\n"), BOB)
    new = await put(base, "new.txt", "new\n")
    candidate = await git.candidate(one, two, clash, new)
    assert [member.proposal for member in candidate.members] == [one, two, new]
    assert candidate.left_out == (clash,)
    assert await git.candidate(one, two, clash, new) == candidate
    authors = [(await git.commit("study", m.commit)).authors for m in candidate.members]
    assert authors == [(ADA,), (BOB,), (ADA,)]
    assert candidate.members[1].changes[0].diff.count("\n+line") == 1, "its own edits alone"
    check = SecondProcess(git, key.public)
    await check.check("study", candidate.revision, base, candidate.tree)
    for wrong in (
        check.check("study", candidate.revision, base, "0" * 64),
        check.check("study", candidate.revision, "1" * 64, candidate.tree),
        SecondProcess(git, SigningKey.generate().public).check(
            "study", candidate.revision, base, candidate.tree
        ),
    ):
        with pytest.raises(Tampered):
            await wrong
    await git.advance("study", candidate.revision, base)
    await git.advance("study", candidate.revision, base)  # asked twice, moved once
    assert await git.head("study", "main") == candidate.revision
    both = FILE.replace("line 2\n", "line two\n").replace("line 9\n", "line nine\n")
    assert (await git.read_live("study", "a.txt")).decode() == both
    verify_bundle(
        key.public, await git.bundle("study", candidate.revision), candidate.revision,
        KnownObjects(),
    )  # fmt: skip
    with pytest.raises(Conflict):
        await git.candidate(two)
    with pytest.raises(Stale):
        await git.candidate(clash, new)


async def test_a_batch_of_which_one_was_withdrawn_does_not_land(git, base, put, database):
    one = await put(base, "a.txt", FILE.replace("line 2\n", "line two\n"))
    two = await put(base, "new.txt", "new\n", BOB)
    candidate = await git.candidate(one, two)
    await git.withdraw(two)
    with pytest.raises(Conflict):
        await git.advance("study", candidate.revision, base)
    assert await git.head("study", "main") == base
    again = await git.candidate(one, two)
    assert again.left_out == (two,)
    assert again.revision != candidate.revision
    await git.advance("study", again.revision, base)
    async with database.transaction() as conn:
        rows = await (await conn.execute("select revision from angelgit_candidate")).fetchall()
    assert [row[0].hex() for row in rows] == [again.revision], "the others cannot land any more"


async def test_own_changes_are_whole_however_long_they_are(git, base, put):
    text = "".join(f"{n} {'x' * 50}\n" for n in range(20_000))
    long = await put(base, "long.txt", text)
    other = await put(base, "new.txt", "new\n", BOB)
    candidate = await git.candidate(long, other)
    assert candidate.members[0].changes[0].cut
    (change,) = await git.own_changes("study", candidate.members[0].commit)
    assert not change.cut
    assert change.diff.count("\n+") >= 20_000
    assert change.diff.endswith(f"+19999 {'x' * 50}\n")
    (change,) = await git.own_changes("study", candidate.members[1].commit)
    assert (change.path, change.diff.splitlines()[-1]) == ("new.txt", "+new")


async def test_outputs_of_a_clean_rerun_are_in_the_candidate_and_then_in_dev(git, base, put):
    cell = {"cell_type": "code", "id": "one", "metadata": {}, "source": "1 + 1",
            "execution_count": 7, "outputs": []}  # fmt: skip
    text = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    proposal = await put(base, "n.ipynb", text)
    plain = await git.candidate(proposal)
    result = {"output_type": "execute_result", "execution_count": 31, "metadata": {},
              "data": {"text/plain": ["2"]}}  # fmt: skip
    outputs = {"n.ipynb": {"one": json.dumps([result])}}
    candidate = await git.candidate(proposal, outputs=outputs)
    assert candidate.revision != plain.revision
    assert candidate == await git.candidate(proposal, outputs=outputs)
    book = json.loads(await git.read("study", candidate.revision, "n.ipynb"))
    assert book["cells"][0]["execution_count"] == 1
    assert book["cells"][0]["outputs"][0]["data"]["text/plain"] in ("2", ["2"])
    other = await put(base, "x.txt", "x\n")
    batch = await git.candidate(other, proposal, outputs=outputs)
    assert batch.revision not in [member.commit for member in batch.members]
    for wrong in ({"n.ipynb": {"two": "[]"}}, {"n.ipynb": {"one": "no"}}):
        with pytest.raises(InvalidInput):
            await git.candidate(proposal, outputs=wrong)
    await git.advance("study", candidate.revision, base)
    live = json.loads(await git.read_live("study", "n.ipynb"))
    assert live["cells"][0]["outputs"], "the live notebook shows what was tested"


async def test_what_a_stored_object_became_is_seen(git, base, put, key, database):
    proposal = await put(base, "new.txt", "new\n")
    candidate = await git.candidate(proposal)
    bundle = await git.bundle("study", candidate.revision, have=base)

    class Changed:
        """A server whose contents are no longer what was signed."""

        async def bundle(self, repo, revision, have=None):
            digest = next(iter(bundle.blobs))
            return msgspec.structs.replace(bundle, blobs={digest: b"other\n"})

    with pytest.raises(Tampered):
        await SecondProcess(Changed(), key.public).check(
            "study", candidate.revision, base, candidate.tree
        )
