"""Brings the tools of a language by the registries' own clients, and checks what is here.

async for line in install(definition, folder): ...     # what pip and apt print
async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as sandbox:
report = await check(definition, folder, sandbox)   # a program was built and run in a box
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from angelos.adapters.host.trees import remove_tree
from angelos.core.errors import Refused, Unavailable
from angelos.core.ids import TaskId
from angelos.core.messages import RunTask, Status
from angelos.core.ports import SandboxSession
from angelos.core.run_session import run_session
from angelos.core.runs import Exit, Output, RunSpec
from angelos.core.sessions import Collected, CollectLimits, SessionSpec
from angelos.core.task_files import INPUTS
from angelos.node.runtimes.builder import Builder, BuildFailure, environment
from angelos.node.runtimes.commands import ProgramPaths, filled
from angelos.node.runtimes.finder import Missing, find
from angelos.node.runtimes.models import BUILD_LIMITS, RuntimeDefinition, Toolchain
from angelos.node.runtimes.program import Programs, main_file
from angelos.node.sandbox.layout import OUT, TMP
from angelos.node.sandbox.sandbox import BubblewrapSandbox

_CACHE = CollectLimits(files=10_000, file_bytes=64_000_000, total_bytes=256_000_000)
_ANSWER = "42\n"
HELLO = {
    "javascript": "console.log(6 * 7);\n",
    "typescript": "const answer: number = 6 * 7;\nconsole.log(answer);\n",
    "rust": 'fn main() { println!("{}", 6 * 7); }\n',
    "go": 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println(6 * 7) }\n',
    "csharp": "class Hello { static void Main() { System.Console.WriteLine(6 * 7); } }\n",
    "swift": "print(6 * 7)\n",
}


class RuntimeReport(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a language works here, and from where."""

    language: str
    ready: bool
    toolchain: str = ""
    tools: dict[str, str] = {}
    bytes: int = 0
    """Of the tools that do not belong to the system."""
    reason: str = ""
    hint: str = ""


def look(definition: RuntimeDefinition, folder: Path) -> RuntimeReport:
    """Return whether the tools of a language are here; nothing is started."""
    found = find(definition, folder)
    if isinstance(found, Missing):
        return RuntimeReport(
            language=definition.language, ready=False, reason=found.reason, hint=found.hint
        )
    return RuntimeReport(
        language=definition.language,
        ready=True,
        toolchain=found.definition.name,
        tools=found.sources,
        bytes=sum(_size(Path(source)) for source in found.read_only.values()),
    )


async def check(
    definition: RuntimeDefinition, folder: Path, sandbox: BubblewrapSandbox
) -> RuntimeReport:
    """Build a small program in a box, run it, and return what came of it."""
    report = await asyncio.to_thread(look, definition, folder)
    if not report.ready:
        return report
    with tempfile.TemporaryDirectory(prefix="angelos-check-") as place:
        programs = Programs(Builder(Path(place)), folder)
        task = RunTask(
            task=TaskId("task-check"),
            language=definition.language,  # type: ignore[arg-type]
            code=HELLO[definition.language],
        )
        inputs = Path(place) / "in"
        inputs.mkdir()
        inputs.chmod(0o755)
        for name, content in main_file(definition, task).items():
            (inputs / name).write_bytes(content)
        spec = await programs.spec(programs.locate(task, inputs, None), task, sandbox)
        if isinstance(spec, BuildFailure):
            said = spec.output.decode(errors="replace").strip()[-500:]
            return _not_ready(report, f"It does not build: {spec.end.status}. {said}")
        read_only = {**spec.read_only, INPUTS: str(inputs)}
        end, output = await _outcome(
            sandbox, SessionSpec(run=msgspec.structs.replace(spec, read_only=read_only))
        )
        await asyncio.to_thread(_remove_built, Path(place) / "built")
    if (end.status, output) != (Status.ok, _ANSWER.encode()):
        said = output.decode(errors="replace").strip()[-500:]
        return _not_ready(report, f"A program does not run: {end.status}. {said}")
    return report


def _not_ready(report: RuntimeReport, reason: str) -> RuntimeReport:
    return msgspec.structs.replace(report, ready=False, reason=reason)


def _remove_built(folder: Path) -> None:
    if folder.is_dir():
        remove_tree(folder)


async def install(definition: RuntimeDefinition, folder: Path) -> AsyncIterator[str]:
    """Bring a language by pip or apt, yielding what they print.

    Raises:
        Refused: Debian's packages need root.
        Unavailable: A client failed.
    """
    wanted = definition.install
    if wanted.pip:
        target = folder / definition.language
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps")
        fresh = target.with_name(f".new-{target.name}")
        await asyncio.to_thread(_make_room, fresh)
        async for line in _client((*pip, "--target", str(fresh), *wanted.pip)):
            yield line
        await asyncio.to_thread(_put, fresh, target)
    if wanted.apt:
        command = ("apt-get", "install", "-y", "-q", "--no-install-recommends", *wanted.apt)
        if os.geteuid() or shutil.which("apt-get") is None:
            raise Refused(
                f"{definition.language} comes from packages of the system, which root installs.",
                hint=f"As root: {' '.join(command)}",
            )
        async for line in _client(("apt-get", "update", "-q")):
            yield line
        async for line in _client(command):
            yield line


async def warm(definition: RuntimeDefinition, folder: Path, sandbox: BubblewrapSandbox) -> int:
    """Fill the build cache of a language in a box; return how many files it has."""
    found = find(definition, folder)
    if isinstance(found, Missing) or not found.definition.warm:
        return 0
    with tempfile.TemporaryDirectory(prefix="angelos-warm-") as place:
        inputs = Path(place)
        await asyncio.to_thread(_write_main, inputs, definition, found)
        collected = await _compile_once(definition, found, inputs, sandbox)
    target = folder / f"{definition.language}-cache"
    await asyncio.to_thread(_write_cache, target, collected)
    return len(collected.files)


async def _compile_once(
    definition: RuntimeDefinition, found: Toolchain, inputs: Path, sandbox: BubblewrapSandbox
) -> Collected:
    main = f"{INPUTS}/{definition.main}"
    places = ProgramPaths(main=main, sources=(main,), project=INPUTS)
    env = {**environment(found, places), "GOCACHE": f"{OUT}/cache"}
    run = RunSpec(
        argv=filled(found.definition.warm, found.tools, places),
        limits=BUILD_LIMITS,
        env=env,
        read_only={**found.read_only, INPUTS: str(inputs)},
        chdir=TMP,
    )
    collected: list[Collected] = []

    async def ended(session: SandboxSession) -> None:
        collected.append(await session.collect(("cache/**",), _CACHE))

    end, output = await _outcome(sandbox, SessionSpec(run=run, writable=OUT), ended)
    if end.status is not Status.ok:
        said = output.decode(errors="replace")[-500:]
        raise Unavailable(f"The build cache cannot be filled: {end.status} {end.evidence} {said}")
    return collected[0]


def _make_room(fresh: Path) -> None:
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.parent.mkdir(parents=True, exist_ok=True)


def _put(fresh: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def _write_main(folder: Path, definition: RuntimeDefinition, found: Toolchain) -> None:
    folder.chmod(0o755)
    (folder / definition.main).write_text(found.definition.warm_source)


def _write_cache(target: Path, collected: Collected) -> None:
    fresh = target.with_name(f".new-{target.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    for file in collected.files:
        path = fresh / file.path.removeprefix("cache/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(0o444)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


async def _outcome(
    sandbox: BubblewrapSandbox,
    spec: SessionSpec,
    ended: Callable[[SandboxSession], Awaitable[None]] | None = None,
) -> tuple[Exit, bytes]:
    output = bytearray()
    async for event in run_session(sandbox, spec, ended):
        if isinstance(event, Output):
            output += event.data
        else:
            return event, bytes(output)
    raise Unavailable("The sandbox ended without reporting how.")


async def _client(command: Sequence[str]) -> AsyncIterator[str]:
    """Run a registry's client, yielding its lines."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None  # noqa: S101 - a pipe
    try:
        async for line in process.stdout:
            yield line.decode(errors="replace").rstrip()
        if await process.wait():
            raise Unavailable(f"{command[0]} failed with exit code {process.returncode}.")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _size(folder: Path) -> int:
    return sum(
        path.lstat().st_size for path in folder.rglob("*") if path.is_file() or path.is_symlink()
    )
