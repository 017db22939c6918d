"""Output as text, and the node's memory of commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.core.errors import Forbidden, InvalidInput
from angelos.core.grants import Grant
from angelos.core.ids import CommandId, PrincipalId, new_grant_id
from angelos.node.commands.attempts import KEPT, Attempts
from angelos.node.commands.inbox import Ledger, load
from angelos.node.commands.output import CHUNK_CHARS, KEPT_CHARS, Feed


@given(st.text(), st.lists(st.integers(1, 7)))
def test_text_survives_any_splitting(text: str, sizes: list[int]) -> None:
    data, feed, said = text.encode("utf-8", "surrogatepass"), Feed(), ""
    for size in sizes:
        feed.add("stdout", data[:size])
        data = data[size:]
        said += "".join(piece for _, piece in feed.take())
    feed.add("stdout", data)
    feed.end()
    said += "".join(piece for _, piece in feed.take())
    assert said == text
    assert feed.kept["stdout"].text() == text


def test_bad_bytes_and_half_characters_become_replacements() -> None:
    feed = Feed()
    feed.add("stderr", b"\xffa\xe2\x82")
    feed.end()
    assert feed.take() == [("stderr", "\ufffda\ufffd")]


def test_order_between_streams_is_kept_and_pieces_are_bounded() -> None:
    feed = Feed()
    feed.add("stdout", b"a")
    feed.add("stdout", b"b")
    feed.add("stderr", b"c")
    feed.add("stdout", b"d" * (CHUNK_CHARS + 1))
    pieces = feed.take()
    assert pieces[:2] == [("stdout", "ab"), ("stderr", "c")]
    assert [len(text) for _, text in pieces[2:]] == [CHUNK_CHARS, 1]


def test_the_result_keeps_head_and_tail() -> None:
    feed = Feed()
    feed.add("stdout", b"head" + b"x" * 3 * KEPT_CHARS + b"tail")
    kept = feed.kept["stdout"]
    assert kept.truncated
    assert kept.text().startswith("head")
    assert kept.text().endswith("tail")
    assert len(kept.text()) < KEPT_CHARS + 100


def test_a_command_is_started_once() -> None:
    ledger, command = Ledger(), CommandId("cmd-1")
    assert [ledger.receive(command), ledger.receive(command)] == ["start", "running"]
    ledger.finish(command)
    assert ledger.receive(command) == "finished"


def test_a_command_that_is_stopped_before_it_comes_counts_as_finished() -> None:
    ledger, command = Ledger(), CommandId("cmd-1")
    assert [ledger.cancel(command), ledger.cancel(command)] == ["end", "over"]
    assert ledger.receive(command) == "finished"
    ledger.receive(CommandId("cmd-2"))
    assert ledger.cancel(CommandId("cmd-2")) == "stop"


def test_attempts_are_counted_over_restarts_and_bounded(tmp_path: Path) -> None:
    file, long = tmp_path / "begun.json", CommandId("cmd-long")
    attempts = Attempts(file)
    assert attempts.begin(long) == 1
    for number in range(2 * KEPT):
        short = CommandId(f"cmd-{number}")
        assert attempts.begin(short) == 1
        attempts.end(short)
    assert len(file.read_bytes()) < 30 * KEPT
    again = Attempts(file)
    assert (again.begin(long), again.begin(CommandId("cmd-0"))) == (2, 1)
    file.write_bytes(b"half a fi")
    assert Attempts(file).begin(long) == 1


def test_a_full_disk_does_not_keep_a_task_from_beginning(tmp_path: Path, caplog: Any) -> None:
    attempts = Attempts(tmp_path / "gone" / "begun.json")
    assert attempts.begin(CommandId("cmd-1")) == 1
    assert "cannot be written" in caplog.text


def _grant(now_ms: int) -> Grant:
    return Grant(
        id=new_grant_id(now_ms), who=PrincipalId("agent/m"), what="", where=PrincipalId("node/a"),
        policy="", rule="", not_after=9e9,
    )  # fmt: skip


def test_a_revocation_voids_older_grants_and_survives_a_restart(tmp_path: Path) -> None:
    ledger, file = load(tmp_path / "revoked.json"), tmp_path / "revoked.json"
    ledger.revoke(PrincipalId("agent/m"), _grant(2_000))
    file.write_bytes(ledger.dump())
    for memory in (ledger, load(file)):
        with pytest.raises(Forbidden):
            memory.check(_grant(1_999))
        memory.check(_grant(2_001))
    file.write_bytes(b"{half")
    with pytest.raises(InvalidInput, match="cannot be read"):
        load(file)
