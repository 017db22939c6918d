"""Training runs: from data to a version, or to the gates that stopped it.

    data      gates of the data            a refusal here starts nothing
    task      trains in a box              it has no text that judges it
    artefact  gates of the model           measured here, from the safetensors alone
    version   challenger

A run is in the database at each step, so that a restarted server goes on with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from angelos.core.errors import AngelError, Busy, InvalidInput, NotFound, TooLarge, Unavailable
from angelos.core.facts import Fact, ModelRefused, ModelTraining
from angelos.core.ids import PrincipalId, Revision, uuid7
from angelos.core.messages import Status
from angelos.core.models import (
    MAX_SET_CHARACTERS,
    ArtefactKind,
    EvaluateModel,
    ModelEvaluation,
    ModelProvenance,
    ModelVersion,
    NamedData,
    RunView,
    StartTraining,
    StepSettings,
)
from angelos.core.permissions import Principal
from angelos.core.ports import Clock
from angelos.ml.cards import hash_values
from angelos.ml.gates import (
    CANARIES,
    Evidence,
    GateConfig,
    SplitText,
    check_data,
    check_model,
    check_size,
    new_canary,
    plant,
    split_text,
)
from angelos.ml.registry.boxed import ARTEFACT, BASE, PLAN, TEXT, TrainingPlan
from angelos.ml.registry.judging import JudgeCase, JudgeProcess, JudgeReport
from angelos.ml.registry.ports import ApprovedHistory, BoxedEnd, BoxedProgram, BoxedTasks
from angelos.ml.registry.programs import ARGV, program_files, program_sha256
from angelos.ml.registry.roles import TRAINABLE, TrainableRole
from angelos.ml.registry.service import ME, ModelRegistry
from angelos.ml.registry.state import TrainingRun, stopping, verdicts

log = logging.getLogger(__name__)
MAX_OPEN, MAX_OWN = 8, 3
"""Runs that are open at once: of all, and of one principal."""
_WAIT_S = 30.0
_RETRY_S = 5.0
_BASE_BYTES = 8_000_000
_COUNTED = 1_000_000
"""Characters of the text whose frequencies are the simple model."""
_HELD_OUT = 200
"""Chunks that judge; of more, these are spread over all."""


class _Corpus(NamedTuple):
    """Data before it is split."""

    name: str
    files: tuple[tuple[str, str], ...]
    repo: str = ""
    revision: Revision | None = None


class Tuner:
    """Starts training runs and sees them to their end."""

    def __init__(
        self,
        registry: ModelRegistry,
        tasks: BoxedTasks,
        history: ApprovedHistory,
        judge: JudgeProcess,
        clock: Clock,
        gates: GateConfig | None = None,
    ) -> None:
        self._registry = registry
        self._store = registry.store
        self._tasks = tasks
        self._history = history
        self._judge = judge
        self._clock = clock
        self._gates = gates or GateConfig()
        self._group: asyncio.TaskGroup | None = None
        self._followed: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def running(self, group: asyncio.TaskGroup) -> AsyncIterator[Tuner]:
        """Go on with open runs, and follow new ones, in a group whose owner ends them."""
        self._group = group
        for run in await self._store.open_runs():
            self._follow(run)
        try:
            yield self
        finally:
            self._group = None
            for task in tuple(self._followed):
                task.cancel()

    # -- for the API -------------------------------------------------------------------------

    async def start(
        self, caller: Principal, role: str, body: StartTraining, trace: str = ""
    ) -> RunView:
        """Ask the gates of the data, and let a task train.

        Raises:
            Forbidden: The policy does not let them train on this, or run it.
            InvalidInput: The role is none that learns, or the data has the wrong form.
            NotFound: There is no such repository or revision, or no base to adapt.
            Busy: Too many runs are open, of all or of the caller.
            Unavailable: No node can run it.
        """
        trained = _role(role)
        self._registry.allow_training(caller, approved=body.data is None)
        await self._check_room(caller.id)
        corpus = await self._corpus(body.repo, body.revision, body.data)
        base, base_text = await self._base(role, body.kind)
        text = await asyncio.to_thread(split_text, corpus.files)
        results = await asyncio.to_thread(check_data, corpus.files, text, self._gates)
        now = self._clock.time()
        run = TrainingRun(
            id=f"mrun-{uuid7(int(now * 1000))}",
            role=role,
            kind=body.kind,
            by=caller.id,
            at=now,
            state="training",
            base=base,
            gates=verdicts(results),
            provenance=_provenance(caller.id, corpus, text, base, body.settings),
        )
        if not all(result.passed for result in results):
            return (await self._refuse(run, trace=trace)).view()
        run = await self._train(caller, run, text, trained, base_text, body.settings)
        try:
            await self._store.put_run(run, self._fact(_started(run), run, caller.id, trace=trace))
        finally:
            self._follow(run)  # it may be kept though the journal does not have its fact yet
        return run.view()

    async def view(self, run: str, wait_s: float = 0.0) -> RunView:
        """Return a run; with `wait_s`, wait up to that many seconds for its end."""
        current = await self._store.run(run)
        try:
            async with asyncio.timeout(wait_s or None):
                while wait_s and current.open:
                    async with self._changed:
                        current = await self._store.run(run)
                        if current.open:
                            await self._changed.wait()
        except TimeoutError:
            pass
        return current.view()

    async def list(self, limit: int) -> tuple[RunView, ...]:
        """Return runs, newest first."""
        return tuple(run.view() for run in await self._store.runs(limit))

    async def evaluate(
        self, caller: Principal, role: str, version: int | None, body: EvaluateModel
    ) -> ModelEvaluation:
        """Measure a version again, on the texts that judged it or on others.

        Raises:
            NotFound: There is no such version, repository or revision.
            Tampered: Its artefact, or the texts that judged it, are not what was stored.
            Unavailable: Nothing here can measure it.
        """
        view = await self._registry.get(role, version)
        model, kept = await self._store.version(role, view.version.version)
        evidence = await self._evidence(kept)
        own = body.data is None and not body.repo
        name = "the texts that judged it"
        if not own:
            self._registry.allow_training(caller, approved=body.data is None)
            corpus = await self._corpus(body.repo, body.revision, body.data)
            text, name = split_text(corpus.files), corpus.name
            chunks = _spread((*text.train, *text.heldout))
            if not chunks:
                raise InvalidInput("There is no text to measure it on.")
            evidence = msgspec.structs.replace(evidence, heldout=chunks, canaries=())
        report = await self._judge.measure(
            JudgeCase(
                kind=model.kind,
                artefact=await self._registry.artefacts.get(model.sha256),
                base=await self._body(model.provenance.base),
                evidence=evidence,
            )
        )
        results = check_model(model.size, report.measured, self._limits(model.kind))
        return ModelEvaluation(
            role=role,
            version=model.version,
            sha256=model.sha256,
            data=name,
            metrics=report.metrics,
            gates=verdicts(results) if own else (),
        )

    async def _check_room(self, caller: PrincipalId) -> None:
        runs = await self._store.open_runs()
        own = sum(run.by == caller for run in runs)
        if len(runs) >= MAX_OPEN or own >= MAX_OWN:
            raise Busy(
                f"{len(runs)} training runs are open, {own} of them yours; nothing was started.",
                hint=f"Wait for the end of one; {MAX_OPEN} may be open, {MAX_OWN} of one caller.",
            )

    # -- one run -----------------------------------------------------------------------------

    def _follow(self, run: TrainingRun) -> None:
        if self._group is None:
            raise Unavailable("The system is stopping; the run goes on with its next start.")
        task = self._group.create_task(self._finish(run), name=f"model run {run.id}")
        self._followed.add(task)
        task.add_done_callback(self._followed.discard)

    async def _finish(self, run: TrainingRun) -> None:
        """See a run to its end, whatever happens; only the end of the server leaves it open."""
        reason = outcome = ""
        while True:
            try:
                # A step may count though the journal did not take its facts: it is not done twice.
                if (current := await self._open_run(run.id)) is None:
                    await self._store.flush()
                    break
                if reason:
                    await self._refuse(current, reason, outcome=outcome)
                else:
                    await self._judged(current)
                continue
            except Unavailable as error:
                log.warning("%s goes on later: %s", run.id, error)
            except AngelError as error:
                if not reason:
                    reason, outcome = error.detail or error.code, error.code
                    continue
                log.warning("%s is refused later: %s", run.id, error)
            except Exception:
                log.exception("%s has failed", run.id)
                reason, outcome = "It could not be judged; see the log.", "internal"
            await asyncio.sleep(_RETRY_S)
        await self._tell()

    async def _open_run(self, run: str) -> TrainingRun | None:
        """Return a run as it is kept; None if it has ended, or was never kept."""
        try:
            current = await self._store.run(run)
        except NotFound:
            return None
        return current if current.open else None

    async def _judged(self, run: TrainingRun) -> None:
        end: BoxedEnd | None = None
        while end is None:
            if run.provenance.task is None:
                raise NotFound("Its task was never started.")
            end = await self._tasks.end(run.provenance.task, _WAIT_S)
        if end.status is not Status.ok or not end.output:
            why = f"Its task ended as {end.status}: {end.said[-300:].strip() or 'it left nothing'}"
            await self._refuse(run, why, outcome=end.status)
            return
        await self._keep(msgspec.structs.replace(run, state="judging"))
        artefact = await self._tasks.read(end.output)
        limits = self._limits(run.kind)
        if not (size := check_size(len(artefact), limits)).passed:  # nobody loads it
            run = msgspec.structs.replace(run, gates=(*run.gates, *verdicts((size,))))
            await self._refuse(run)
            return
        evidence = await self._evidence(run.evidence)
        report = await self._judge.measure(
            JudgeCase(
                kind=run.kind,
                artefact=artefact,
                base=await self._body(run.base),
                evidence=evidence,
            )
        )
        results = check_model(len(artefact), report.measured, limits)
        run = msgspec.structs.replace(run, gates=(*run.gates, *verdicts(results)))
        if stopping(run.gates):
            await self._refuse(run)
            return
        sha256 = await self._registry.artefacts.put(artefact)
        model = _version(run, report, sha256, len(artefact), self._clock.time())
        await self._registry.register(
            run, lambda number: msgspec.structs.replace(model, version=number), run.evidence
        )
        await self._tell()

    async def _train(
        self,
        caller: Principal,
        run: TrainingRun,
        text: SplitText,
        role: TrainableRole,
        base_text: tuple[str, ...],
        settings: StepSettings,
    ) -> TrainingRun:
        """Plant strings in the text, keep what will judge, and start the task."""
        canaries = tuple(new_canary() for _ in range(CANARIES))
        planted = plant(text.train, canaries)
        counts = await asyncio.to_thread(Counter, planted[:_COUNTED])
        heldout = _spread(text.heldout)
        evidence = Evidence(
            heldout=heldout,
            base_text=base_text or heldout,
            unlike=role.unlike,
            canaries=canaries,
            counts=dict(counts),
        )
        kept = await self._registry.artefacts.put(msgspec.json.encode(evidence))
        adapter = run.kind is ArtefactKind.adapter
        plan = TrainingPlan(**msgspec.structs.asdict(settings), adapter=adapter)
        inputs = {
            **program_files(),
            PLAN: msgspec.json.encode(plan),
            TEXT: planted.encode(errors="replace"),
        }
        if adapter:
            inputs[BASE] = await self._body(run.base)
        label = f"{'adapt' if adapter else 'train'} {run.role}"
        program = BoxedProgram((*ARGV, "train"), inputs, ARTEFACT, label)
        task = await self._tasks.start(caller, program)
        provenance = msgspec.structs.replace(run.provenance, task=task)
        return msgspec.structs.replace(run, evidence=kept, provenance=provenance)

    async def _corpus(
        self, repo: str, revision: Revision | None, data: NamedData | None
    ) -> _Corpus:
        if bool(repo) == (data is not None):
            raise InvalidInput("Name a repository, or give data with a name: one of them.")
        if data is None:
            text = await self._history.read(repo, revision)
            name = f"main of {repo} at {text.revision[:12]}"
            return _Corpus(name, text.files, repo, text.revision)
        if revision is not None:
            raise InvalidInput("A revision is one of a repository; data with a name has none.")
        files = tuple((file.path, file.text) for file in data.files)
        if sum(len(text) for _, text in files) > MAX_SET_CHARACTERS:
            raise TooLarge(f"A data set has at most {MAX_SET_CHARACTERS:,} characters.")
        return _Corpus(f"the data set {data.name}", files)

    async def _base(self, role: str, kind: ArtefactKind) -> tuple[str, tuple[str, ...]]:
        """Return the artefact that a run starts from, or is to replace, and its held-out text."""
        aliases = await self._store.aliases(role)
        if aliases.champion is None:
            if kind is ArtefactKind.base:
                return "", ()
            raise NotFound(
                f"The role {role} has no champion that could be adapted.",
                hint=f"`angelos model train {role} --repo NAME` makes a base; promote it first.",
            )
        champion, kept = await self._store.version(role, aliases.champion)
        evidence = await self._evidence(kept)
        if champion.kind is ArtefactKind.base:
            return champion.sha256, evidence.heldout
        return champion.provenance.base, evidence.base_text

    async def _evidence(self, sha256: str) -> Evidence:
        return msgspec.json.decode(await self._registry.artefacts.get(sha256), type=Evidence)

    async def _body(self, sha256: str) -> bytes:
        return await self._registry.artefacts.get(sha256) if sha256 else b""

    def _limits(self, kind: ArtefactKind) -> GateConfig:
        if kind is ArtefactKind.adapter:
            return self._gates
        return msgspec.structs.replace(self._gates, max_bytes=_BASE_BYTES)

    async def _refuse(
        self, run: TrainingRun, reason: str = "", outcome: str = "", trace: str = ""
    ) -> TrainingRun:
        """End a run without a version; the fact names the gates."""
        failed = tuple(v.gate for v in run.gates if not v.passed)
        state = "failed" if reason else "refused"
        run = msgspec.structs.replace(
            run, state=state, reason=reason or f"Stopped by {', '.join(failed)}."
        )
        payload = ModelRefused(role=run.role, gates=failed, reason=run.reason)
        actor = run.by if run.provenance.task is None else ME
        outcome = outcome or ",".join(failed)
        await self._keep(run, self._fact(payload, run, actor, outcome=outcome, trace=trace))
        return run

    async def _keep(self, run: TrainingRun, *facts: Fact) -> None:
        await self._store.put_run(run, *facts)
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _fact(
        self,
        payload: ModelTraining | ModelRefused,
        run: TrainingRun,
        actor: PrincipalId,
        **header: object,
    ) -> Fact:
        return Fact.of(
            payload,
            at=self._clock.time(),
            actor=actor,
            subject=run.id,
            revision=run.provenance.revision,
            on_behalf_of=None if actor == run.by else run.by,
            **header,  # type: ignore[arg-type]
        )


def _role(role: str) -> TrainableRole:
    if role not in TRAINABLE:
        raise InvalidInput(
            f"The role {role} is none that is trained here.",
            hint=f"Those are: {', '.join(sorted(TRAINABLE))}.",
        )
    return TRAINABLE[role]


def _version(
    run: TrainingRun, report: JudgeReport, sha256: str, size: int, at: float
) -> ModelVersion:
    """Return the version that a run has made, without its number."""
    role = TRAINABLE[run.role]
    return ModelVersion(
        role=run.role,
        version=0,
        kind=run.kind,
        sha256=sha256,
        size=size,
        parameters=report.parameters,
        at=at,
        provenance=run.provenance,
        gates=run.gates,
        metrics=report.metrics,
        limits=role.limits,
        bad_at=role.bad_at,
    )


def _started(run: TrainingRun) -> ModelTraining:
    return ModelTraining(
        role=run.role,
        artefact=run.kind,
        data=run.provenance.data,
        data_sha256=run.provenance.data_sha256,
        repo=run.provenance.repo,
        task=run.provenance.task,
    )


def _provenance(
    by: PrincipalId, corpus: _Corpus, text: SplitText, base: str, settings: StepSettings
) -> ModelProvenance:
    return ModelProvenance(
        data=corpus.name,
        data_sha256=hash_values([list(text.train), list(text.heldout)]),
        repo=corpus.repo,
        revision=corpus.revision,
        base=base,
        code_sha256=program_sha256(),
        config=msgspec.to_builtins(settings),
        by=by,
    )


def _spread(chunks: tuple[str, ...]) -> tuple[str, ...]:
    """Return at most `_HELD_OUT` chunks, spread over all."""
    step = max(1, -(-len(chunks) // _HELD_OUT))
    return chunks[::step]
