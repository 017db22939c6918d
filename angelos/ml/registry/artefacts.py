"""Artefacts in the data directory, each named by the SHA-256 of its content.

artefacts = ArtefactStore(data.models)
sha256 = await artefacts.put(body)
body = await artefacts.get(sha256)     # raises Tampered unless it is what the name says
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path

from angelos.adapters.host.datadir import write_private
from angelos.core.errors import InvalidInput, NotFound, Tampered, TooLarge

MAX_BYTES = 16_000_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ArtefactStore:
    """Contents below a folder; one that is there is never written again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, body: bytes) -> str:
        """Keep a content durably and return its SHA-256."""
        if len(body) > MAX_BYTES:
            raise TooLarge(f"An artefact has at most {MAX_BYTES} bytes, not {len(body)}.")
        return await asyncio.to_thread(self._put, body)

    async def get(self, sha256: str) -> bytes:
        """Return a content.

        Raises:
            NotFound: It is not kept.
            Tampered: What is there is something else.
        """
        return await asyncio.to_thread(self._get, sha256)

    def _put(self, body: bytes) -> str:
        sha256 = hashlib.sha256(body).hexdigest()
        path = self._path(sha256)
        try:
            if self._get(sha256) == body:
                return sha256
        except (NotFound, Tampered):
            pass  # what is damaged is replaced by what it should be
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, body)
        return sha256

    def _get(self, sha256: str) -> bytes:
        path = self._path(sha256)
        try:
            with path.open("rb") as file:
                body = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise NotFound(f"The artefact {sha256[:12]} is not in {self._folder}.") from error
        if hashlib.sha256(body).hexdigest() != sha256:
            raise Tampered(
                f"The artefact {sha256[:12]} is not what was stored; it was not used.",
                hint=f"Take {path.name} from a backup, or roll back to another version.",
            )
        return body

    def _path(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise InvalidInput(f"{sha256[:80]!r} is no SHA-256.")
        return self._folder / sha256[:2] / sha256
