"""Builds environments in boxes that reach the package index alone, and keeps them by content.

    <dir>/environments/<key>/site/...    what pip installed, by the hash of everything that went in
    <dir>/environments/.new-...          one that is being built

The key names the requirements, the interpreter and the index. Packages run code when they are
built, so that happens in a box: it writes one folder of the host, whose size the node watches, and
nothing there is followed or run outside of a box.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import stat
import sys
import sysconfig
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from angelos.adapters.host.trees import remove_tree
from angelos.core.errors import Tampered, Unavailable
from angelos.core.ids import PrincipalId
from angelos.core.messages import Limits, Status
from angelos.core.network import NetworkRule, parse_rule, parse_rules
from angelos.core.ports import SandboxSession, SessionSandbox
from angelos.core.run_session import run_session
from angelos.core.runs import EvidenceSource, Exit, Output, RunSpec
from angelos.core.sessions import SessionSignal, SessionSpec
from angelos.node.broker.models import NetworkConfig
from angelos.node.broker.proxy import Report
from angelos.node.broker.service import Brokers
from angelos.node.sandbox.launch import NOBODY
from angelos.node.sandbox.layout import WORK

log = logging.getLogger(__name__)
BUILD_LIMITS = Limits(
    wall_s=900, cpu_s=900, memory_mb=2048, pids=128, output_bytes=1_000_000, disk_mb=64
)
_INSIDE = f"{WORK}/build"
_NEW, _SITE, _TEMPORARY, _SIZE = ".new-", "site", "tmp", "size"
_KEEP_BYTES = 8_000_000_000
_MAX_BYTES, _MAX_FILES = 4_000_000_000, 200_000
_LOOK_S = 1.0
_TAIL = 4_000


@dataclass(frozen=True, slots=True)
class PackageIndex:
    """Where packages come from."""

    url: str
    rules: tuple[NetworkRule, ...]


def package_index(config: NetworkConfig) -> PackageIndex | None:
    """Return the index that a node's operator names.

    Raises:
        InvalidInput: It is no rule.
    """
    if not config.index:
        return None
    rule = parse_rule(config.index)
    url = str(msgspec.structs.replace(rule, methods=(), credential=""))
    return PackageIndex(url, parse_rules((config.index, *config.index_files)))


@dataclass(frozen=True, slots=True)
class EnvironmentFailure:
    """An environment that could not be built."""

    end: Exit
    output: bytes
    """The end of what pip said."""


class Environments:
    """The environments of a node."""

    def __init__(
        self,
        directory: Path,
        brokers: Brokers,
        index: PackageIndex | None,
        keep_bytes: int = _KEEP_BYTES,
        most_bytes: int = _MAX_BYTES,
    ) -> None:
        """Keep about `keep_bytes` in `directory`, by last use, each of at most `most_bytes`."""
        self._root = directory / "environments"
        self.brokers = brokers
        self._index = index
        self._keep = keep_bytes
        self._most = most_bytes
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._used: Counter[str] = Counter()

    def sweep(self) -> None:
        """Remove what a killed node has begun."""
        for path in self._root.glob(f"{_NEW}*"):
            _remove(path)

    @contextlib.asynccontextmanager
    async def use(
        self,
        requirements: Sequence[str],
        sandbox: SessionSandbox,
        by: PrincipalId,
        report: Report,
    ) -> AsyncIterator[Path | EnvironmentFailure]:
        """Yield the folder of an environment's packages, which stays while it is used.

        Args:
            requirements: Lines of `core.requirements`.
            sandbox: Where it is built if it is not there.
            by: For whom.
            report: Takes each request to the index.

        Raises:
            Unavailable: This node has no package index, or no room.
        """
        if self._index is None:
            raise Unavailable(
                "This node has no package index, so it builds no environments.",
                hint="Its operator names one in ANGELOS_NODE_INDEX.",
            )
        key = self._key(requirements)
        self._used[key] += 1
        try:
            async with self._locks[key]:  # whoever needs the same waits for one build
                built = await self._built(key, requirements, sandbox, by, report)
            yield built
        finally:
            self._used[key] -= 1
            if not self._used[key]:
                del self._used[key]
                self._locks.pop(key, None)

    def _key(self, requirements: Sequence[str]) -> str:
        assert self._index is not None  # noqa: S101 - checked before
        interpreter = (sys.version, sysconfig.get_platform(), os.path.realpath(sys.executable))
        parts = (tuple(sorted(requirements)), interpreter, self._index.url)
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()

    async def _built(
        self,
        key: str,
        requirements: Sequence[str],
        sandbox: SessionSandbox,
        by: PrincipalId,
        report: Report,
    ) -> Path | EnvironmentFailure:
        path = self._root / key
        if await asyncio.to_thread(_touch, path):
            return path / _SITE
        folder = self._root / f"{_NEW}{secrets.token_hex(8)}"
        try:
            try:
                await _whole(self._begin, folder)
            except OSError as error:
                raise Unavailable(f"There is no room for an environment: {error}") from error
            failure = await self._build(folder, requirements, sandbox, by, report)
            if failure is not None:
                return failure
            if not await asyncio.to_thread(_within, folder, self._most):
                return _too_large(sandbox, self._most)
            await _whole(_finish, folder, path)
            await self._forget()
            return path / _SITE
        finally:
            await _whole(_remove, folder)

    async def _build(
        self,
        folder: Path,
        requirements: Sequence[str],
        sandbox: SessionSandbox,
        by: PrincipalId,
        report: Report,
    ) -> EnvironmentFailure | None:
        """Install requirements into a folder; return why that failed, None if it did not."""
        assert self._index is not None  # noqa: S101 - checked before
        index = self._index
        names = folder / _TEMPORARY / "requirements.txt"
        await asyncio.to_thread(_write, names, "\n".join(requirements) + "\n")
        program = ("python", "-m", "pip", "install", "--no-input", "--no-cache-dir")
        where = ("--target", f"{_INSIDE}/{_SITE}", "--index-url", index.url)
        quiet = (
            "--no-warn-script-location",
            "--no-compile",
            "--progress-bar",
            "off",
            "--retries",
            "1",
        )
        async with self.brokers.opened(index.rules, by, "an environment", report) as order:
            run = RunSpec(
                argv=(*program, *where, *quiet, "-r", f"{_INSIDE}/{_TEMPORARY}/{names.name}"),
                limits=BUILD_LIMITS,
                env={**order.env, "TMPDIR": f"{_INSIDE}/{_TEMPORARY}"},
                read_only=order.read_only,
            )
            spec = SessionSpec(run=run, shared={_INSIDE: str(folder)}, broker=True)

            @contextlib.asynccontextmanager
            async def beside(session: SandboxSession) -> AsyncIterator[None]:
                async with order.broker.serving(session.listener()), self._watched(folder, session):
                    yield

            return await _outcome(sandbox, spec, beside)

    @contextlib.asynccontextmanager
    async def _watched(self, folder: Path, session: SandboxSession) -> AsyncIterator[None]:
        """End a build whose folder grows beyond what an environment may have."""

        async def look() -> None:
            while True:
                await asyncio.sleep(_LOOK_S)
                if not await asyncio.to_thread(_within, folder, self._most):
                    await session.signal(SessionSignal.kill)
                    return

        watching = asyncio.create_task(look(), name="size of an environment")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _begin(self, folder: Path) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in (folder, folder / _SITE, folder / _TEMPORARY):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
            if os.geteuid() == 0:
                os.chown(path, NOBODY, NOBODY)

    async def _forget(self) -> None:
        """Remove what was not used for the longest time, and is not used now.

        It loses its name on the event loop, where uses begin: nobody is given it meanwhile.
        """
        forgotten: list[Path] = []
        try:
            total, rows = await asyncio.to_thread(self._by_use)
            for size, path in rows:
                if total <= self._keep:
                    break
                if path.name not in self._used:
                    forgotten.append(self._root / f"{_NEW}{secrets.token_hex(8)}")
                    path.rename(forgotten[-1])
                    total -= size
        finally:
            for path in forgotten:
                await _whole(_remove, path)

    def _by_use(self) -> tuple[int, list[tuple[int, Path]]]:
        """Return the bytes of all environments, and each with its own, the oldest use first."""
        if not self._root.is_dir():
            return 0, []
        paths = [path for path in self._root.iterdir() if not path.name.startswith(_NEW)]
        rows = sorted((path.stat().st_mtime, _noted_size(path), path) for path in paths)
        return sum(size for _, size, _ in rows), [(size, path) for _, size, path in rows]


async def _whole(work: Callable[..., None], *args: object) -> None:
    """Do work in a thread; who is cancelled meanwhile waits until it is done."""
    task = asyncio.create_task(asyncio.to_thread(work, *args))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()
        raise cancelled
    task.result()


async def _outcome(
    sandbox: SessionSandbox,
    spec: SessionSpec,
    beside: Callable[[SandboxSession], contextlib.AbstractAsyncContextManager[None]],
) -> EnvironmentFailure | None:
    output = bytearray()
    async for event in run_session(sandbox, spec, beside=beside):
        if isinstance(event, Output):
            output += event.data
            del output[:-_TAIL]
        elif event.status is not Status.ok:
            return EnvironmentFailure(event, bytes(output))
        else:
            return None
    raise Unavailable("The sandbox ended without reporting how.")


def _too_large(sandbox: SessionSandbox, most: int) -> EnvironmentFailure:
    reason = f"an environment has at most {most // 1_000_000} MB and {_MAX_FILES} files"
    evidence: dict[str, object] = {"source": EvidenceSource.node, "reason": reason}
    end = Exit(
        status=Status.killed, exit_code=None, duration_s=0.0, tier=sandbox.tier, evidence=evidence
    )
    return EnvironmentFailure(end, f"{reason}\n".encode())


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)  # whatever the umask is: the box is another user


def _touch(path: Path) -> bool:
    try:
        os.utime(path)
    except OSError:
        return False
    return True


def _finish(folder: Path, path: Path) -> None:
    """Give a built environment its name, and note its size; what only its build needed goes.

    Raises:
        Tampered: The build left a link where its packages should be, or nothing: whoever binds a
            link into a box would bind what it leads to.
    """
    folder.chmod(0o755)
    try:
        intact = stat.S_ISDIR((folder / _SITE).lstat().st_mode)
    except FileNotFoundError:
        intact = False
    if not intact:
        raise Tampered("The build of an environment has replaced its folder by something else.")
    _remove(folder / _TEMPORARY)
    size = folder / _SIZE  # a folder of the node's own here, which no box writes any more
    _remove(size)
    with size.open("x", encoding="ascii") as file:  # never into what the build has left
        file.write(str(_size(folder)[0]))
    folder.rename(path)


def _noted_size(path: Path) -> int:
    try:
        return int((path / _SIZE).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return _size(path)[0]


def _remove(path: Path) -> None:
    """Remove what a box has written, whatever it is; links are not followed."""
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            remove_tree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("%s could not be removed: %s", path, error)


def _within(folder: Path, most: int) -> bool:
    """Return whether a folder is small enough; what cannot be measured is not."""
    try:
        size, count = _size(folder)
    except OSError:
        return False
    return size <= most and count <= _MAX_FILES


def _size(folder: Path) -> tuple[int, int]:
    """Return the bytes and the number of everything in a folder; links are not followed.

    Raises:
        OSError: Not all of it can be seen: it is closed, or has no path that is short enough.
    """
    size = count = 0
    pending = [str(folder)]
    while pending:
        # A build that still runs removes and replaces what was just seen.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            with os.scandir(pending.pop()) as entries:
                rows = list(entries)
            for entry in rows:
                count += 1
                with contextlib.suppress(FileNotFoundError):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
    return size, count
