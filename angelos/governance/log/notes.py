r"""Signed notes and their keys (C2SP signed-note), which other tools for transparency logs read.

    angelos/audit/6fd0...            the text
    7
    Xz1o...=
                                     (an empty line)
    — angelos/audit/6fd0... AbCd...  a key's name, base64(first 4 bytes of its id || signature)

A verifier key is one line of text, `<name>+<key id>+<base64 of algorithm and key>`:

    >>> key = NoteKey("log.example/a", Algorithm.ed25519, bytes(32))
    >>> NoteKey.parse(key.vkey) == key
    True
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from angelos.core.errors import InvalidInput, Tampered

MAX_NOTE_BYTES = 64 * 1024
MAX_SIGNATURES = 32
_DASH = "\u2014 "
_ID_BYTES = 4
_NAME = re.compile(r"[^\s+\x00-\x1f]{1,255}")


class Algorithm(IntEnum):
    """What kind of signature a key makes, as signed-note and tlog-cosignature number them."""

    ed25519 = 0x01
    """Over the note's text."""
    cosignature = 0x04
    """Ed25519 with a time, of a witness (tlog-cosignature)."""
    ml_dsa_44 = 0x06
    """ML-DSA-44 with a time (tlog-cosignature): for an attacker with a quantum computer too."""

    @property
    def key_bytes(self) -> int:
        """How long a public key is."""
        return 1312 if self is Algorithm.ml_dsa_44 else 32


class NoteKey(NamedTuple):
    """A public key that signs notes."""

    name: str
    algorithm: Algorithm
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The first four bytes of the hash that names the key."""
        hashed = self.name.encode() + b"\n" + bytes([self.algorithm]) + self.public
        return hashlib.sha256(hashed).digest()[:_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The key as text."""
        material = base64.b64encode(bytes([self.algorithm]) + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{material}"

    @classmethod
    def parse(cls, text: str) -> NoteKey:
        """Return the key in a text.

        Raises:
            InvalidInput: It is not one, or of an algorithm that is not supported.
        """
        name, _, rest = text.partition("+")
        material = rest.partition("+")[2]
        try:
            raw = base64.b64decode(material, validate=True)
            key = cls(name, Algorithm(raw[0]), raw[1:])
        except (binascii.Error, IndexError, ValueError) as error:
            raise InvalidInput(f"{text[:80]!r} is not a verifier key.", hint=_VKEY_HINT) from error
        sound = _NAME.fullmatch(name) and len(key.public) == key.algorithm.key_bytes
        if not sound or key.vkey != text:  # no second spelling
            raise InvalidInput(f"{text[:80]!r} is not a verifier key.", hint=_VKEY_HINT)
        return key


_VKEY_HINT = "One is <name>+<8 hex digits>+<base64>, as `angelos audit keys` prints it."


def vkey_lines(epochs: Iterable[Iterable[NoteKey]]) -> bytes:
    """Return keys as a file, a line for those that sign together."""
    return "".join(" ".join(key.vkey for key in epoch) + "\n" for epoch in epochs).encode()


def parse_vkey_lines(text: str) -> list[tuple[NoteKey, ...]]:
    """Return the keys in a file, as `vkey_lines` writes it; raise `InvalidInput` if it is none."""
    return [tuple(map(NoteKey.parse, line.split())) for line in text.splitlines() if line.strip()]


class NoteSignature(NamedTuple):
    """One line below a note."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """The line, with its end."""
        encoded = base64.b64encode(self.key_id + self.signature).decode()
        return f"{_DASH}{self.name} {encoded}\n"

    def is_of(self, key: NoteKey) -> bool:
        """Return whether the line says that it is of this key."""
        return (self.name, self.key_id) == (key.name, key.key_id)


class Note(NamedTuple):
    """A text and what is below it; nothing is verified."""

    text: str
    signatures: tuple[NoteSignature, ...]

    @property
    def encoded(self) -> str:
        """The note as one string."""
        return self.text + "\n" + "".join(signature.line for signature in self.signatures)


def signature_of(key: NoteKey, signature: bytes) -> NoteSignature:
    """Return the line of a key's signature."""
    return NoteSignature(key.name, key.key_id, signature)


def parse_note(note: str) -> Note:
    """Return the parts of a note.

    Raises:
        Tampered: It has another form, or is written in another way than the one that there is.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise Tampered(f"The note has over {MAX_NOTE_BYTES} characters.")
    text, separator, below = note.rpartition("\n\n")
    if not separator:
        raise Tampered("The note has no signature.")
    parsed = Note(text + "\n", parse_signatures(below))
    if parsed.encoded != note:
        raise Tampered("The note is not in its canonical form.")
    return parsed


def parse_signatures(lines: str) -> tuple[NoteSignature, ...]:
    """Return the signatures in lines; raise `Tampered` for anything else."""
    rows = lines.split("\n")
    if rows.pop() or not 0 < len(rows) <= MAX_SIGNATURES:
        raise Tampered(f"The note has not between 1 and {MAX_SIGNATURES} signatures.")
    return tuple(map(_signature, rows))


def _signature(row: str) -> NoteSignature:
    name, _, encoded = row.removeprefix(_DASH).partition(" ")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Tampered("A signature of the note is not base64.") from error
    if not row.startswith(_DASH) or not _NAME.fullmatch(name) or len(blob) <= _ID_BYTES:
        raise Tampered("A signature of the note has the wrong form.")
    return NoteSignature(name, blob[:_ID_BYTES], blob[_ID_BYTES:])
