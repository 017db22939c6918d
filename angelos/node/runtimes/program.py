"""A program in one of the languages beside Python: found, built and made a run.

program = programs.locate(task, inputs, checkout)
await programs.spec(program, task, sandbox)     # a RunSpec, or what the compiler said
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from angelos.core.errors import InvalidInput, Unavailable
from angelos.core.messages import RunTask
from angelos.core.paths import safe_path
from angelos.core.ports import SessionSandbox
from angelos.core.runs import RunSpec
from angelos.core.task_files import INPUTS
from angelos.node.runtimes.builder import (
    Builder,
    BuildFailure,
    Source,
    bound,
    digest_of,
    environment,
)
from angelos.node.runtimes.commands import BUILT, ProgramPaths, filled
from angelos.node.runtimes.definitions import definitions
from angelos.node.runtimes.finder import Missing, find
from angelos.node.runtimes.models import Action, RuntimeDefinition, Toolchain
from angelos.node.sandbox.layout import TMP, WORK

_MAX_SOURCES = 2_000


@dataclass(frozen=True, slots=True)
class Program:
    """What a task runs."""

    definition: RuntimeDefinition
    toolchain: Toolchain
    source: Source


class Programs:
    """Makes runs of programs that are not Python."""

    def __init__(self, builder: Builder, folder: Path) -> None:
        """Look for tools in `folder` as well as on the machine."""
        self._builder = builder
        self._folder = folder

    def locate(self, task: RunTask, inputs: Path | None, checkout: Path | None) -> Program:
        """Return the program of a task.

        Raises:
            InvalidInput: The task names no program that is there.
            Unavailable: The machine cannot run the language.
        """
        definition = definitions()[task.language]
        toolchain = find(definition, self._folder)
        if isinstance(toolchain, Missing):
            raise Unavailable(toolchain.reason, hint=toolchain.hint)
        return Program(definition, toolchain, _source(definition, task, inputs, checkout))

    async def spec(
        self, program: Program, task: RunTask, sandbox: SessionSandbox
    ) -> RunSpec | BuildFailure:
        """Return the run of a program; where its language is compiled it is built in `sandbox`.

        The compiler has the limits of the task: it runs for whoever has asked for that.
        """
        toolchain, source = program.toolchain, program.source
        definition, action = toolchain.definition, Action(task.action)
        read_only = bound(toolchain, source)
        compiled = bool(definition.compile) or (definition.checked and action is Action.run)
        if action is not Action.test and (compiled or action is Action.check):
            built = await self._builder.build(toolchain, source, sandbox, task.limits)
            if isinstance(built, BuildFailure):
                return built
            read_only[BUILT] = str(built)
        words = definition.run
        if action is Action.check:
            words = ("true",)
        elif action is Action.test:
            words = definition.test
            if source.project and definition.test_project:
                words = definition.test_project
            if not words:
                raise InvalidInput(
                    f"{definition.name} has no test command for {task.language}.",
                    hint="Run a program that tests, and ends with an exit code of its own.",
                )
            words = (*definition.prepare, *words)
        return RunSpec(
            argv=filled(words, toolchain.tools, source.places),
            stdin=task.stdin,
            limits=task.limits,
            env=environment(toolchain, source.places),
            read_only=read_only,
            chdir=_chdir(source, action),
        )


def _chdir(source: Source, action: Action) -> str:
    """Return where a program starts: in its checkout, for tests in its project, else in /tmp."""
    if source.inside == WORK:
        return source.places.project if action is Action.test else WORK
    return source.work if action is Action.test else TMP


def main_file(definition: RuntimeDefinition, task: RunTask) -> dict[str, bytes]:
    """Return the file that holds the code of a task, if it came as code."""
    return {definition.main: task.code.encode()} if task.code else {}


def _source(
    definition: RuntimeDefinition, task: RunTask, inputs: Path | None, checkout: Path | None
) -> Source:
    folder, inside = (checkout, WORK) if checkout and not task.code else (inputs, INPUTS)
    if folder is None:
        raise InvalidInput("The task has neither code nor a program among its files.")
    name, args = (definition.main, task.argv) if task.code else (task.argv[0], task.argv[1:])
    path, project = _paths(definition, folder, name)

    def shown(place: Path) -> str:
        below = place.relative_to(folder).as_posix()
        return inside if below == "." else f"{inside}/{below}"

    neighbours = _neighbours(definition, project)
    whole = bool(definition.project) and (project / definition.project).is_file()
    places = ProgramPaths(
        main=shown(path),
        sources=tuple(shown(entry) for entry in neighbours[:_MAX_SOURCES]),
        project=shown(project),
        args=tuple(args),
    )
    digest = f"{task.repo}@{task.revision}" if folder == checkout else _digest(folder)
    return Source(str(folder), inside, digest, whole, places, shown(project) if whole else TMP)


def _paths(definition: RuntimeDefinition, folder: Path, name: str) -> tuple[Path, Path]:
    """Return a program's first file and its project's folder."""
    path = folder if name == "." else folder / safe_path(name.rstrip("/"))
    project = path if path.is_dir() else path.parent
    if path.is_dir():
        path = _main_of(definition, path)
    if not path.is_file():
        raise InvalidInput(f"There is no file {name[:80]!r} among the task's files.")
    return path, project


def _neighbours(definition: RuntimeDefinition, project: Path) -> list[Path]:
    """Return the files of the language in a project's folder itself."""
    entries = sorted(project.iterdir())
    return [entry for entry in entries if entry.suffix in definition.extensions and entry.is_file()]


def _main_of(definition: RuntimeDefinition, folder: Path) -> Path:
    """Return the first file of a project."""
    stem, suffix = definition.main.rsplit(".", 1)
    names = (definition.main, f"src/{definition.main}", f"index.{suffix}", f"mod.{suffix}")
    if definition.project:
        names = (*names, definition.project)
    return next((folder / name for name in names if (folder / name).is_file()), folder / stem)


def _digest(folder: Path) -> str:
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    return digest_of(files)
