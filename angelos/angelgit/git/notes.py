r"""Blame as git notes (`refs/notes/ai`) in the Git AI Standard 3.0.0, which git-ai reads. Pure.

    >>> author = LineAuthor("agent/ada", "prop-1")
    >>> print(note("f" * 40, {"a b.txt": [(1, 2)]}, author, deleted=0).split("\n---")[0])
    "a b.txt"
      c549a32b476468ad 1-2

A note names, for one commit, the lines that it added and who wrote them: an agent by its proposal,
a person by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from angelos.angelgit.documents.edits import line_hunks

REF = b"refs/notes/ai"
SCHEMA = "authorship/3.0.0"
Ranges = Sequence[tuple[int, int]]


class LineAuthor(NamedTuple):
    """Who wrote the lines of a commit."""

    principal: str
    proposal: str = ""
    on_behalf_of: str = ""

    @property
    def is_agent(self) -> bool:
        """Whether it is a program."""
        return self.principal.startswith("agent/")

    @property
    def id(self) -> str:
        """What attestations name it by."""
        if self.is_agent:
            text = f"{self.principal}\0{self.proposal}"
            return hashlib.sha256(text.encode()).hexdigest()[:16]
        return f"h_{hashlib.sha256(self.principal.encode()).hexdigest()[:14]}"


def added_ranges(before: str, after: str) -> list[tuple[int, int]]:
    """Return the lines of a text that were not in the one before, from 1, ends included."""
    hunks = line_hunks(before, after)
    return [(h.new_start + 1, h.new_end) for h in hunks if h.new_end > h.new_start]


def note(commit: str, files: Mapping[str, Ranges], author: LineAuthor, *, deleted: int) -> str:
    """Return the note of a commit.

    Args:
        commit: id of the git commit.
        files: path -> ranges of added lines.
        author: of all of them.
        deleted: how many lines it removed.
    """
    rows: list[str] = []
    for path, ranges in sorted(files.items()):
        rows.append(json.dumps(path, ensure_ascii=False) if " " in path else path)
        shown = (str(a) if a == b else f"{a}-{b}" for a, b in ranges)
        rows.append(f"  {author.id} {','.join(shown)}")
    added = sum(b - a + 1 for ranges in files.values() for a, b in ranges)
    body: dict[str, object] = {
        "schema_version": SCHEMA,
        "base_commit_sha": commit,
        "prompts": {},
    }
    if author.is_agent:
        agent = {"tool": "angelos", "id": author.proposal or author.principal, "model": ""}
        prompt = {
            "agent_id": agent,
            "human_author": author.on_behalf_of or None,
            "messages": [],
            "total_additions": added,
            "total_deletions": deleted,
            "accepted_lines": added,
            "overriden_lines": 0,
        }
        body["prompts"] = {author.id: prompt}
    else:
        body["humans"] = {author.id: {"author": author.principal}}
    return "\n".join([*rows, "---", json.dumps(body, indent=2)]) + "\n"
