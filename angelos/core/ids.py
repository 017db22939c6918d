"""Identifiers that sort by time and say what they name: `task-0193...`, `prop-0193...`.

The part after the prefix is a UUIDv7 (RFC 9562, section 5.7) in hex without dashes.

    >>> new_task_id(now_ms=1_700_000_000_000)[:17]
    'task-018bcfe56800'
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from typing import NewType

TaskId = NewType("TaskId", str)
ProposalId = NewType("ProposalId", str)
CommandId = NewType("CommandId", str)
FactId = NewType("FactId", str)
GrantId = NewType("GrantId", str)
PrincipalId = NewType("PrincipalId", str)
"""`person/NAME`, `agent/NAME`, `node/NAME` or `system/NAME`.

A person's id is never used again: the second `ann` is `person/ann~2`. Names cannot hold a `~`.
"""
Offset = NewType("Offset", str)
"""A position in the journal, `<milliseconds>-<sequence>`; compare with `offset_key`."""
Revision = NewType("Revision", str)
"""SHA-256 of a commit, 64 lower-case hex digits."""

DocumentId = NewType("DocumentId", str)
"""A document of a repository, whatever its path is now; never used again."""
HunkId = NewType("HunkId", str)
"""One piece of a proposal, 16 hex digits; equal pieces of equal proposals have equal ids."""

START: Offset = Offset("0-0")
"""Before the first entry of every journal."""

_ID = re.compile(r"(task|prop|cmd|fact|grant)-[0-9a-f]{32}")
_HEX = "0123456789abcdef"
_FACT_ID_LENGTH = len("fact-") + 32
_PRINCIPAL = re.compile(
    r"(person|agent|node|system)/[A-Za-z0-9][A-Za-z0-9._@-]{0,63}|"
    r"person/[A-Za-z0-9][A-Za-z0-9._@-]{0,63}~[1-9][0-9]{0,8}"
)
_OFFSET = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")
_REVISION = re.compile(r"[0-9a-f]{64}")


def uuid7(now_ms: int | None = None) -> str:
    """Return 32 hex digits whose first 12 are the time in milliseconds (RFC 9562)."""
    ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    rand = int.from_bytes(os.urandom(10), "big")
    value = (ms & (2**48 - 1)) << 80 | rand
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


def new_task_id(now_ms: int | None = None) -> TaskId:
    """Return a fresh id for a task."""
    return TaskId(f"task-{uuid7(now_ms)}")


def new_proposal_id(now_ms: int | None = None) -> ProposalId:
    """Return a fresh id for a proposal."""
    return ProposalId(f"prop-{uuid7(now_ms)}")


def new_command_id(now_ms: int | None = None) -> CommandId:
    """Return a fresh id for a command."""
    return CommandId(f"cmd-{uuid7(now_ms)}")


def new_fact_id(now_ms: int | None = None) -> FactId:
    """Return a fresh id for a fact."""
    return FactId(f"fact-{uuid7(now_ms)}")


def fact_of(command: CommandId, kind: str) -> FactId:
    """Return the id of the only fact of this kind about a command, whoever reports it.

    The journal stores a fact once by its id: when a node and control both report that a task
    has finished, the first report counts and the second changes nothing.
    """
    return FactId(f"fact-{hashlib.sha256(f'{command} {kind}'.encode()).hexdigest()[:32]}")


def new_grant_id(now_ms: int | None = None) -> GrantId:
    """Return a fresh id for a grant."""
    return GrantId(f"grant-{uuid7(now_ms)}")


def time_of(id_: str) -> float:
    """Return when an id says that it was made (Unix seconds); ids of others may say anything.

    >>> time_of(new_command_id(now_ms=1_700_000_000_000))
    1700000000.0
    """
    return int(id_.partition("-")[2][:12], 16) / 1000


def is_id(text: str) -> bool:
    """Return whether `text` has the form of one of the ids made here."""
    return bool(_ID.fullmatch(text))


def is_fact_id(text: str) -> bool:
    """Return whether `text` has the form of a fact's id."""
    # Asked for every fact: a third of what a regular expression costs.
    return len(text) == _FACT_ID_LENGTH and text.startswith("fact-") and not text[5:].strip(_HEX)


def is_principal(text: str) -> bool:
    """Return whether `text` has the form of a principal's id, such as `agent/ada`."""
    return bool(_PRINCIPAL.fullmatch(text))


def is_offset(text: str) -> bool:
    """Return whether `text` has the form of a journal offset."""
    return bool(_OFFSET.fullmatch(text))


def is_revision(text: str) -> bool:
    """Return whether `text` has the form of a full revision."""
    return bool(_REVISION.fullmatch(text))


def offset_key(offset: Offset) -> tuple[int, int]:
    """Return a key by which offsets sort in journal order."""
    ms, _, seq = offset.partition("-")
    return int(ms), int(seq)
