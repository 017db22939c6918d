"""The server's end of the signer: starts it, asks it, starts it again when it has ended.

async with SignerProcess(origin, keys=data.keys / "signer") as signer:
note = await signer.sign(checkpoint, proof)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from angelos.core.errors import Tampered, Unavailable
from angelos.governance.log.checkpoint import Checkpoint, KeyEpoch, LogKeys
from angelos.governance.log.notes import NoteKey
from angelos.governance.signer.process import MAX_FRAME, SignAnswer, SignerKeys, SignerOrder
from angelos.governance.signer.state import SignRefusal, SignRequest, refusal

SIGNER_UID = 60_601  # beside the stores' own, in a range that systemd's UIDS document lists as free
ANSWER_S = 20.0
END_S = 5.0
_PROGRAM = "angelos.governance.signer.process"
_LENGTH = 4
_REPAIR = "Run `angelos audit verify`; restore the database from a backup."
A = TypeVar("A", bound=msgspec.Struct)


class LocalSigner:
    """A signer in this process, for tests and tools: whoever holds it could read its keys."""

    lasting = True

    def __init__(self, keys: LogKeys, origin: str, at: int = 1_700_000_000) -> None:
        self.epoch = keys.epoch
        self._keys = keys
        self._origin = origin
        self._at = at
        self._last: Checkpoint | None = None

    async def sign(self, checkpoint: Checkpoint, proof: Sequence[bytes]) -> str:
        """Return the signed note of a tree that continues the last one."""
        refused = refusal(self._origin, self._last, checkpoint, proof)
        if refused is not None:
            raise _refused(refused, checkpoint)
        self._last = checkpoint
        return self._keys.sign(checkpoint, self._at)


class SignerProcess:
    """The signer as a child process; enter it to start it.

    Args:
        origin: The log's name.
        keys: A folder for its keys, used when this process is root: then they last.
    """

    def __init__(self, origin: str, keys: Path | None) -> None:
        self._origin = origin
        self._folder = keys if keys is not None and os.geteuid() == 0 else None
        self._child: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._turn = asyncio.Lock()
        self.epoch: KeyEpoch = ()
        self.lasting = False

    async def __aenter__(self) -> Self:
        """Start the process; raise `Unavailable` if it does not answer."""
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the process, and with it keys that were only in its memory."""
        await self._end()

    @property
    def pid(self) -> int:
        """Its process id; 0 when it has ended."""
        return self._child.pid if self._child is not None else 0

    async def sign(self, checkpoint: Checkpoint, proof: Sequence[bytes]) -> str:
        """Return the signed note of a tree that continues the last one.

        Raises:
            Tampered: It does not.
            Unavailable: The signer has ended; the next call starts it again.
        """
        request = SignRequest(checkpoint.origin, checkpoint.size, checkpoint.root, tuple(proof))
        async with self._turn:
            if self._child is None:
                await self._start()
            try:
                async with asyncio.timeout(ANSWER_S):
                    answer = await self._ask(request, SignAnswer)
            except BaseException as error:
                await self._end()  # an answer that comes late must not be taken for the next one
                if isinstance(error, OSError | TimeoutError | asyncio.IncompleteReadError):
                    raise Unavailable("The signer of the audit log does not answer.") from error
                raise
        if answer.refused:
            raise _refused(SignRefusal(answer.refused), checkpoint)
        return answer.note

    async def _start(self) -> None:
        ours, others = socket.socketpair()
        argv = [sys.executable, "-I", "-m", _PROGRAM, str(others.fileno())]
        if self._folder is not None:
            argv += [str(self._folder), str(SIGNER_UID)]
        with others:
            self._child = await asyncio.create_subprocess_exec(
                *argv, pass_fds=[others.fileno()], stdin=asyncio.subprocess.DEVNULL,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, start_new_session=True,
            )  # fmt: skip
        try:
            self._reader, self._writer = await asyncio.open_connection(sock=ours)
            async with asyncio.timeout(ANSWER_S):
                keys = await self._ask(SignerOrder(self._origin), SignerKeys)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            await self._end()
            raise Unavailable("The signer of the audit log does not start.") from error
        self.epoch = tuple(map(NoteKey.parse, keys.vkeys))
        self.lasting = keys.kept

    async def _ask(self, request: msgspec.Struct, answer: type[A]) -> A:
        if self._reader is None or self._writer is None:
            raise Unavailable("The signer of the audit log has ended.")
        body = msgspec.msgpack.encode(request)
        self._writer.write(len(body).to_bytes(_LENGTH, "big") + body)
        await self._writer.drain()
        length = int.from_bytes(await self._reader.readexactly(_LENGTH), "big")
        if length > MAX_FRAME:
            raise OSError("the signer's answer is too long")
        return msgspec.msgpack.decode(await self._reader.readexactly(length), type=answer)

    async def _end(self) -> None:
        child, writer = self._child, self._writer
        self._child = self._reader = self._writer = None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if child is not None:
            try:
                async with asyncio.timeout(END_S):  # it ends when its socket is closed
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()


def _refused(refused: SignRefusal, checkpoint: Checkpoint) -> Tampered:
    return Tampered(
        f"The signer refuses the tree of {checkpoint.size} entries ({refused.value}): the log that "
        "it signed before is not a prefix of it.",
        hint=_REPAIR,
    )
