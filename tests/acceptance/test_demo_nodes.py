"""What the demo left of its steps 6 to 9, derived again from stores, checkouts and files.

The stores are read as they are (see `demo_stores.py`), and hashes, roots and signatures are
computed by other code than AngelOS's (see `independent.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from angelos.demo.steps.boxes import ATTACKS
from tests.acceptance.demo_process import MAIN
from tests.acceptance.independent import (
    canonical,
    check_command,
    checkpoint,
    files_on_disk,
    merkle_root,
    public_key,
    read_leaf,
    run_module,
    tree_hash,
)
from tests.acceptance.up_process import cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("demo")]


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
    "reads outside its box": ("error", {"exit"}),
    "opens a socket": ("error", {"exit"}),
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
    first, second = seen["rolled_back"], seen["undone"]
    assert seen["before"] == demo["deploy"]["main"]
    assert seen["to"] == demo["import"]["revision"]
    for step, was, like in (
        (first, seen["before"], seen["to"]),
        (second, first["revision"], seen["before"]),
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
    assert first["tree"] != second["tree"]
    assert left.branches[MAIN] == second["revision"]


def test_8_what_lies_on_the_nodes_is_what_was_signed(demo):
    for node in ("labs1", "exec1"):
        folder = demo.root / "nodes" / node / "checkouts" / "study"
        assert (folder / "current").readlink().name == demo["undo"]["undone"]["revision"]
        checkouts = [p for p in folder.iterdir() if p.is_dir() and not p.is_symlink()]
        assert {demo["undo"][way]["revision"] for way in ("rolled_back", "undone")} <= {
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
    bodies = [canonical(entry["body"]) for entry in entries]
    assert [entry["index"] for entry in entries] == list(range(seen["size"]))
    assert merkle_root(bodies).hex() == seen["root"]
    assert bodies == [leaf.body for leaf in left.leaves[: len(bodies)]]

    vkeys = (demo.root / "keys" / "log.vkeys").read_text()
    notes = [checkpoint(line["checkpoint"], vkeys) for line in lines if "checkpoint" in line]
    assert notes[-1] == (seen["size"], bytes.fromhex(seen["root"]))
    for size, root in notes:
        assert merkle_root(bodies[:size]) == root
    assert len(notes) == seen["found"]["checkpoints"]


def test_9_the_audit_log_is_the_journal(demo):
    left = demo.left
    lasting = [f for f in left.facts if f["index"] is not None]
    assert [leaf.place for leaf in left.leaves] == list(range(len(left.leaves)))
    for fact, leaf in zip(lasting, left.leaves, strict=False):
        kept = read_leaf(leaf.body, leaf.salt, leaf.data)
        expected = {name: value for name, value in fact.items() if name != "index"}
        assert kept == {name: value for name, value in expected.items() if value not in (None, "")}
        assert leaf.leaf == merkle_root([leaf.body])
    # Only what is said while the system ends may still be on its way into the log.
    missing = {f["kind"] for f in lasting[len(left.leaves) :]}
    assert missing <= {"system.stopped", "node.disconnected", "agent.disconnected"}
    size, root, note = left.notes[-1]
    bodies = [leaf.body for leaf in left.leaves]
    assert demo["audit"]["size"] <= size <= len(bodies)
    assert root == merkle_root(bodies[:size])
    assert checkpoint(note, (demo.root / "keys" / "log.vkeys").read_text()) == (size, root)


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
