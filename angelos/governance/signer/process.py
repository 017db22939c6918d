r"""The signer's process: `python -m angelos.governance.signer.process FD [KEYS UID]`.

It speaks over the socket FD: frames of 4 bytes length and MessagePack, one answer each. Its first
frame names the log. With KEYS, a folder, its keys and the last tree that it signed are kept there
and belong to UID, as whom it goes on; without, they live and die with it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import secrets
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from angelos.core.errors import Tampered
from angelos.governance.log.checkpoint import (
    SEED_BYTES,
    Checkpoint,
    LogKeys,
    open_checkpoint,
)
from angelos.governance.log.merkle import EMPTY_ROOT
from angelos.governance.signer.state import SignRequest, refusal

MAX_FRAME = 1 << 20
_LENGTH = 4
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


class SignerOrder(msgspec.Struct, frozen=True):
    """The first frame: which log is signed."""

    origin: str


class SignerKeys(msgspec.Struct, frozen=True):
    """The answer to `SignerOrder`: the signer's verifier keys, and how they are kept."""

    vkeys: tuple[str, ...]
    kept: bool


class SignAnswer(msgspec.Struct, frozen=True):
    """The answer to a request: a note, or why there is none."""

    note: str = ""
    refused: str = ""


class Folder:
    """Where a signer's keys and its last note are kept; opened by root, used by its owner.

    Args:
        path: Made if it is not there.
        uid: Whose it is.
    """

    def __init__(self, path: Path, uid: int) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(path, uid, uid)
        self._uid = uid
        # Folders above it are closed to `uid`; one that is open already is not.
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, None if there is none; end if others may read it."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            if os.fstat(fd).st_mode & 0o077:
                sys.exit(f"other users may read {name}")
            return file.read(MAX_FRAME)

    def write(self, name: str, content: bytes) -> None:
        """Replace a file, durably."""
        fresh = f".{name}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        fd = os.open(fresh, flags, 0o600, dir_fd=self._fd)
        with os.fdopen(fd, "wb") as file:
            os.fchown(fd, self._uid, self._uid)
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.rename(fresh, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        os.fsync(self._fd)


def main() -> None:
    """Serve the socket that the arguments name until it is closed."""
    number, *place = sys.argv[1:]
    channel = socket.socket(fileno=int(number))
    _forbid_looks()
    folder, uid = (Folder(Path(place[0]), int(place[1])), int(place[1])) if place else (None, 0)
    hello = msgspec.msgpack.decode(_receive(channel), type=SignerOrder)
    seeds = _seeds(folder)
    _warm_up()
    _close_doors(uid)
    keys = LogKeys(hello.origin, *seeds)
    _send(channel, SignerKeys(tuple(key.vkey for key in keys.epoch), folder is not None))
    serve(channel, keys, hello.origin, folder)


def serve(channel: socket.socket, keys: LogKeys, origin: str, folder: Folder | None) -> None:
    """Answer requests until the other end closes.

    Args:
        channel: The socket.
        keys: The log's.
        origin: The log's name.
        folder: Where the last note is kept, if anywhere.
    """
    memory = "last-" + origin.replace("/", "-")
    last = _remembered(folder, memory, keys)
    while body := _receive(channel):
        request = msgspec.msgpack.decode(body, type=SignRequest)
        refused = refusal(origin, last, request.checkpoint, request.proof)
        if refused is not None:
            _send(channel, SignAnswer(refused=refused.value))
            continue
        note = keys.sign(request.checkpoint, int(time.time()))
        if folder is not None:
            folder.write(memory, note.encode())  # before anybody has the signature
        last = request.checkpoint
        _send(channel, SignAnswer(note=note))


def _seeds(folder: Folder | None) -> tuple[bytes, bytes]:
    """Return the keys' seeds: those of the folder, made on the first call, or fresh ones."""
    seeds = (folder.read("seeds") if folder else None) or secrets.token_bytes(2 * SEED_BYTES)
    if len(seeds) != 2 * SEED_BYTES:
        sys.exit("the file of the log's seeds has another size")
    if folder is not None:
        folder.write("seeds", seeds)
    return seeds[:SEED_BYTES], seeds[SEED_BYTES:]


def _warm_up() -> None:
    """Load what is imported on first use, while its files can still be read."""
    keys = LogKeys("angelos/warm-up", *(secrets.token_bytes(SEED_BYTES) for _ in range(2)))
    open_checkpoint(keys.sign(Checkpoint("angelos/warm-up", 0, EMPTY_ROOT), 0), [keys.epoch])


def _close_doors(uid: int) -> None:
    """Become `uid`, and nobody's prey: no core dumps, no ptrace, no /proc/PID/mem."""
    os.umask(0o077)
    os.chdir("/")
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _forbid_looks()  # a change of user has set it back


def _forbid_looks() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((_PR_SET_DUMPABLE, 0), (_PR_SET_PDEATHSIG, int(signal.SIGKILL))):
        if libc.prctl(*call, 0, 0, 0):
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() == 1:
        sys.exit("the parent has ended")


def _remembered(folder: Folder | None, name: str, keys: LogKeys) -> Checkpoint | None:
    note = folder.read(name) if folder else None
    if note is None:
        return None
    try:
        return open_checkpoint(note.decode(), [keys.epoch])
    except (Tampered, ValueError) as error:
        sys.exit(f"the last checkpoint that was signed cannot be read: {error}")


def _receive(channel: socket.socket) -> bytes:
    """Return the next frame; nothing when the other end has closed."""
    header = _exactly(channel, _LENGTH)
    length = int.from_bytes(header, "big")
    if not header or length > MAX_FRAME:
        return b""
    return _exactly(channel, length)


def _exactly(channel: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = channel.recv(count - len(parts))
        if not part:
            return b""
        parts += part
    return bytes(parts)


def _send(channel: socket.socket, answer: msgspec.Struct) -> None:
    body = msgspec.msgpack.encode(answer)
    channel.sendall(len(body).to_bytes(_LENGTH, "big") + body)


if __name__ == "__main__":
    main()
