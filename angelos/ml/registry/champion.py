"""The champion of the role `sentinel`, for the process that scores patches."""

from __future__ import annotations

import msgspec

from angelos.core.errors import InvalidInput
from angelos.core.models import ArtefactKind, parse_model
from angelos.ml.registry.artefacts import ArtefactStore
from angelos.ml.registry.store import RegistryStore
from angelos.ml.scoring import SentinelVersion

_ROLE = "sentinel"


class _HeldOut(msgspec.Struct, frozen=True):
    """What is read of the evidence of a version: texts that it did not learn from."""

    heldout: tuple[str, ...] = ()
    base_text: tuple[str, ...] = ()


class ChampionSource:
    """A `SentinelSource` on the registry: what people have approved, and nothing else."""

    def __init__(self, store: RegistryStore, artefacts: ArtefactStore) -> None:
        self._store = store
        self._artefacts = artefacts

    async def current(self) -> str:
        """Return the champion as `sentinel:3`, empty if there is none."""
        champion = (await self._store.aliases(_ROLE)).champion
        return f"{_ROLE}:{champion}" if champion else ""

    async def read(self, name: str) -> SentinelVersion:
        """Return a version with its base and the texts that judged it.

        Raises:
            NotFound: It, or an artefact, is not there.
            Tampered: An artefact is not what was stored.
            InvalidInput: The texts cannot be read.
        """
        version, evidence = await self._store.version(_ROLE, parse_model(name)[1] or 0)
        body, adapter = await self._artefacts.get(version.sha256), None
        if version.kind is ArtefactKind.adapter:
            body, adapter = await self._artefacts.get(version.provenance.base), body
        try:
            texts = msgspec.json.decode(await self._artefacts.get(evidence), type=_HeldOut)
        except msgspec.MsgspecError as error:
            raise InvalidInput("the texts that judged it cannot be read") from error
        return SentinelVersion(name, body, adapter, (*texts.heldout, *texts.base_text))
