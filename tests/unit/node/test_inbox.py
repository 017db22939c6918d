"""The node's memory of commands: received once, cancelled before they arrive, revoked for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from angelos.core.errors import Forbidden, InvalidInput
from angelos.core.grants import Grant
from angelos.core.ids import CommandId, PrincipalId, new_grant_id
from angelos.node.commands.inbox import Inbox, load


def test_a_command_is_started_once() -> None:
    inbox, command = Inbox(), CommandId("cmd-1")
    assert [inbox.receive(command), inbox.receive(command)] == ["start", "running"]
    inbox.finish(command)
    assert inbox.receive(command) == "finished"


def test_a_command_that_is_cancelled_before_it_arrives_counts_as_finished() -> None:
    inbox, command = Inbox(), CommandId("cmd-1")
    assert [inbox.cancel(command), inbox.cancel(command)] == ["end", "over"]
    assert inbox.receive(command) == "finished"
    inbox.receive(CommandId("cmd-2"))
    assert inbox.cancel(CommandId("cmd-2")) == "stop"


def _grant(now_ms: int) -> Grant:
    return Grant(
        id=new_grant_id(now_ms), who=PrincipalId("agent/m"), what="", where=PrincipalId("node/a"),
        policy="", rule="", not_after=9e9,
    )  # fmt: skip


def test_a_revocation_voids_older_grants_and_survives_a_restart(tmp_path: Path) -> None:
    inbox, file = load(tmp_path / "revoked.json"), tmp_path / "revoked.json"
    inbox.revoke(PrincipalId("agent/m"), _grant(2_000))
    file.write_bytes(inbox.dump())
    for memory in (inbox, load(file)):
        with pytest.raises(Forbidden):
            memory.check(_grant(1_999))
        memory.check(_grant(2_001))
    file.write_bytes(b"{half")
    with pytest.raises(InvalidInput, match="cannot be read"):
        load(file)
