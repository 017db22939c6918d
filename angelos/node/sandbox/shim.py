"""The first program inside a box: closes the last doors, then becomes the task.

It is started by bubblewrap (or alone, where there are no user namespaces) as
`python -I shim.py FD`, where FD is a Unix socket to the node. It says `ready`, waits for
one order, installs the second seccomp filter and the Landlock rules, sets limits, says `go` and
then either executes the order's program in its place or, for Python code, runs that code in this
very interpreter. One box serves one order.

Only the standard library: nothing of AngelOS is inside the box. It imports all it needs before it
is ready, which is off a task's path. Anything that fails here ends the box before the task has
run a line (exit 120 and a message on the socket).

    node                         inside
     | <------- b"ready" ---------  |   (SCM_CREDENTIALS: the kernel says which process)
     | ---- order, as JSON ------>  |
     | <- b"go" or b"blind" + fd -  |   (SCM_RIGHTS: the listener of refused system calls)
     | -------- b"start" -------->  |
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import io
import json
import linecache
import os
import platform
import resource
import signal
import socket
import struct
import sys
from types import TracebackType

SETUP_FAILED = 120
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER = 1, 38, 36
_NEW_LISTENER = 1 << 3
_READ = 1 | 4 | 8  # execute, read file, read dir (linux/landlock.h)
_FILE_RIGHTS = 1 | 2 | 4 | 1 << 14 | 1 << 15  # the ones that may stand on a file


class _Filter(ctypes.Structure):
    """`struct sock_fprog` of linux/filter.h."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


_libc = ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *args: object) -> int:
    result = _libc.syscall(number, *args)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _seccomp(program: bytes, flags: int) -> int:
    """Install a filter; with `_NEW_LISTENER` return the listener's descriptor."""
    buffer = ctypes.create_string_buffer(program, len(program))
    prog = _Filter(len(program) // 8, ctypes.addressof(buffer))
    return _syscall(_SECCOMP[platform.machine()], 1, flags, ctypes.byref(prog))


def _landlock(read: list[str], write: list[str]) -> None:
    """Restrict this process to the paths given; no TCP, no signals out (kernel docs, ABI 1-7)."""
    abi = _syscall(_LANDLOCK_CREATE, 0, 0, 1)
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    tcp, scope = (3 if abi >= 4 else 0), (3 if abi >= 6 else 0)  # noqa: PLR2004
    attr = struct.pack("QQQ", rights, tcp, scope)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8  # noqa: PLR2004
    ruleset = _syscall(_LANDLOCK_CREATE, ctypes.c_char_p(attr), size, 0)
    for paths, wanted in ((read, _READ), (write, rights)):
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            may = wanted if os.path.isdir(path) else wanted & _FILE_RIGHTS  # noqa: PTH112
            rule = struct.pack("=Qi", may & rights, fd)
            _syscall(_LANDLOCK_ADD, ruleset, 1, ctypes.c_char_p(rule), 0)
            os.close(fd)
    _syscall(_LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (limit, limit))


def _receive(link: socket.socket) -> dict[str, object]:
    """Read one order: eight bytes of length and as much JSON; no order means no task."""
    with link.makefile("rb") as stream:
        head = stream.read(8)
        if len(head) < 8:  # noqa: PLR2004
            os._exit(0)
        return json.loads(stream.read(int.from_bytes(head, "big")))


def _close_doors(order: dict[str, object]) -> tuple[bytes, list[int]]:
    """Install limits, Landlock and the filter; return what to say and the listener to pass."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("1000")  # should the whole machine run short, the box goes first
    _limit(order["rlimits"])  # type: ignore[arg-type]
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    landlock: dict[str, list[str]] | None = order["landlock"]  # type: ignore[assignment]
    if landlock is not None:
        _landlock(landlock["read"], landlock["write"])
    if order["base_filter"]:
        _seccomp(bytes.fromhex(str(order["base_filter"])), 0)
    try:
        return b"go", [_seccomp(bytes.fromhex(str(order["notify_filter"])), _NEW_LISTENER)]
    except OSError:
        # Inside some containers there may be no second listener: refuse without reporting.
        _seccomp(bytes.fromhex(str(order["refuse_filter"])), 0)
        return b"blind", []


def _show(
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    this_file: str = __file__,
) -> None:
    """Print an uncaught exception with the code's own lines and without this file's frames.

    This module's names are gone by then: they made room for the task's.
    """
    import traceback

    while trace is not None and trace.tb_frame.f_code.co_filename == this_file:
        trace = trace.tb_next
    traceback.print_exception(kind, error, trace)


def _stay_behind() -> None:
    """Go on as a child whose orphans come to this process, which ends when the child does.

    Stands in for the process namespace: whatever the task starts stays below one process, so
    that the node finds it all, and is ended when the task itself, or the node, has ended.
    """
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = os.fork()
    if child == 0:
        return
    signal.signal(signal.SIGTERM, lambda *_: _end_children())
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # when the node is killed
    for fd in (0, 1, 2):
        os.close(fd)
    pid, code = 0, 0
    while pid != child:
        pid, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(ChildProcessError):
        while True:  # each that is killed hands its own children over
            _end_children()
            os.wait()
    os._exit(code if code >= 0 else 128 - code)


def _end_children() -> None:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123
        for child in file.read().split():
            os.kill(int(child), signal.SIGKILL)


def _run_code(code: str, args: list[str], chdir: str) -> None:
    """Run Python source as `__main__` of this interpreter."""
    name = "<task>"
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    sys.argv = ["-c", *args]
    sys.dont_write_bytecode = True
    if chdir != "/tmp":  # noqa: S108 - a checkout is importable, the scratch folder is not
        sys.path.insert(0, chdir)
    sys.excepthook = _show
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a reader is waiting, as at a terminal
    main = sys.modules["__main__"].__dict__
    keep = {"__name__": "__main__", "__builtins__": __builtins__, "__doc__": None}
    main.clear()
    main.update(keep)
    exec(compile(code, name, "exec", dont_inherit=True), main)  # noqa: S102 - what the box is for


def main() -> None:
    """Serve one order."""
    link = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(link.fileno(), False)  # noqa: FBT003
    link.sendall(b"ready")
    order = _receive(link)
    try:
        word, listener = _close_doors(order)
        os.environ.clear()
        os.environ.update(order["env"])  # type: ignore[arg-type]
        os.chdir(str(order["chdir"]))
    except (OSError, ValueError) as error:
        link.sendall(f"failed {error}".encode())
        os._exit(SETUP_FAILED)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", listener))]
    link.sendmsg([word], rights if listener else [])
    for fd in listener:
        os.close(fd)
    if link.recv(16) != b"start":
        os._exit(SETUP_FAILED)
    argv: list[str] = order["argv"]  # type: ignore[assignment]
    code = order["code"]
    chdir = str(order["chdir"])
    link.close()
    if order["bare"]:
        _stay_behind()
    if code is not None:
        _run_code(str(code), argv, chdir)
        return
    try:
        os.execvpe(argv[0], argv, dict(os.environ))  # noqa: S606
    except (OSError, ValueError) as error:  # ValueError: an empty name, a null byte
        why = error.strerror if isinstance(error, OSError) else error
        sys.stderr.write(f"{argv[0]}: {why}\n")
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
