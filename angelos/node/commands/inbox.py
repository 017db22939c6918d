"""Which commands a node has received, finished and had revoked. Pure, except for `load`.

Commands arrive at least once. A command that runs is not started again, and one that has finished
is only acknowledged again. A revocation voids the grants that were made before its own: the id of
a grant carries its time (UUIDv7), by control's clock. The id of a command may be a hash.
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


class Inbox:
    """The node's memory of commands."""

    def __init__(self, revoked: dict[PrincipalId, int] | None = None) -> None:
        self.revoked = dict(revoked or {})
        """Principal -> milliseconds up to which its grants are void."""
        self._open: set[CommandId] = set()
        self._finished: OrderedDict[CommandId, None] = OrderedDict()

    def receive(self, command: CommandId) -> Literal["start", "running", "finished"]:
        """Record that a command has arrived and return what to do with it."""
        if command in self._finished:
            return "finished"
        if command in self._open:
            return "running"
        self._open.add(command)
        return "start"

    def cancel(self, command: CommandId) -> Literal["stop", "end", "over"]:
        """Record that a command is cancelled and return what that means.

        `stop`: it runs and has to be stopped. `end`: it has not arrived; report its end now, since
        it will not be carried out when it does. `over`: it has finished already.
        """
        if command in self._finished:
            return "over"
        if command in self._open:
            return "stop"
        self.finish(command)
        return "end"

    def forget(self, command: CommandId) -> None:
        """Record that a command was not carried out; it starts when it arrives again."""
        self._open.discard(command)

    def finish(self, command: CommandId) -> None:
        """Record that a command has finished."""
        self._open.discard(command)
        self._finished[command] = None
        while len(self._finished) > _REMEMBERED:
            self._finished.popitem(last=False)

    def revoke(self, principal: PrincipalId, revocation: Grant) -> None:
        """Void the grants of `principal` that are older than the grant of the revocation."""
        self.revoked[principal] = max(self.revoked.get(principal, 0), time_of(revocation.id))

    def check(self, grant: Grant) -> None:
        """Raise `Forbidden` if a grant was revoked."""
        if time_of(grant.id) <= self.revoked.get(grant.who, -1):
            raise Forbidden(f"The grants of {grant.who} were revoked.")

    def dump(self) -> bytes:
        """Return the revocations as the content of the node's file."""
        return msgspec.json.encode(self.revoked)


def load(file: Path) -> Inbox:
    """Return an inbox with the revocations in `file`, if there is one; raise `InvalidInput`."""
    try:
        return Inbox(msgspec.json.decode(file.read_bytes(), type=dict[PrincipalId, int]))
    except FileNotFoundError:
        return Inbox()
    except msgspec.DecodeError as error:
        raise InvalidInput(
            f"The revocations in {file} cannot be read: {error}. Without them a revoked grant might"
            " be carried out.",
            hint="Restore the file from a backup, or have the node join again in an empty folder.",
        ) from error
