r"""What a witness answers, as C2SP tlog-witness writes it down. Pure.

old 20                            the size of the last checkpoint that it cosigned
<consistency proof, base64, a hash a line>

<the checkpoint with the log's signatures>
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from angelos.core.errors import Tampered
from angelos.governance.log.checkpoint import (
    Checkpoint,
    KeyEpoch,
    open_checkpoint,
    parse_checkpoint,
)
from angelos.governance.log.merkle import HASH_BYTES, verify_consistency
from angelos.governance.log.notes import parse_note

MAX_REQUEST_BYTES = 128 * 1024
_MAX_PROOF = 63
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})")


class WitnessStatus(IntEnum):
    """The HTTP status of an answer."""

    cosigned = 200
    malformed = 400
    unsigned = 403
    """No key that the witness trusts for this log has signed it."""
    unknown_log = 404
    conflict = 409
    """The last checkpoint has another size, which the answer says, or another root."""
    inconsistent = 422
    """The proof does not show that the log only grew."""


class WitnessRequest(NamedTuple):
    """A checkpoint with the proof that it continues the last one."""

    old_size: int
    proof: tuple[bytes, ...]
    note: str

    @property
    def encoded(self) -> str:
        """The request's body."""
        lines = [f"old {self.old_size}", *(base64.b64encode(h).decode() for h in self.proof)]
        return "\n".join(lines) + "\n\n" + self.note


class WitnessVerdict(NamedTuple):
    """The answer, and the checkpoint to remember before it is given."""

    status: WitnessStatus
    checkpoint: Checkpoint | None = None


def parse_witness_request(body: bytes) -> WitnessRequest:
    """Return the request in a body; raise `Tampered` if it is none."""
    try:
        head, _, note = body.decode().partition("\n\n")
        first, *lines = head.split("\n")
        proof = tuple(base64.b64decode(line, validate=True) for line in lines)
    except (UnicodeDecodeError, binascii.Error, ValueError) as error:
        raise Tampered("The request has the wrong form.") from error
    old = _OLD.fullmatch(first)
    if old is None or len(proof) > _MAX_PROOF or any(len(h) != HASH_BYTES for h in proof):
        raise Tampered("The request has the wrong form.")
    request = WitnessRequest(int(old[1]), proof, note)
    if request.encoded.encode() != body:
        raise Tampered("The request is not in its canonical form.")
    return request


def witness_verdict(
    request: WitnessRequest,
    epochs: Mapping[str, Sequence[KeyEpoch]],
    last: Mapping[str, Checkpoint],
) -> WitnessVerdict:
    """Return whether a witness cosigns.

    Args:
        request: What a log sent.
        epochs: The keys of each log that the witness knows, by its origin.
        last: The last checkpoint of each that it cosigned.
    """
    try:
        tree = parse_checkpoint(parse_note(request.note).text)
    except Tampered:
        return WitnessVerdict(WitnessStatus.malformed)
    if tree.origin not in epochs:
        return WitnessVerdict(WitnessStatus.unknown_log)
    try:
        open_checkpoint(request.note, epochs[tree.origin])
    except Tampered:
        return WitnessVerdict(WitnessStatus.unsigned)
    status = _continues(request, tree, last.get(tree.origin))
    return WitnessVerdict(status, tree if status is WitnessStatus.cosigned else None)


def _continues(
    request: WitnessRequest, tree: Checkpoint, previous: Checkpoint | None
) -> WitnessStatus:
    size = previous.size if previous else 0
    if request.old_size > tree.size:
        return WitnessStatus.malformed
    if request.old_size != size:
        return WitnessStatus.conflict
    if previous is not None and size == tree.size and previous.root != tree.root:
        return WitnessStatus.conflict
    if previous is None or size in {0, tree.size}:
        consistent = not request.proof
    else:
        consistent = verify_consistency(size, previous.root, tree.size, tree.root, request.proof)
    return WitnessStatus.cosigned if consistent else WitnessStatus.inconsistent
