"""Builds the registry of role models on the planes that it needs."""

from __future__ import annotations

from pathlib import Path

from angelos.adapters.stores.postgres import Database
from angelos.control.service import Control
from angelos.control.state.hands import same_hands
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Permission
from angelos.core.policy.access import permissions_of
from angelos.core.ports import Clock, Journal
from angelos.ml.registry.artefacts import ArtefactStore
from angelos.ml.registry.service import Hands, ModelRegistry
from angelos.ml.registry.store import RegistryStore


def make_registry(
    database: Database, journal: Journal, clock: Clock, folder: Path, control: Control
) -> ModelRegistry:
    """Return the registry of a system.

    Args:
        database: Migrated.
        journal: Where its facts go.
        clock: Of its facts.
        folder: Where its artefacts are.
        control: Which knows people and policy.
    """

    def one_person(one: PrincipalId, other: PrincipalId) -> bool:
        return same_hands(control.projection.state.makers, one, other)

    async def alone(person: PrincipalId) -> bool:
        people = await control.people.list()
        reviewers = [p.id for p in people if Permission.models_review in permissions_of(p.role)]
        return reviewers == [person]

    return ModelRegistry(
        RegistryStore(database, journal),
        ArtefactStore(folder),
        clock,
        control.policy,
        Hands(one_person, alone),
    )
