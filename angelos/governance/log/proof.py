r"""A proof that an entry is in the log, in one file (C2SP tlog-proof), verified offline.

    c2sp.org/tlog-proof@v1
    extra <base64 of the entry's bytes>
    index 3
    <the audit path, base64, lowest first>

    <the checkpoint with its signatures>

The extra data are the leaf's bytes: they are not trusted, their hash must be the one proved.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection

import msgspec

from angelos.core.errors import Tampered
from angelos.governance.log.checkpoint import Checkpoint, KeyEpoch, open_checkpoint
from angelos.governance.log.merkle import HASH_BYTES, leaf_hash, verify_inclusion

HEADER = "c2sp.org/tlog-proof@v1"
MAX_PROOF_BYTES = 256 * 1024
_MAX_PATH = 63


class InclusionProof(msgspec.Struct, frozen=True):
    """An entry with its place in a signed tree."""

    body: bytes
    index: int
    path: tuple[bytes, ...]
    note: str

    @property
    def encoded(self) -> str:
        """The proof as text."""
        lines = [HEADER, f"extra {_base64(self.body)}", f"index {self.index}"]
        lines += [_base64(hash_) for hash_ in self.path]
        return "\n".join(lines) + "\n\n" + self.note

    def verify(self, epochs: Collection[KeyEpoch]) -> Checkpoint:
        """Return the signed tree that the entry is in.

        Args:
            epochs: The log's keys, as the verifier knows them from elsewhere.

        Raises:
            Tampered: The entry is not in it, or it is not signed.
        """
        checkpoint = open_checkpoint(self.note, epochs)
        self.verify_in(checkpoint)
        return checkpoint

    def verify_in(self, checkpoint: Checkpoint) -> None:
        """Raise `Tampered` if the entry is not in a tree whose signatures were verified."""
        leaf = leaf_hash(self.body)
        if not verify_inclusion(leaf, self.index, checkpoint.size, self.path, checkpoint.root):
            raise Tampered(f"The entry is not entry {self.index} of the signed log.")


def parse_proof(text: str) -> InclusionProof:
    """Return the proof in a text, unverified; raise `Tampered` if it is none."""
    if len(text) > MAX_PROOF_BYTES:
        raise Tampered(f"The proof has over {MAX_PROOF_BYTES} characters.")
    head, _, note = text.partition("\n\n")
    lines = head.split("\n")
    try:
        header, extra, index, *path = lines
        proof = InclusionProof(
            base64.b64decode(extra.removeprefix("extra "), validate=True),
            int(index.removeprefix("index ")),
            tuple(base64.b64decode(line, validate=True) for line in path),
            note,
        )
    except (ValueError, binascii.Error) as error:
        raise Tampered("The proof has the wrong form.") from error
    lengths = {len(hash_) for hash_ in proof.path} | {HASH_BYTES}
    if header != HEADER or lengths != {HASH_BYTES} or len(path) > _MAX_PATH:
        raise Tampered("The proof has the wrong form.")
    if proof.encoded != text:
        raise Tampered("The proof is not in its canonical form.")
    return proof


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
