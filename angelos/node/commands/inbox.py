"""Which commands a node has seen, finished and had revoked. Pure, but for `load`.

Commands come at least once. One that runs is not started again, one that was finished is only
acknowledged again. A revocation voids the grants that were made out before its own: a grant
carries its time in its id (UUIDv7), by control's clock. A command's id may be a hash.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Literal

import msgspec

from angelos.core.errors import Forbidden, InvalidInput
from angelos.core.grants import Grant
from angelos.core.ids import CommandId, PrincipalId

_REMEMBERED = 8192
_TIME_DIGITS = 12


def time_of(identity: str) -> int:
    """Return the milliseconds in an id made by `core.ids`."""
    return int(identity.rpartition("-")[2][:_TIME_DIGITS] or "0", 16)


class Ledger:
    """The node's memory of commands."""

    def __init__(self, revoked: dict[PrincipalId, int] | None = None) -> None:
        """Start with the revocations that were kept."""
        self.revoked = dict(revoked or {})
        """Principal -> milliseconds up to which grants are void."""
        self._open: set[CommandId] = set()
        self._finished: OrderedDict[CommandId, None] = OrderedDict()

    def receive(self, command: CommandId) -> Literal["start", "running", "finished"]:
        """Note that a command has come and return what to do with it."""
        if command in self._finished:
            return "finished"
        if command in self._open:
            return "running"
        self._open.add(command)
        return "start"

    def cancel(self, command: CommandId) -> Literal["stop", "end", "over"]:
        """Note that a command is to be stopped and return what that means.

        `stop` what runs; say the `end` of what has not come and will not be carried out when it
        does; it is `over` already.
        """
        if command in self._finished:
            return "over"
        if command in self._open:
            return "stop"
        self.finish(command)
        return "end"

    def forget(self, command: CommandId) -> None:
        """Note that a command was not carried out and is to be, when it comes again."""
        self._open.discard(command)

    def finish(self, command: CommandId) -> None:
        """Note that a command is done."""
        self._open.discard(command)
        self._finished[command] = None
        while len(self._finished) > _REMEMBERED:
            self._finished.popitem(last=False)

    def revoke(self, principal: PrincipalId, order: Grant) -> None:
        """Void the grants made out to `principal` before that of the revocation itself."""
        self.revoked[principal] = max(self.revoked.get(principal, 0), time_of(order.id))

    def check(self, grant: Grant) -> None:
        """Raise `Forbidden` if a grant was revoked."""
        if time_of(grant.id) <= self.revoked.get(grant.who, -1):
            raise Forbidden(f"The grants of {grant.who} were revoked.")

    def dump(self) -> bytes:
        """Return the revocations for the node's file."""
        return msgspec.json.encode(self.revoked)


def load(file: Path) -> Ledger:
    """Return a ledger with what `dump` gave the file, if there is one; raise `InvalidInput`."""
    try:
        return Ledger(msgspec.json.decode(file.read_bytes(), type=dict[PrincipalId, int]))
    except FileNotFoundError:
        return Ledger()
    except msgspec.DecodeError as error:
        raise InvalidInput(
            f"The revocations in {file} cannot be read: {error}. Without them a revoked grant might"
            " be carried out.",
            hint="Put the file back from a backup, or enrol the node anew in an empty folder.",
        ) from error
