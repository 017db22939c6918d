"""Stored records: names, digests and hashes are checked."""

from __future__ import annotations

import pytest

from angelos.angelgit.documents import crdt
from angelos.angelgit.storage.models import FileChange, check_name, decode, proposal_digest
from angelos.core.errors import InvalidInput, Tampered
from angelos.core.repository import NewText


def test_names_digests_and_records_are_checked():
    assert check_name("study") == "study"
    for name in ("", "../x", "a/b", "a\n", "-a", "x" * 65):
        with pytest.raises(InvalidInput):
            check_name(name)
    edits = [NewText(path="a", text="x")]
    one = proposal_digest("r", "b", "agent/a", edits)
    assert one == proposal_digest("r", "b", "agent/a", edits)
    others = [
        proposal_digest("s", "b", "agent/a", edits), proposal_digest("r", "c", "agent/a", edits),
        proposal_digest("r", "b", "agent/b", edits), proposal_digest("r", "b", "agent/a", []),
    ]  # fmt: skip
    assert one not in others
    with pytest.raises(Tampered):
        decode(b"\xc1", FileChange)
    with pytest.raises(Tampered):
        crdt.verify("a.txt", crdt.build("a.txt", "x"), "y")
