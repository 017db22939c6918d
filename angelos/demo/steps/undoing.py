"""Steps 8 and 9: rolling back, and the audit log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from angelos.demo.world import World, expect


async def roll_back(world: World) -> dict[str, Any]:
    """Take `main` back to before `rms` or `midrange`, then undo that."""
    before = await world.main()
    target = world.revisions["first"]
    rolled_back = await _rolled_back(world, target, "the demo shows it")
    undone = await _rolled_back(world, before, "undo of the rollback")
    return {"before": before, "to": target, "rolled_back": rolled_back, "undone": undone}


async def _rolled_back(world: World, to: str, reason: str) -> dict[str, Any]:
    previous = await world.main()
    answer = await world.cli("repo", "rollback", to, "--repo", world.repo, "--reason", reason)
    expect(answer["exit"] == 0, f"`angelos repo rollback` works: {answer}")
    now = await world.main()
    commit = await world.repository.revision(now)
    target = await world.repository.revision(to)
    expect(now != to and commit.tree == target.tree, "a new commit has the old tree")
    expect(commit.parents == (previous,), "its parent is the commit rolled back")
    healthy = [await world.node_has(node, now) for node in ("labs1", "exec1")]
    return {
        "revision": now,
        "tree": commit.tree,
        "parent": previous,
        "nodes": [f.offset for f in healthy],
    }


async def verify_audit(world: World) -> dict[str, Any]:
    """Export the log, verify it offline, change one byte in a copy, verify again."""
    export = world.data_dir / "audit.jsonl"
    written = await world.cli("audit", "export", str(export))
    expect(written["exit"] == 0, f"`angelos audit export` works: {written}")
    good = await world.cli("audit", "verify", "--export", str(export))
    expect(good["exit"] == 0 and good["answer"].get("ok"), f"the export verifies: {good}")
    copy = export.with_suffix(".tampered.jsonl")
    index = _tamper(export, copy)
    bad = await world.cli("audit", "verify", "--export", str(copy))
    expect(bad["exit"] == 1, f"a changed byte is found: {bad}")
    named = [problem["first"] for problem in bad["answer"]["problems"]]
    expect(index in named, f"entry {index} is named: {bad}")
    return {
        "export": str(export),
        "size": good["answer"].get("size"),
        "root": good["answer"].get("root"),
        "tampered": index,
        "found": bad["answer"],
    }


def _tamper(export: Path, copy: Path) -> int:
    """Write `copy` with one byte of one entry in the middle changed; return the entry's index."""
    lines = export.read_bytes().splitlines(keepends=True)
    entries = [number for number, line in enumerate(lines) if b'"body"' in line]
    chosen = entries[len(entries) // 2]
    row = json.loads(lines[chosen])
    line = bytearray(lines[chosen])
    place = line.index(b'"subject":"') + len(b'"subject":"')
    line[place] ^= 1
    lines[chosen] = bytes(line)
    copy.write_bytes(b"".join(lines))
    return int(row["index"])
