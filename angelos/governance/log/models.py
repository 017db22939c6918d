"""Rows of the audit log: new entries, stored entries, and how far the log has come."""

from __future__ import annotations

import os

import msgspec

from angelos.core.audit import SALT_BYTES, leaf_body
from angelos.core.facts import EPHEMERAL, Fact
from angelos.core.ids import Offset
from angelos.governance.log.checkpoint import Checkpoint
from angelos.governance.log.merkle import Frontier, leaf_hash


class NewEntry(msgspec.Struct, frozen=True):
    """A lasting fact as the tree and the rows take it."""

    offset: Offset
    body: bytes
    leaf: bytes
    salt: bytes
    data: bytes


class EntryRow(msgspec.Struct, frozen=True):
    """An entry as it is stored."""

    index: int
    body: bytes
    leaf: bytes
    salt: bytes | None
    data: bytes | None


class Head(msgspec.Struct, frozen=True):
    """How far the projection has come, and of which log."""

    origin: str
    tree: Frontier
    offset: Offset


class Signed(msgspec.Struct, frozen=True):
    """A checkpoint with its note and the frontier it was signed at."""

    checkpoint: Checkpoint
    note: str
    tree: Frontier


def new_entry(fact: Fact, salt: bytes | None = None) -> NewEntry | None:
    """Return the entry of a fact that has its offset; None for a kind that does not last.

    Args:
        fact: With its offset.
        salt: 32 random bytes, by default fresh ones.
    """
    if fact.kind in EPHEMERAL:
        return None
    salt = salt or os.urandom(SALT_BYTES)
    body = leaf_body(fact, salt)
    return NewEntry(fact.offset, body, leaf_hash(body), salt, fact.data)
