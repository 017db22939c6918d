"""The log's end of its witnesses: asks each for a cosignature of every checkpoint.

A witness that does not answer holds nothing up: it is asked again with the next checkpoint.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from angelos.core.errors import AngelError, InvalidInput, Tampered
from angelos.governance.log.checkpoint import Checkpoint, cosigned, cosigners
from angelos.governance.log.models import Signed
from angelos.governance.log.notes import NoteKey, NoteSignature, parse_signatures
from angelos.governance.log.store import AuditStore
from angelos.governance.witness.state import WitnessRequest, WitnessStatus

log = logging.getLogger(__name__)
ANSWER_S = 5.0
_MAX_ANSWER_BYTES = 64 * 1024


class WitnessAddress(NamedTuple):
    """Where a witness is, and the key by which its answer is known."""

    url: str
    key: NoteKey


def parse_witnesses(text: str) -> list[WitnessAddress]:
    """Return the witnesses in a file: a line of URL and verifier key for each.

    Raises:
        InvalidInput: A line has another form.
    """
    addresses = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        url, _, vkey = line.strip().partition(" ")
        if not url.startswith(("http://", "https://")):
            raise InvalidInput(f"{url[:80]!r} is not the URL of a witness.")
        addresses.append(WitnessAddress(url.rstrip("/"), NoteKey.parse(vkey)))
    return addresses


class WitnessClient:
    """Asks witnesses for cosignatures.

    Args:
        addresses: The witnesses.
    """

    def __init__(self, addresses: Sequence[WitnessAddress]) -> None:
        self._addresses = list(addresses)
        self._sizes: dict[str, int] = {}
        self._silent: set[str] = set()

    async def cosign(self, signed: Signed, store: AuditStore) -> str:
        """Return the note with every cosignature that came, or an empty text if none did."""
        answers = await asyncio.gather(
            *(self._ask(address, signed, store) for address in self._addresses)
        )
        signatures = [signature for answer in answers for signature in answer]
        return cosigned(signed.note, signatures) if signatures else ""

    async def _ask(
        self, address: WitnessAddress, signed: Signed, store: AuditStore
    ) -> list[NoteSignature]:
        http = SimpleAsyncHTTPClient(force_instance=True, max_body_size=_MAX_ANSWER_BYTES)
        try:
            async with asyncio.timeout(ANSWER_S):
                signatures = await self._exchange(http, address, signed, store)
        except (AngelError, OSError, HTTPClientError, TimeoutError) as error:
            if address.url not in self._silent:
                log.warning("the witness %s has not cosigned: %s", address.url, error or "no time")
            self._silent.add(address.url)
            return []
        finally:
            http.close()
        self._silent.discard(address.url)
        return signatures

    async def _exchange(
        self, http: AsyncHTTPClient, address: WitnessAddress, signed: Signed, store: AuditStore
    ) -> list[NoteSignature]:
        tree = signed.checkpoint
        for _ in range(2):  # the second time with the size that it remembers
            old = self._sizes.get(address.url, 0)
            if old > tree.size:
                raise Tampered(f"the witness has cosigned {old} entries, the log has {tree.size}")
            status, text = await self._post(http, address, old, signed, store)
            if status == WitnessStatus.cosigned:
                self._sizes[address.url] = tree.size
                return _own(address.key, tree, signed.note, text)
            if status != WitnessStatus.conflict or not text.strip().isdigit():
                raise Tampered(f"it answers {status}")
            if int(text) == old:
                raise Tampered(f"it has cosigned another tree of {old} entries")
            self._sizes[address.url] = int(text)
        raise Tampered("it cosigns for somebody else meanwhile")

    async def _post(
        self,
        http: AsyncHTTPClient,
        address: WitnessAddress,
        old: int,
        signed: Signed,
        store: AuditStore,
    ) -> tuple[int, str]:
        proof = await store.consistency(old, signed.checkpoint)
        body = WitnessRequest(old, tuple(proof), signed.note).encoded
        request = HTTPRequest(f"{address.url}/add-checkpoint", method="POST", body=body)
        answer = await http.fetch(request, raise_error=False)
        if answer.error is not None and not isinstance(answer.error, HTTPClientError):
            raise OSError(str(answer.error))
        return answer.code, answer.body.decode(errors="replace")


def _own(key: NoteKey, tree: Checkpoint, note: str, text: str) -> list[NoteSignature]:
    """Return the signatures of an answer that are this witness's and good."""
    signatures = [s for s in parse_signatures(text) if s.is_of(key)]
    if cosigners(cosigned(note, signatures), [key]) != [key]:
        raise Tampered(f"its signature of {tree.size} entries is wrong")
    return signatures
