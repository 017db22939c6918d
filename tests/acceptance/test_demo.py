"""`angelos demo --json`, and each step's evidence derived again from what it left behind.

The demo runs once. Then the stores are started on its directory and read as they are (see
`demo_stores.py`), and hashes, roots and signatures are computed by other code than AngelOS's
(see `independent.py`).
"""

from __future__ import annotations

import asyncio
import base64
import difflib
import doctest
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509

from angelos.cli.demo import patches, study
from angelos.cli.demo.steps.boxes import ATTACKS
from tests.acceptance.demo_process import demo_process
from tests.acceptance.demo_stores import Left, read
from tests.acceptance.independent import (
    canonical,
    check_command,
    check_commit,
    checkpoint,
    files_on_disk,
    merkle_root,
    public_key,
    run_module,
    sha256,
    tree_hash,
)
from tests.acceptance.up_process import cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MAIN, DEV = "study:main", "study:dev"
PATH = patches.STATISTICS
STEPS = ["import", "merge", "stale", "test", "review", "deploy", "boxes", "undo", "audit"]


@dataclass
class Demo:
    """One run of the demo and what it left behind."""

    root: Path
    left: Left
    report: dict[str, Any]
    stderr: str

    def __getitem__(self, step: str) -> dict[str, Any]:
        """Return the evidence of a step."""
        return next(s["evidence"] for s in self.report["steps"] if s["name"] == step)

    def moves_of_main(self, after: int, before: int) -> list[dict[str, Any]]:
        """Return how `main` moved between two entries of the audit log."""
        return [f for f in self.left.find("branch.advanced", MAIN) if after < f["index"] < before]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run the demo and read its stores."""
    root = tmp_path_factory.mktemp("demo") / "data"
    with demo_process(root) as process:
        out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err + out
    report = json.loads(out.splitlines()[-1])
    return Demo(root, asyncio.run(read(root)), report, err)


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
    imported = {path: (0o644, text.encode()) for path, text in study.study_files().items()}
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
    assert "person/room" in authors
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
        assert left.proposals[proposal][0] == "reverted"
        assert received["index"] < tested["index"] < rejected["index"] < reverted["index"]
        assert demo.moves_of_main(received["index"], reverted["index"]) == []

        # The failing output is in the journal, from a run of just this candidate.
        ran = left.one("task.finished", seen["task"])
        assert (ran["actor"], ran["outcome"], ran["data"]["exit_code"]) == (
            "node/exec1",
            "error",
            1,
        )
        assert f'File "/work/{path}"' in ran["data"]["stdout"]
        assert "Failed example:" in ran["data"]["stdout"]
        assert "Failed example:" in tested["data"]["reason"]
        accepted = left.one("task.accepted", seen["task"], proposal=proposal)
        payload = check_command(
            accepted["data"]["body"], public_key(demo.root / "keys" / "grant.key")
        )
        assert (payload["revision"], payload["argv"][-1]) == (candidate, "study.check")
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
    ours = sum(doctest.testmod(module).attempted for module in (statistics, difflib))
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
        output = left.one("task.finished", steps["unit"]["task"])["data"]["stdout"]
        counts.append(sum(int(line.split()[1]) for line in output.splitlines()))
        assert all(line.endswith("doctests, 0 failed") for line in output.splitlines())
        assert "0 failed" in steps["unit"]["output"]
    # midrange and rms each bring one doctest.
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


def test_6_the_canary_comes_first_always(demo):
    left, seen = demo.left, demo["deploy"]
    canary, execution = left.at(seen["canary"]), left.at(seen["execution"])
    assert (canary["subject"], canary["data"]["canary"]) == ("node/labs1", True)
    assert (execution["subject"], execution["data"]["canary"]) == ("node/exec1", False)
    assert canary["revision"] == execution["revision"] == seen["healthy"]
    for done in left.find("checkout.healthy", "node/exec1"):
        of = {"revision": done["revision"]}
        moved = left.one("branch.advanced", MAIN, **of)
        tried = left.one("checkout.healthy", "node/labs1", **of)
        order = [
            moved["index"],
            left.find("checkout.requested", "node/labs1", **of)[0]["index"],
            tried["index"],
            left.find("checkout.requested", "node/exec1", **of)[0]["index"],
            done["index"],
        ]
        assert order == sorted(order)
        assert (tried["actor"], done["actor"]) == ("node/labs1", "node/exec1")
        assert (tried["outcome"], done["outcome"]) == ("ok", "ok")


def test_6_a_sick_merge_is_rolled_back_by_itself(demo, tmp_path):
    left, seen = demo.left, demo["deploy"]
    failed = left.one("checkout.failed")
    assert (failed["subject"], failed["revision"]) == ("node/labs1", seen["sick"])
    assert failed["data"]["stayed_on"] == seen["healthy"]
    assert failed["data"]["detail"] == seen["detail"]
    assert left.find("checkout.requested", "node/exec1", revision=seen["sick"]) == []
    done = left.one("rollback.done", MAIN, cause="health")
    assert (done["offset"], done["actor"]) == (seen["rolled_back_by"], "system/supervisor")
    assert done["revision"] == seen["main"]
    assert left.commits[seen["sick"]]["commit"]["parents"] == [seen["healthy"]]
    back = left.commits[seen["main"]]
    assert back["commit"]["parents"] == [seen["sick"]]
    assert back["files"] == left.commits[seen["healthy"]]["files"]
    assert tree_hash(back["files"]) == seen["tree"]

    sick = run_module("study.health", left.content(seen["sick"]), tmp_path / "sick")
    assert sick == (1, seen["detail"])
    well = run_module("study.health", left.content(seen["healthy"]), tmp_path / "well")
    assert well == (0, "healthy\n")


SOURCES = {
    "reads outside its box": ("denied", {"exit"}),
    "opens a socket": ("denied", {"kernel", "exit"}),
    "forks without bound": ("pids", {"kernel", "sampler"}),
    "allocates without bound": ("oom", {"kernel", "sampler", "exit"}),
    "floods its output": ("output", {"node"}),
    "sleeps for ever": ("timeout", {"node"}),
    "computes for ever": ("cpu", {"kernel", "sampler"}),
    "the guard refuses": ("denied", {"guard"}),
}
"""What the demo runs: status and, by tier, who saw it."""


def test_7_code_that_misbehaves_is_stopped(demo):
    left, runs = demo.left, demo["boxes"]["runs"]
    assert list(runs) == list(SOURCES)
    code = {name: text for name, text, *_ in ATTACKS}
    key = public_key(demo.root / "keys" / "grant.key")
    asked = [f for f in left.find("task.accepted") if f["actor"] == "person/owner"]
    for name, (status, sources) in SOURCES.items():
        task = runs[name]["task"]
        accepted, ended = left.one("task.accepted", task), left.one("task.finished", task)
        payload = check_command(accepted["data"]["body"], key)
        assert (ended["actor"], payload["to"]) == ("node/exec1", "node/exec1")
        assert ended["outcome"] == ended["data"]["status"] == runs[name]["status"] == status
        assert ended["data"]["evidence"] == runs[name]["evidence"]
        assert ended["data"]["evidence"]["source"] in sources
        assert "root:" not in ended["data"]["stdout"]
        if name == "the guard refuses":
            continue
        assert (payload["code"], payload["guard"]) == (code[name], False)
        assert left.one("task.started", task)["data"]["tier"] == demo["boxes"]["tier"]
        # The next task that was asked for is honest, and the same node has served it.
        following = asked[asked.index(accepted) + 1]["subject"]
        honest = left.one("task.finished", following)
        assert (honest["actor"], honest["outcome"]) == ("node/exec1", "ok")
        assert honest["data"]["stdout"] == "42\n"
    flood = left.one("task.finished", runs["floods its output"]["task"])
    limit = flood["data"]["evidence"]["limit_bytes"]
    assert len(flood["data"]["stdout"].encode()) <= limit


def test_7_the_guard_refuses_before_anything_starts(demo):
    seen = demo["boxes"]["runs"]["the guard refuses"]
    assert demo.left.find("task.started", seen["task"]) == []
    assert demo.left.find("task.output", seen["task"]) == []
    ended = demo.left.one("task.finished", seen["task"])
    assert (ended["data"]["exit_code"], ended["data"]["stdout"]) == (None, "")
    assert ended["data"]["evidence"]["line"] == 2
    assert "ctypes" in ended["data"]["evidence"]["reason"]


def test_every_command_had_a_grant_that_fits_it_alone(demo):
    left, key = demo.left, public_key(demo.root / "keys" / "grant.key")
    policy = left.one("policy.loaded")["data"]["hash"]
    commands = left.find("task.accepted") + left.find("checkout.requested")
    seen = set()
    for fact in commands:
        payload = check_command(fact["data"]["body"], key)
        grant = payload["grant"]
        assert grant["who"] == fact["actor"]
        assert grant["where"] == fact["data"].get("node", fact["subject"])
        assert grant["policy"] == policy
        assert grant["rule"]
        assert fact["at"] < grant["not_after"]
        if fact["kind"] == "task.accepted":
            assert payload["task"] == fact["subject"]
        assert payload["revision"] == fact["revision"]
        seen.add(grant["id"])
    assert len(seen) == len(commands) > 30


def test_8_main_goes_back_and_forth_by_new_commits(demo):
    left, seen = demo.left, demo["undo"]
    there, back = seen["there"], seen["back"]
    assert seen["before"] == demo["deploy"]["main"]
    assert seen["to"] == demo["import"]["revision"]
    for step, was, like in (
        (there, seen["before"], seen["to"]),
        (back, there["revision"], seen["before"]),
    ):
        new = left.commits[step["revision"]]
        assert new["commit"]["parents"] == [was]
        assert step["parent"] == was
        assert new["files"] == left.commits[like]["files"]
        assert tree_hash(new["files"]) == step["tree"] == left.commits[like]["commit"]["tree"]
        done = left.one("rollback.done", MAIN, revision=step["revision"])
        assert (done["actor"], done["data"]["from"]) == ("person/owner", was)
        nodes = [left.at(offset) for offset in step["nodes"]]
        assert [f["subject"] for f in nodes] == ["node/labs1", "node/exec1"]
        for fact in nodes:
            assert (fact["kind"], fact["actor"]) == ("checkout.healthy", fact["subject"])
            assert fact["revision"] == step["revision"]
    assert there["tree"] != back["tree"]
    assert left.branches[MAIN] == back["revision"]


def test_8_what_lies_on_the_nodes_is_what_was_signed(demo):
    for node in ("labs1", "exec1"):
        folder = demo.root / "nodes" / node / "checkouts" / "study"
        assert (folder / "current").readlink().name == demo["undo"]["back"]["revision"]
        checkouts = [p for p in folder.iterdir() if p.is_dir() and not p.is_symlink()]
        assert {demo["undo"][way]["revision"] for way in ("there", "back")} <= {
            p.name for p in checkouts
        }
        for checkout in checkouts:
            commit = demo.left.commits[checkout.name]["commit"]
            assert tree_hash(files_on_disk(checkout)) == commit["tree"]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_9_the_export_verifies_by_other_code(demo):
    seen, left = demo["audit"], demo.left
    _, *lines = _lines(Path(seen["export"]))
    entries = [line for line in lines if "body" in line]
    bodies = [base64.b64decode(entry["body"]) for entry in entries]
    assert [entry["index"] for entry in entries] == list(range(seen["size"]))
    assert merkle_root(bodies).hex() == seen["root"]
    assert bodies == [leaf.body for leaf in left.leaves[: len(bodies)]]

    key = public_key(demo.root / "keys" / "log.key")
    notes = [checkpoint(line["checkpoint"], key) for line in lines if "checkpoint" in line]
    assert notes[-1] == (seen["size"], bytes.fromhex(seen["root"]))
    for size, root in notes:
        assert merkle_root(bodies[:size]) == root
    assert len(notes) == seen["found"]["checkpoints"]


def test_9_the_audit_log_is_the_journal(demo):
    left = demo.left
    lasting = [f for f in left.facts if f["index"] is not None]
    assert [leaf.place for leaf in left.leaves] == list(range(len(left.leaves)))
    for fact, leaf in zip(lasting, left.leaves, strict=False):
        kept = msgspec.msgpack.decode(leaf.body)
        assert kept == {name: value for name, value in fact.items() if name != "index"}
        assert leaf.leaf == merkle_root([leaf.body])
    # Only what is said while the system ends may still be on its way into the log.
    missing = {f["kind"] for f in lasting[len(left.leaves) :]}
    assert missing <= {"system.stopped", "node.disconnected", "agent.disconnected"}
    size, root, note = left.notes[-1]
    bodies = [leaf.body for leaf in left.leaves]
    assert demo["audit"]["size"] <= size <= len(bodies)
    assert root == merkle_root(bodies[:size])
    assert checkpoint(note, public_key(demo.root / "keys" / "log.key")) == (size, root)


def test_9_one_changed_byte_is_found_and_named(demo):
    export = Path(demo["audit"]["export"])
    copy = export.with_suffix(".tampered.jsonl")
    before, after = export.read_bytes(), copy.read_bytes()
    assert len(before) == len(after)
    changed = [n for n, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
    assert len(changed) == 1
    number = before[: changed[0]].count(b"\n")
    index = demo["audit"]["tampered"]
    was, now = _lines(export)[number], _lines(copy)[number]
    assert was["index"] == now["index"] == index
    assert (was["leaf"], was["body"] != now["body"]) == (now["leaf"], True)
    (problem,) = demo["audit"]["found"]["problems"]
    assert (problem["first"], problem["last"], problem["line"]) == (index, index, number + 1)

    good = cli(demo.root, "audit", "verify", "--export", str(export), "--json")
    said = json.loads(good.stdout)
    assert (good.returncode, said["ok"], said["problems"]) == (0, True, [])
    assert (said["size"], said["root"]) == (demo["audit"]["size"], demo["audit"]["root"])
    bad = cli(demo.root, "audit", "verify", "--export", str(copy), "--json")
    assert (bad.returncode, json.loads(bad.stdout)) == (1, demo["audit"]["found"])
    assert f"entry {index} " in problem["detail"]


def test_nothing_is_left_running(demo):
    assert not (demo.root / "system.json").exists()
    assert json.loads((demo.root / "processes.json").read_text()) == []
