"""What the demo left of its steps 1 to 5, derived again from stores, checkouts and files.

The stores are read as they are (see `demo_stores.py`), and hashes, roots and signatures are
computed by other code than AngelOS's (see `independent.py`).
"""

from __future__ import annotations

import difflib
import doctest
import json
import statistics
from pathlib import Path

import pytest
from cryptography import x509

from angelos.demo import patches, study
from tests.acceptance.demo_process import DEV, MAIN
from tests.acceptance.independent import (
    canonical,
    check_command,
    check_commit,
    public_key,
    run_module,
    sha256,
    tree_hash,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("demo")]

PATH = patches.STATISTICS
STEPS = ["import", "merge", "stale", "test", "review", "deploy", "boxes", "undo", "audit"]


def test_it_reports_every_step_and_shows_it_as_it_happens(demo):
    assert demo.report["ok"] is True
    assert [step["name"] for step in demo.report["steps"]] == STEPS
    assert all(step["ok"] and set(step) == {"name", "ok", "seconds", "evidence"}
               for step in demo.report["steps"])  # fmt: skip
    assert 0 < sum(step["seconds"] for step in demo.report["steps"]) < demo.report["seconds"]
    for number in range(1, len(STEPS) + 1):
        assert f"  {number}. ok " in demo.stderr
    assert "Traceback" not in demo.stderr


def test_1_the_interpreters_own_modules_are_main(demo):
    first = demo.left.commits[demo["import"]["revision"]]
    assert first["commit"]["parents"] == []
    assert first["files"][PATH][1] == Path(statistics.__file__).read_bytes()
    assert first["files"][patches.DIFFLIB][1] == Path(difflib.__file__).read_bytes()
    imported = {path: (0o100644, text.encode()) for path, text in study.study_files().items()}
    assert first["files"] == imported
    assert tree_hash(imported) == demo["import"]["tree"] == first["commit"]["tree"]
    assert len(imported) == demo["import"]["files"]
    assert list(demo.left.history(demo.left.branches[MAIN]))[-1] == first["revision"]


def test_every_commit_is_signed_and_is_what_it_holds(demo):
    key = public_key(demo.root / "keys" / "revision.key")
    for revision, signed in demo.left.commits.items():
        check_commit(signed, key)
        assert revision == signed["revision"]
        assert tree_hash(signed["files"]) == signed["commit"]["tree"]
        assert set(signed["commit"]["parents"]) <= set(demo.left.commits)


def test_2_two_agents_and_a_person_change_one_file(demo):
    left, seen = demo.left, demo["merge"]
    received = [left.one("proposal.received", p) for p in seen["proposals"]]
    assert [f["actor"] for f in received] == ["agent/ada", "agent/bob"]
    assert {f["data"]["base"] for f in received} == {demo["import"]["revision"]}
    assert [f["data"]["paths"] for f in received] == [[PATH], [PATH]]
    edits = [left.proposals[p][1]["edits"] for p in seen["proposals"]]
    assert ["diff" in edit for (edit,) in edits] == [True, False]
    assert ["text" in edit for (edit,) in edits] == [False, True]

    main = left.text(seen["main"], PATH)
    for part in (patches.MIDRANGE, patches.RMS):
        assert main.count(part) == left.text(seen["dev"], PATH).count(part) == 1
    chain = list(left.history(seen["main"]))
    promoted = [left.one("proposal.promoted", p)["revision"] for p in seen["proposals"]]
    assert set(chain) == {*promoted, demo["import"]["revision"]}
    assert seen["main"] in promoted
    assert [left.commits[r]["commit"]["author"] for r in promoted] == ["agent/ada", "agent/bob"]
    assert seen["dev"] in left.history(left.branches[DEV])

    # What the person typed, letter by letter while both proposals came, is in dev and in the
    # live file once. To main the proposals have carried no letter of it, but just themselves.
    typed = patches.TYPED
    assert typed.strip() == seen["typed"]
    assert left.text(left.branches[DEV], PATH).count(typed) == 1
    assert (demo.root / "workspace" / "study" / PATH).read_text().count(typed) == 1
    base = left.text(demo["import"]["revision"], PATH)
    assert main == patches.with_rms(patches.with_midrange(base))
    authors = {left.commits[r]["commit"]["author"] for r in left.history(left.branches[DEV])}
    assert "person/owner" in authors  # who typed in the room
    assert left.find("document.edited", f"study:{PATH}")

    assert seen["refused_to_approve"] == "forbidden"
    assert not [f for f in left.find("proposal.approved") if f["actor"].startswith("agent/")]


def test_3_what_is_stale_is_refused_with_both_texts(demo):
    left, conflict = demo.left, demo["stale"]["conflict"]
    refused = left.one("proposal.refused", outcome="stale")
    assert (refused["actor"], refused["outcome"]) == ("agent/bob", demo["stale"]["code"])
    assert refused["data"]["base"] == demo["stale"]["base"] == demo["import"]["revision"]
    assert refused["data"]["conflicts"] == [conflict]
    lines = slice(conflict["start"] - 1, conflict["end"])
    base, theirs = (
        "".join(left.text(r, conflict["path"]).splitlines(keepends=True)[lines])
        for r in (demo["stale"]["base"], demo["merge"]["main"])
    )
    assert (conflict["base"], conflict["theirs"]) == (base, theirs)
    assert base != theirs
    assert conflict["yours"] in patches.with_other_title(left.text(demo["stale"]["base"], PATH))
    assert refused["subject"] not in left.proposals
    assert all(conflict["yours"] not in left.text(r, PATH) for r in left.commits)


def test_4_mutants_fail_their_doctests_and_stay_off_main(demo, tmp_path):
    left, history = demo.left, set(demo.left.history(demo.left.branches[MAIN]))
    mutants = {PATH: "total / (n + 1), T)", patches.DIFFLIB: "1.0 * matches / length"}
    live = demo.root / "workspace" / "study"
    for seen, (path, mutation) in zip(demo["test"]["mutants"], mutants.items(), strict=True):
        proposal = seen["proposal"]
        received = left.one("proposal.received", proposal)
        assert received["data"]["paths"] == [path]
        candidate = left.one("proposal.testing", proposal)["revision"]
        assert mutation in left.text(candidate, path)
        assert candidate not in history
        tested = left.one("proposal.tested", proposal)
        assert (tested["outcome"], tested["offset"]) == ("failed", seen["tested"])
        rejected = left.one("proposal.rejected", proposal)
        reverted = left.one("proposal.reverted", proposal)
        assert reverted["offset"] == seen["reverted"]
        assert left.proposals[proposal][0] == "withdrawn"
        assert received["index"] < tested["index"] < rejected["index"] < reverted["index"]
        assert demo.moves_of_main(received["index"], reverted["index"]) == []

        # The failing output is in the journal, from a run of just this candidate.
        ran = left.one("task.finished", seen["task"])
        assert (ran["actor"], ran["outcome"]) == ("node/exec1", "error")
        assert f'File "/work/{path}"' in ran["data"]["stderr"]
        assert "Failed example:" in ran["data"]["stderr"]
        outcomes = [case["outcome"] for case in ran["data"]["report"]["cases"] if case["sentinel"]]
        assert set(outcomes) == {"failed"}
        assert "Failed example:" in tested["data"]["reason"]
        accepted = left.one("task.accepted", seen["task"], proposal=proposal)
        payload = check_command(
            accepted["data"]["body"], public_key(demo.root / "keys" / "grant.key")
        )
        arguments = ["study/statistics.py", "study/difflib.py"]
        assert payload["revision"] == candidate
        assert payload["cases"]["runner"] == "doctest"
        assert list(payload["cases"]["arguments"]) == arguments
        assert payload["label"] == f"study: {seen['step']}"

        # And it fails wherever it is run, while what it was made from passes.
        exit_code, output = run_module("study.check", left.content(candidate), tmp_path / candidate)
        assert exit_code == 1
        assert f"study/{Path(path).name}" in output
        assert mutation not in left.text(left.branches[DEV], path)
        assert mutation not in (live / path).read_text()
    exit_code, output = run_module(
        "study.check", left.content(demo["test"]["main"]), tmp_path / "main"
    )
    assert exit_code == 0, output


def test_what_was_promoted_was_tested_doctest_by_doctest(demo):
    left = demo.left
    finder = doctest.DocTestFinder(exclude_empty=True)
    ours = sum(
        bool(case.examples) for module in (statistics, difflib) for case in finder.find(module)
    )
    counts = []
    for promoted in left.find("proposal.promoted"):
        tested = left.one("proposal.tested", promoted["subject"], outcome="passed")
        assert tested["revision"] == promoted["revision"]
        steps = {step["name"]: step for step in tested["data"]["steps"]}
        assert list(steps) == ["unit", "notebook", "static", "security"]
        for step in steps.values():
            ran = left.one("task.finished", step["task"], actor="node/exec1")
            assert (ran["outcome"], step["status"]) == ("ok", "ok")
            accepted = left.one("task.accepted", step["task"])
            assert accepted["revision"] == promoted["revision"]
        assert steps["unit"]["witnessed"]
        counts.append(steps["unit"]["passed"])
    # midrange and rms each bring one docstring with examples.
    assert sorted(counts) == [ours + 1, ours + 2, ours + 2, ours + 2]


def test_5_policy_approves_and_a_person_approves(demo):
    left, seen = demo.left, demo["review"]
    by_policy = left.at(seen["by_policy"]["offset"])
    assert (by_policy["kind"], by_policy["actor"]) == ("proposal.approved", "system/supervisor")
    assert by_policy["subject"] == seen["by_policy"]["proposal"]
    assert by_policy["data"]["actor_kind"] == "policy"

    proposal = seen["by_person"]["proposal"]
    waiting = left.one("proposal.waiting", proposal)
    assert waiting["data"]["needs"] == 1
    assert study.PROTECTED in waiting["data"]["reason"]
    approved = left.one("proposal.approved", proposal)
    assert [approved["actor"]] == seen["by_person"]["by"] == ["person/owner"]
    assert demo.moves_of_main(waiting["index"], approved["index"]) == []
    moved = left.one("branch.advanced", MAIN, revision=seen["by_person"]["revision"])
    assert moved["index"] > approved["index"]
    before, after = (
        left.text(r, study.PROTECTED) for r in (moved["data"]["before"], moved["revision"])
    )
    assert ("1e-9" in before, "1e-8" in after) == (True, True)

    # An approval binds to the exact edits: the digest is theirs.
    for fact in (by_policy, approved):
        record = left.proposals[fact["subject"]][1]
        bound = canonical([record["repo"], record["base"], record["author"], record["edits"]])
        assert sha256(b"angelos.proposal.v1\0" + bound) == fact["data"]["digest"]


def test_5_who_touches_the_policy_is_quarantined(demo):
    left, seen = demo.left, demo["review"]["quarantined"]
    refused = left.one("proposal.refused", outcome="policy")
    assert refused["offset"] == seen["refused"]
    assert (refused["actor"], refused["data"]["policy_paths"]) == ("agent/mallory", [study.POLICY])
    out = left.one("principal.quarantined")
    assert (out["subject"], out["offset"]) == ("agent/mallory", seen["offset"])
    assert out["data"]["reason"] == seen["reason"]
    assert out["index"] > refused["index"]
    assert left.quarantined == {"agent/mallory"}
    after = [f for f in left.facts if f["index"] is not None and f["index"] > out["index"]]
    assert not [f for f in after if "agent/mallory" in (f["actor"], f["on_behalf_of"])]

    # The certificate that mallory holds is the one that is denied, and no other is.
    pem = (demo.root / "agents" / "mallory" / "identity.pem").read_bytes()
    serial = f"{x509.load_pem_x509_certificate(pem).serial_number:x}"
    denied = [(who, int(number, 16)) for who, number, void in left.certificates if void]
    assert denied == [("agent/mallory", int(serial, 16))]
    assert seen["cut"]["code"] == seen["after"] == "unauthenticated"
    assert (seen["cut"]["status"], seen["cut"]["extra"]["reason"]) == (401, "quarantined")
    assert seen["reason"] in seen["cut"]["detail"]

    for revision in left.commits:
        assert left.text(revision, study.POLICY) == study.ANGELOS_TOML
    assert refused["subject"] not in left.proposals


def test_nothing_is_left_running(demo):
    assert not (demo.root / "system.json").exists()
    assert json.loads((demo.root / "processes.json").read_text()) == []
