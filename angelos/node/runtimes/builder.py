"""Compiles a program in a box of its own, once for each content, and keeps what came of it.

    <dir>/built/<key>/...       what the compiler left, by the hash of everything that went in

The compiler runs in a box like any program, as `build.rs` and its like do; the node takes its
files by the walk that follows no link. The key names the tools, the command and each source file
with its content, so another toolchain or another byte is another build.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from angelos.adapters.host.trees import remove_tree
from angelos.core.errors import Unavailable
from angelos.core.messages import Limits, Status
from angelos.core.ports import SandboxSession, SessionSandbox
from angelos.core.run_session import run_session
from angelos.core.runs import Exit, Output, RunSpec
from angelos.core.sessions import Collected, CollectLimits, SessionSpec
from angelos.node.runtimes.commands import SEEDED, ProgramPaths, diagnostics, filled
from angelos.node.runtimes.models import Diagnostic, Toolchain
from angelos.node.sandbox.layout import OUT, TMP

_KEEP_BYTES = 2_000_000_000
_BUILT_FILES = CollectLimits(files=10_000, file_bytes=64_000_000, total_bytes=256_000_000)
_NEW = ".new-"
_MAX_OUTPUT = 1_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """A program's files, here and in the box."""

    folder: str
    """Here."""
    inside: str
    """In the box, where `folder` is read-only."""
    digest: str
    """Of all files in it, with their paths."""
    project: bool
    """It has the file by which the language's own build tool knows it."""
    places: ProgramPaths
    work: str = TMP
    """Where the compiler starts."""


@dataclass(frozen=True, slots=True)
class BuildFailure:
    """A build that did not succeed."""

    end: Exit
    output: bytes
    diagnostics: tuple[Diagnostic, ...]


class Builder:
    """Builds programs in boxes and keeps them in `directory`."""

    def __init__(self, directory: Path, keep_bytes: int = _KEEP_BYTES) -> None:
        """Keep about `keep_bytes` of what was built, by last use."""
        self._root = directory / "built"
        self._keep = keep_bytes

    def sweep(self) -> None:
        """Remove what a killed node has begun."""
        for path in self._root.glob(f"{_NEW}*"):
            remove_tree(path)

    async def build(
        self, toolchain: Toolchain, source: Source, sandbox: SessionSandbox, limits: Limits
    ) -> Path | BuildFailure:
        """Return the folder of what was built of a program, now in a box with `limits` or before.

        Raises:
            Unavailable: What was built cannot be stored.
        """
        definition = toolchain.definition
        words = definition.compile
        if source.project and definition.compile_project:
            words = definition.compile_project
        if not words:  # types are all that can be looked at
            words = definition.check
        words = filled((*definition.prepare, *words), toolchain.tools, source.places)
        key = _key(toolchain.identity, source.digest, *words)
        path = self._root / key
        if await asyncio.to_thread(_used, path):
            return path
        collected: list[Collected] = []

        async def ended(session: SandboxSession) -> None:
            collected.append(await session.collect(("**",), _BUILT_FILES))

        run = RunSpec(
            argv=words,
            limits=msgspec.structs.replace(limits, output_bytes=_MAX_OUTPUT),
            env=environment(toolchain, source.places),
            read_only=bound(toolchain, source),
            chdir=source.work,
        )
        end, output = await _outcome(sandbox, SessionSpec(run=run, writable=OUT), ended)
        if end.status is not Status.ok:
            text = output.decode(errors="replace")
            rows = diagnostics(definition.diagnostic, text, source.places.project)
            return BuildFailure(end, output, rows)
        try:
            await asyncio.to_thread(self._store, path, collected[0])
        except OSError as error:
            raise Unavailable(f"What was built cannot be stored: {error}") from error
        return path

    def _store(self, path: Path, collected: Collected) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = Path(tempfile.mkdtemp(prefix=_NEW, dir=self._root))
        try:
            for file in collected.files:
                if file.path.startswith("."):  # the compiler's own scratch
                    continue
                target = fresh / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.content)
                target.chmod(0o555 if file.executable else 0o444)
            for folder in (fresh, *(entry for entry in fresh.rglob("*") if entry.is_dir())):
                folder.chmod(0o755)
            fresh.rename(path)
        except OSError:
            remove_tree(fresh)
            if not path.is_dir():  # else another task has built the same meanwhile
                raise
        with contextlib.suppress(OSError):  # what was built is there
            self._forget()

    def _forget(self) -> None:
        """Remove what was not used for the longest time."""
        rows = []
        for path in self._root.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another build's, just removed
                if not path.name.startswith(_NEW):
                    rows.append((path.stat().st_mtime, _size(path), path))
        total = sum(size for _, size, _ in rows)
        for _, size, path in sorted(rows):
            if total <= self._keep:
                return
            remove_tree(path)
            total -= size


async def _outcome(
    sandbox: SessionSandbox,
    spec: SessionSpec,
    ended: Callable[[SandboxSession], Awaitable[None]],
) -> tuple[Exit, bytes]:
    output = bytearray()
    async for event in run_session(sandbox, spec, ended):
        if isinstance(event, Output):
            output += event.data
        else:
            return event, bytes(output)
    raise Unavailable("The sandbox ended without reporting how.")


def bound(toolchain: Toolchain, source: Source) -> dict[str, str]:
    """Return what a box needs of a toolchain and a program: path inside -> path here."""
    seeded = {SEEDED: toolchain.seeded} if toolchain.seeded else {}
    return {**toolchain.read_only, **seeded, source.inside: source.folder}


def environment(toolchain: Toolchain, places: ProgramPaths) -> dict[str, str]:
    """Return the environment of a toolchain's programs."""
    env = toolchain.definition.env
    return {name: filled((word,), toolchain.tools, places)[0] for name, word in env.items()}


def digest_of(files: dict[str, str]) -> str:
    """Return the hash of a set of files, given path -> hash of the content."""
    return _key(*(f"{path}\0{digest}" for path, digest in sorted(files.items())))


def _key(*parts: str) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _used(path: Path) -> bool:
    """Return whether something is there, and note that it is used now."""
    try:
        os.utime(path)
    except OSError:
        return False
    return True


def _size(path: Path) -> int:
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
