"""Builds the registry of role models on the planes that it needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from angelos.adapters.stores.postgres import Database
from angelos.control.service import Control
from angelos.control.state.hands import same_hands
from angelos.control.tasks.contents import Contents
from angelos.core.api import SubmitTask
from angelos.core.errors import InvalidInput, TooLarge, Unavailable
from angelos.core.ids import PrincipalId, Revision, TaskId, is_revision
from angelos.core.messages import Limits
from angelos.core.models import MAX_SET_CHARACTERS
from angelos.core.permissions import Permission, Principal
from angelos.core.policy.access import permissions_of
from angelos.core.ports import Clock, Journal, Repository
from angelos.core.task_files import InputFile
from angelos.ml.registry.artefacts import ArtefactStore
from angelos.ml.registry.canary import CanaryTrial
from angelos.ml.registry.judging import JudgeProcess
from angelos.ml.registry.ports import ApprovedText, BoxedEnd, BoxedProgram
from angelos.ml.registry.routes import ModelServices
from angelos.ml.registry.service import Hands, ModelRegistry
from angelos.ml.registry.store import RegistryStore
from angelos.ml.registry.tuning import Tuner

LIMITS = Limits(wall_s=600, cpu_s=600, memory_mb=2048, pids=64, output_bytes=200_000, disk_mb=128)
"""Of a task that trains or answers: within what an agent may ask for."""
_HISTORY = 10_000
_FILE_CHARACTERS = 400_000
_TEXT = (
    ".py",
    ".md",
    ".txt",
    ".rst",
    ".toml",
    ".cfg",
    ".sql",
    ".js",
    ".ts",
    ".sh",
    ".yaml",
    ".yml",
)


class ControlTasks:
    """`ml.registry.ports.BoxedTasks`: ordinary tasks of control."""

    def __init__(self, control: Control, contents: Contents) -> None:
        self._control = control
        self._contents = contents

    async def start(self, caller: Principal, program: BoxedProgram) -> TaskId:
        """Submit a program as somebody's task."""
        node = self._labs() if program.on_labs else None
        inputs = [
            InputFile(path=path, sha256=await self._contents.put(body))
            for path, body in program.inputs.items()
        ]
        body = SubmitTask(
            argv=program.argv,
            inputs=tuple(inputs),
            outputs=(program.output,),
            limits=LIMITS,
            label=program.label,
            node=node,
        )
        return (await self._control.tasks.submit(caller, body)).id

    async def end(self, task: TaskId, wait_s: float) -> BoxedEnd | None:
        """Return how a task ended, None if it runs on."""
        result = (await self._control.tasks.view(task, wait_s)).result
        if result is None:
            return None
        output = next((file.sha256 for file in result.files), "")
        return BoxedEnd(result.status, output, result.stderr[-2_000:])

    async def read(self, sha256: str) -> bytes:
        """Return a file that a task left."""
        return await self._contents.get(sha256)

    def _labs(self) -> str:
        nodes = self._control.projection.state.nodes.values()
        for node in nodes:
            if node.role == "labs" and node.connected and not node.quarantined:
                return node.id.partition("/")[2]
        raise Unavailable(
            "No labs node is connected, on which a model is tried; nothing was counted.",
            hint="`angelos node list` lists the nodes.",
        )


class MainHistory:
    """`ml.registry.ports.ApprovedHistory`: the texts of `main`, and the newest proposals."""

    def __init__(self, repository: Repository, control: Control) -> None:
        self._repository = repository
        self._control = control

    async def read(self, repo: str, revision: Revision | None) -> ApprovedText:
        """Return the texts of a revision of `main`, by default of its head."""
        head = await self._repository.head(repo, "main")
        chosen = revision or head
        if not is_revision(chosen):
            raise InvalidInput(f"{chosen[:80]!r} is no revision.", hint="Give all 64 hex digits.")
        if chosen != head and chosen not in await self._repository.history(repo, "main", _HISTORY):
            raise InvalidInput(
                f"{chosen[:12]} is no revision of the main of {repo}: nobody has approved it."
            )
        files: list[tuple[str, str]] = []
        total = 0
        for entry in await self._repository.tree(repo, chosen):
            if not entry.path.endswith(_TEXT) or entry.size > _FILE_CHARACTERS:
                continue
            total += entry.size
            if total > MAX_SET_CHARACTERS:
                raise TooLarge(
                    f"{repo} has more than {MAX_SET_CHARACTERS:,} bytes of text at "
                    f"{chosen[:12]}; a run learns from no more."
                )
            body = await self._repository.read(repo, chosen, entry.path)
            files.append((entry.path, body.decode(errors="replace")))
        return ApprovedText(chosen, tuple(files))

    async def recent(self, limit: int) -> tuple[str, ...]:
        """Return the added text of the newest proposals, decided or not."""
        proposals = self._control.projection.state.proposals.values()
        texts: list[str] = []
        for proposal in reversed(proposals):
            added = "".join(map(_added, (change.diff for change in proposal.changes)))
            if added:
                texts.append(added)
            if len(texts) == limit:
                break
        return tuple(texts)


def _added(diff: str) -> str:
    lines = diff.splitlines(keepends=True)
    return "".join(line[1:] for line in lines if line[:1] == "+" and line[:4] != "+++ ")


@asynccontextmanager
async def serving_models(
    database: Database,
    journal: Journal,
    clock: Clock,
    folder: Path,
    repository: Repository,
    control: Control,
) -> AsyncIterator[ModelServices]:
    """Yield the registry of a system, going on with what was open.

    Args:
        database: Migrated.
        journal: Where its facts go.
        clock: Of its facts.
        folder: Where its artefacts are.
        repository: Whose `main` is approved.
        control: Which knows people and policy, and runs tasks.
    """
    registry = ModelRegistry(
        RegistryStore(database, journal),
        ArtefactStore(folder),
        clock,
        control.policy,
        _hands(control),
    )
    await registry.store.flush()
    tasks = ControlTasks(control, Contents(database, clock))
    history = MainHistory(repository, control)
    async with JudgeProcess() as judge, asyncio.TaskGroup() as group:
        tuner = Tuner(registry, tasks, history, judge, clock)
        canary = CanaryTrial(registry, tasks, history)
        async with tuner.running(group), canary.running(group):
            yield ModelServices(registry, tuner, canary)


def _hands(control: Control) -> Hands:
    def one_person(one: PrincipalId, other: PrincipalId) -> bool:
        return same_hands(control.projection.state.makers, one, other)

    async def alone(person: PrincipalId) -> bool:
        people = await control.people.list()
        reviewers = [p.id for p in people if Permission.models_review in permissions_of(p.role)]
        return reviewers == [person]

    return Hands(one_person, alone)
