"""The registry in a real PostgreSQL: versions, aliases, promotions, and who may move what."""

from __future__ import annotations

import asyncio
import hashlib

import msgspec
import pytest

from angelos.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Refused, Tampered
from angelos.core.facts import Kind
from angelos.core.ids import START, PrincipalId, TaskId
from angelos.core.models import (
    Alias,
    ApprovePromotion,
    ArtefactKind,
    GateVerdict,
    ModelProvenance,
    ModelVersion,
    ProposePromotion,
    RejectPromotion,
    RollbackModel,
    ShadowReport,
)
from angelos.core.permissions import Principal, Role
from angelos.core.policy.access import policy_in_force
from angelos.ml.gates import Gate
from angelos.ml.registry.artefacts import ArtefactStore
from angelos.ml.registry.service import Hands, ModelRegistry
from angelos.ml.registry.state import TrainingRun
from angelos.ml.registry.store import RegistryStore
from angelos.testing import ManualClock

ADA = Principal(id=PrincipalId("agent/ada"), role=Role.agent)
ROSA = Principal(id=PrincipalId("person/rosa"), role=Role.researcher)
RITA = Principal(id=PrincipalId("person/rita"), role=Role.reviewer)
OLGA = Principal(id=PrincipalId("person/olga"), role=Role.operator)
KERNEL = msgspec.structs.replace(OLGA, kernel=True)
GATES = tuple(GateVerdict(gate=gate, passed=True, measured=1.0, limit=1.0) for gate in Gate)
PROVENANCE = ModelProvenance(data="repo study", data_sha256="0" * 64, by=ROSA.id)
TASK = TaskId("task-" + "0" * 32)
GOOD = ShadowReport(inputs=8, answered=8, differing=1, tolerance=1.0, largest=2.0)


class Trial:
    """A labs node that takes every canary."""

    def __init__(self) -> None:
        self.versions: list[int] = []

    async def __call__(self, caller, version, aliases):
        self.versions.append(version.version)
        return TASK


@pytest.fixture
def trial():
    return Trial()


@pytest.fixture
def alone():
    return []


@pytest.fixture
def registry(database, journal, tmp_path, alone):
    async def works_alone(person):
        return person in alone

    hands = Hands(lambda one, other: one == other, works_alone)
    store = RegistryStore(database, journal)
    clock = ManualClock(1_000_000.0)
    artefacts = ArtefactStore(tmp_path)
    return ModelRegistry(store, artefacts, clock, policy_in_force(), hands)


async def registered(registry, body: bytes = b"weights", gates=GATES, by=ROSA.id):
    sha256 = await registry.artefacts.put(body)
    provenance = msgspec.structs.replace(PROVENANCE, by=by)
    run = TrainingRun(
        id="mrun-" + hashlib.sha256(body).hexdigest()[:32],
        role="sentinel",
        kind=ArtefactKind.base,
        by=by,
        at=1.0,
        state="judging",
        provenance=provenance,
    )

    def make(number):
        return ModelVersion(
            role="sentinel",
            version=number,
            kind=ArtefactKind.base,
            sha256=sha256,
            size=len(body),
            parameters=7,
            at=1.0,
            provenance=provenance,
            gates=gates,
        )

    return await registry.register(run, make, "0" * 64)


async def promoted(registry, trial, version, report=GOOD):
    promotion = await registry.propose(ROSA, "sentinel", ProposePromotion(version=version.version))
    body = ApprovePromotion(digest=version.digest)
    await registry.approve(RITA, promotion.id, body, trial)
    return await registry.tried(promotion.id, report)


async def test_from_a_version_to_champion_and_back_every_step_is_a_fact(registry, trial, journal):
    first = await registered(registry, b"one")
    assert (await registry.get("sentinel")).aliases == (Alias.challenger,)
    assert (await promoted(registry, trial, first)).state == "promoted"
    second = await registered(registry, b"two")
    promotion = await registry.propose(ADA, "sentinel", ProposePromotion(version=2))
    assert await registry.propose(ROSA, "sentinel", ProposePromotion(version=2)) == promotion
    await registry.approve(RITA, promotion.id, ApprovePromotion(digest=second.digest), trial)
    assert (await registry.get("sentinel", 2)).aliases == (Alias.canary, Alias.challenger)
    assert (await registry.champion("sentinel")) == (first, b"one")
    await registry.tried(promotion.id, GOOD)
    assert (await registry.champion("sentinel")) == (second, b"two")
    view = await registry.rollback(OLGA, "sentinel", RollbackModel(reason="too many alarms"))
    assert (view.version, view.aliases) == (first, (Alias.champion,))
    facts = [f for f in await journal.read(START) if f.kind.startswith("model.")]
    moves = [(f.kind.removeprefix("model."), f.subject[-1], f.actor) for f in facts]
    assert moves == [
        ("registered", "1", "system/models"), ("proposed", "1", ROSA.id),
        ("approved", "1", RITA.id), ("tried", "1", "system/models"),
        ("promoted", "1", "system/models"), ("registered", "2", "system/models"),
        ("proposed", "2", ADA.id), ("approved", "2", RITA.id), ("tried", "2", "system/models"),
        ("promoted", "2", "system/models"), ("rolled-back", "1", OLGA.id),
    ]  # fmt: skip
    assert facts[2].payload().digest == first.digest
    with pytest.raises(Conflict, match="no champion before"):
        await registry.rollback(OLGA, "sentinel", RollbackModel())


@pytest.mark.parametrize(
    ("who", "error"), [(ADA, Forbidden), (KERNEL, Forbidden), (ROSA, Forbidden), (OLGA, None)]
)
async def test_a_person_who_reviews_approves_and_nobody_else(registry, trial, who, error):
    version = await registered(registry)
    promotion = await registry.propose(ADA, "sentinel", ProposePromotion(version=1))
    body = ApprovePromotion(digest=version.digest)
    if error is None:
        assert (await registry.approve(who, promotion.id, body, trial)).state == "canary"
        return
    with pytest.raises(error):
        await registry.approve(who, promotion.id, body, trial)
    with pytest.raises(Forbidden):
        await registry.reject(who, promotion.id, RejectPromotion())
    with pytest.raises(Forbidden):
        await registry.rollback(who, "sentinel", RollbackModel())
    assert trial.versions == []
    assert (await registry.promotion(promotion.id)).state == "waiting"


async def test_ones_own_is_approved_only_by_who_reviews_alone(registry, trial, alone):
    version = await registered(registry, by=RITA.id)  # she trained it, another proposes it
    promotion = await registry.propose(ROSA, "sentinel", ProposePromotion(version=1))
    body = ApprovePromotion(digest=version.digest)
    with pytest.raises(Forbidden) as refused:
        await registry.approve(RITA, promotion.id, body, trial)
    assert refused.value.extra["rules"] == ["model.not-ones-own"]
    alone.append(RITA.id)
    assert (await registry.approve(RITA, promotion.id, body, trial)).state == "canary"


async def test_an_approval_counts_for_what_its_digest_names_and_once(registry, trial):
    first, second = await registered(registry, b"one"), await registered(registry, b"two")
    promotion = await registry.propose(ROSA, "sentinel", ProposePromotion(version=1))
    with pytest.raises(Conflict, match="is proposed already"):
        await registry.propose(ROSA, "sentinel", ProposePromotion(version=2))
    for digest in (second.digest, first.sha256, "0" * 64):
        with pytest.raises(Conflict, match="digest"):
            await registry.approve(RITA, promotion.id, ApprovePromotion(digest=digest), trial)
    body = ApprovePromotion(digest=first.digest)
    answers = await asyncio.gather(
        *(registry.approve(who, promotion.id, body, trial) for who in (RITA, OLGA)),
        return_exceptions=True,
    )
    assert sorted(type(a).__name__ for a in answers) == ["Conflict", "PromotionView"]
    with pytest.raises(Conflict):
        await registry.reject(RITA, promotion.id, RejectPromotion())


async def test_what_changed_after_its_approval_is_no_champion(registry, trial, tmp_path, database):
    first, second = await registered(registry, b"one"), await registered(registry, b"two")
    await promoted(registry, trial, first)
    promotion = await registry.propose(ROSA, "sentinel", ProposePromotion(version=2))
    body = ApprovePromotion(digest=second.digest)
    await registry.approve(RITA, promotion.id, body, trial)
    (path,) = tmp_path.glob(f"*/{second.sha256}")
    path.write_bytes(b"tw0")
    assert "is not what was stored" in (await registry.tried(promotion.id, GOOD)).reason
    path.write_bytes(b"two")
    promotion = await registry.propose(ROSA, "sentinel", ProposePromotion(version=2))
    await registry.approve(RITA, promotion.id, body, trial)
    other = msgspec.json.encode(msgspec.structs.replace(second, sha256=first.sha256))
    async with database.transaction() as connection:
        await connection.execute("update model_version set body = %s where version = 2", (other,))
    assert "not what was approved" in (await registry.tried(promotion.id, GOOD)).reason
    aliases = await registry.store.aliases("sentinel")
    assert (aliases.champion, aliases.canary, aliases.earlier) == (1, None, ())


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (None, "no answers"),
        (msgspec.structs.replace(GOOD, inputs=3, answered=3), "asked 3 times"),
        (msgspec.structs.replace(GOOD, answered=7), "answered 7 of 8"),
        (msgspec.structs.replace(GOOD, largest=None), "answered 8 of 8"),
        (msgspec.structs.replace(GOOD, differing=3, beside=1), "differs"),
    ],
)
async def test_a_canary_that_does_not_answer_well_changes_no_champion(
    registry, trial, report, reason
):
    first = await registered(registry, b"one")
    await promoted(registry, trial, first)
    second = await registered(registry, b"two")
    promotion = await promoted(registry, trial, second, report)
    assert promotion.state == "failed"
    assert reason in promotion.reason
    aliases = await registry.store.aliases("sentinel")
    assert (aliases.champion, aliases.canary, aliases.earlier) == (1, None, ())
    assert (await registry.tried(promotion.id, GOOD)).state == "failed"
    assert (await promoted(registry, trial, second)).state == "promoted"  # it may be tried again


async def test_without_a_labs_node_nothing_is_counted(registry):
    version = await registered(registry)
    promotion = await registry.propose(ROSA, "sentinel", ProposePromotion(version=1))

    async def nowhere(*_):
        raise NotFound

    with pytest.raises(NotFound):
        await registry.approve(RITA, promotion.id, ApprovePromotion(digest=version.digest), nowhere)
    assert (await registry.promotion(promotion.id)).state == "waiting"


@pytest.mark.parametrize(
    "gates",
    [(), GATES[1:], (*GATES[1:], msgspec.structs.replace(GATES[0], passed=False))],
    ids=["none", "one is missing", "one stops it"],
)
async def test_what_a_gate_stops_or_was_not_asked_of_is_no_version(registry, gates):
    with pytest.raises(Refused) as refused:
        await registered(registry, gates=gates)
    assert GATES[0].gate in refused.value.extra["gates"]
    with pytest.raises(NotFound):
        await registry.get("sentinel")


async def test_a_damaged_artefact_is_never_used(registry, trial, tmp_path):
    first, second = await registered(registry, b"one"), await registered(registry, b"two")
    await promoted(registry, trial, first)
    (path,) = tmp_path.glob(f"*/{second.sha256}")
    path.write_bytes(b"tw0")
    with pytest.raises(Tampered):
        await promoted(registry, trial, second)
    assert (await registry.champion("sentinel")) == (first, b"one")
    assert await registry.artefacts.put(b"two") == second.sha256  # and can be mended
    assert await registry.artefacts.get(second.sha256) == b"two"
    for name in ("../" + "0" * 61, "0" * 63, "0" * 64 + "\n"):
        with pytest.raises(InvalidInput):
            await registry.artefacts.get(name)


async def test_facts_that_a_crash_kept_back_come_with_the_next_start(registry, journal):
    class Away:
        async def append(self, facts):
            raise ConnectionError

    away = RegistryStore(registry.store._database, Away())
    broken = ModelRegistry(
        away, registry.artefacts, registry._clock, registry._policy, registry._hands
    )
    with pytest.raises(ConnectionError):
        await registered(broken)
    assert (await registry.get("sentinel", 1)).version.version == 1
    assert await journal.read(START, kinds={Kind.model_registered}) == []
    await registry.store.flush()
    await registry.store.flush()
    assert len(await journal.read(START, kinds={Kind.model_registered})) == 1
