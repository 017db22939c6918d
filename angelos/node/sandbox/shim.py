"""The first program inside a box: restricts itself, then becomes the task.

It is started by bubblewrap (or alone, where there are no user namespaces) as
`python -I shim.py FD`, where FD is a Unix socket to the node. It replies `ready`, is told its
rules, installs the Landlock rules and the second seccomp filter and replies `sealed`. Then it waits
for one request, for which it sets resource limits, and either executes the requested program in its
place or, for Python code, runs that code in this very interpreter. A box that is started ahead
waits sealed. One box serves one request.

It uses only the standard library: nothing of AngelOS is inside the box. It imports little, since a
cold start waits for that. If anything fails here, the box ends before the task has run a line (exit
code 120; before it is sealed also the reply `failed`).

    node                                     shim
     | <------ {"code": "ready"} ------------ |   SCM_CREDENTIALS: the kernel names the process
     | ------- length + BoxRules -----------> |   marshalled, see box.py
     | <- {"code": "sealed" | "unreported"} - |   SCM_RIGHTS: descriptors for the node
     | ------- length + ExecRequest --------> |   SCM_RIGHTS: the report channel, if any

Replies are JSON with a code of `Reply`, for `failed` a text for people, and what each descriptor
is that came with it: the listener of seccomp, the box's file systems in memory, both sides of a
terminal, and the socket by which programs ask for the network.
"""

from __future__ import annotations

import _socket
import ctypes
import io
import linecache
import marshal
import os
import resource
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these would make every box start later
    from collections.abc import Sequence
    from types import TracebackType
    from typing import TypedDict

    class _Rules(TypedDict):
        names: list[str]
        linkless: list[str]
        read: list[str]
        write: list[str]
        tcp: bool

    class _BoxRules(TypedDict):
        landlock: _Rules | None
        notify_filter: bytes
        refuse_filter: bytes
        base_filter: bytes
        unsandboxed: bool
        terminal: list[int] | None
        writable: str
        links: list[str] | None
        broker: bool

    class _Request(TypedDict):
        argv: list[str]
        code: str | None
        env: dict[str, str]
        chdir: str
        rlimits: dict[str, int]
        packages: str


READY, SEALED, UNREPORTED, FAILED = "ready", "sealed", "unreported", "failed"
SETUP_FAILED = 120
PROXY_PORT = 3128
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER = 1, 38, 36
_NEW_LISTENER = 1 << 3
_SIGKILL = 9
_READ = 1 | 4 | 8  # execute, read file, read dir (linux/landlock.h)
_LIST = 8
_MAKE_LINK = 1 << 12
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
    return _syscall(_SECCOMP[os.uname().machine], 1, flags, ctypes.byref(prog))


def _landlock(paths: _Rules) -> None:
    """Restrict this process to the given paths; no signals to processes outside, no TCP.

    `read` and `write` are what they say; `names` may be listed; in `linkless` folders it may write,
    but make no symbolic link: somebody outside follows paths there.
    With `tcp` the network namespace alone stands between the process and the network.
    A kernel refuses rights that it does not know, so only those of its own version (ABI 1-7) are
    named (docs.kernel.org/userspace-api/landlock.html). Landlock is a second layer inside the
    namespaces, and the only one for files where there are none.
    """
    abi = _syscall(_LANDLOCK_CREATE, 0, 0, 1)
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    ports, scope = (3 if abi >= 4 and not paths["tcp"] else 0), (3 if abi >= 6 else 0)  # noqa: PLR2004
    attr = struct.pack("QQQ", rights, ports, scope)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8  # noqa: PLR2004
    ruleset = _syscall(_LANDLOCK_CREATE, ctypes.c_char_p(attr), size, 0)
    grants = (
        (paths["names"], _LIST),
        (paths["read"], _READ),
        (paths["write"], rights),
        (paths["linkless"], rights & ~_MAKE_LINK),
    )
    for folders, granted in grants:
        for path in folders:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            allowed = granted if os.path.isdir(path) else granted & _FILE_RIGHTS  # noqa: PTH112
            rule = struct.pack("=Qi", allowed & rights, fd)
            _syscall(_LANDLOCK_ADD, ruleset, 1, ctypes.c_char_p(rule), 0)
            os.close(fd)
    _syscall(_LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (limit, limit))


def _receive(link: _socket.socket) -> tuple[dict[str, object], list[int]]:
    """Read one message with its descriptors: eight bytes of length, and as many marshalled.

    End if the node hangs up.
    """
    head, ancillary, _, _ = link.recvmsg(8, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    while 0 < len(head) < 8:  # noqa: PLR2004
        head += link.recv(8 - len(head))
    if not head:
        os._exit(0)
    fds: list[int] = []
    for level, kind, content in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            fds += struct.unpack(f"{len(content) // 4}i", content[: len(content) // 4 * 4])
    body = bytearray()
    size = int.from_bytes(head, "big")
    while len(body) < size:
        piece = link.recv(min(size - len(body), 1 << 20))
        if not piece:
            os._exit(0)
        body += piece
    return marshal.loads(body), fds  # noqa: S302 - the node's own words


def _reply(code: str, detail: str = "", fds: Sequence[str] = ()) -> bytes:
    if detail:
        import json

        detail = json.dumps(detail)
    quotes = '""'
    names = ",".join(f'"{name}"' for name in fds)
    return f'{{"code":"{code}","detail":{detail or quotes},"fds":[{names}]}}'.encode()


def _open_terminal(rows: int, columns: int) -> tuple[int, int]:
    """Make a terminal of the box's own the controlling one; return both sides of it."""
    import fcntl
    import termios

    controller, program = os.openpty()
    termios.tcsetwinsize(program, (rows, columns))
    try:  # noqa: SIM105 - contextlib is not imported here
        os.setsid()
    except PermissionError:  # it leads a session already
        pass
    fcntl.ioctl(program, termios.TIOCSCTTY, 0)
    return controller, program


def _folders(rules: _BoxRules) -> dict[str, int]:
    """Return descriptors of the folders whose contents the node counts or collects."""
    if rules["unsandboxed"]:
        return {}
    paths = {"tmp": "/tmp", "shm": "/dev/shm", "writable": rules["writable"]}  # noqa: S108
    return {
        name: os.open(path, os.O_RDONLY | os.O_DIRECTORY) for name, path in paths.items() if path
    }


def _listen() -> int:
    """Return a socket that listens on the box's loopback; the node accepts from it."""
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", PROXY_PORT))
    listener.listen(64)
    return listener.detach()


def _link_inputs(folders: list[str] | None) -> None:
    """Let a program open its inputs by their names where it starts, and import from them."""
    if folders is None:
        return
    folder, into = folders
    for name in os.listdir(folder):  # noqa: PTH208
        os.symlink(f"{folder}/{name}", f"{into}/{name}")  # noqa: PTH211
    sys.path.append(folder)


def _seal(rules: _BoxRules) -> tuple[str, list[int]]:
    """Install Landlock and the filters; return the reply and the listener to pass on.

    The order matters: /proc can be written only before Landlock is in force, and both Landlock and
    seccomp need NO_NEW_PRIVS. None of it can be taken back, by this process or by the task.
    """
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write("1000")  # if the whole machine runs out of memory, the box is killed first
    except OSError:
        pass
    # An unprivileged process may restrict itself only if it can never gain privileges by executing
    # a set-user-ID program (seccomp(2), landlock_restrict_self(2)).
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    landlock = rules["landlock"]
    if landlock is not None:
        _landlock(landlock)
    if rules["base_filter"]:
        _seccomp(rules["base_filter"], 0)
    try:
        return SEALED, [_seccomp(rules["notify_filter"], _NEW_LISTENER)]
    except OSError:
        # A process has one listener at most, and a container may have set its own before
        # (seccomp(2), EBUSY): then refuse the same calls without reporting them.
        _seccomp(rules["refuse_filter"], 0)
        return UNREPORTED, []


def _show(
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    this_file: str = __file__,
) -> None:
    """Print an uncaught exception with the code's own lines and without this file's frames.

    It uses no global name of this module: `_run_code` has removed them all.
    """
    import traceback

    path = getattr(error, "filename", None)
    if isinstance(error, OSError) and isinstance(path, str) and path.startswith("/"):
        error.add_note(f"hint: this runs in a box, which shows little of the host; {path} is not"
                       " there, or is not to be changed: only /tmp can be written")  # fmt: skip
    elif isinstance(error, ModuleNotFoundError):
        error.add_note("hint: this runs in a box, which has the packages of its node and no more")
    while trace is not None and trace.tb_frame.f_code.co_filename == this_file:
        trace = trace.tb_next
    traceback.print_exception(kind, error, trace)


def _stay_behind() -> None:
    """Go on as a child whose orphans come to this process, which ends when the child does.

    Replaces the process namespace: a child subreaper (prctl(2)) keeps whatever the task starts
    below one process, so that the node can find all of it, and kills all of it when the task
    itself, or the node, has ended.
    """
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = os.fork()
    if child == 0:
        return
    import signal

    signal.signal(signal.SIGTERM, lambda *_: _kill_children())
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # when the node is killed
    for fd in (0, 1, 2):
        os.close(fd)
    pid, code = 0, 0
    while pid != child:
        pid, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
    try:
        while True:  # the children of a killed process become ours, to be killed in turn
            _kill_children()
            os.wait()
    except ChildProcessError:
        pass
    os._exit(code if code >= 0 else 128 - code)


def _kill_children() -> None:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123
        for child in file.read().split():
            os.kill(int(child), _SIGKILL)


class _LiveText(io.TextIOWrapper):
    """Standard output that is read live: written line by line, and after `print(..., end="")`.

    `print` writes its end apart, so an empty one is what it writes last.
    """

    def write(self, text: str) -> int:
        size = super().write(text)
        if not text:
            self.flush()
        return size


def _save(code: str) -> str:
    """Write the program to a file and return its path: children of `spawn` import it from there."""
    path = f"{os.environ.get('HOME', '/tmp')}/main.py"  # noqa: S108
    try:
        with open(path, "x", encoding="utf-8") as file:  # noqa: PTH123
            file.write(code)
    except (OSError, UnicodeError):
        pass
    return path


def _offer_display(module: str = f"{os.path.dirname(__file__)}/display.py") -> None:  # noqa: PTH120
    """Let code call `display(...)` as in a notebook; what it needs is imported when it does."""
    import builtins

    def display(*objects: object) -> None:
        """Show objects in their richest forms, as a notebook does."""
        from importlib import util
        from sys import modules  # no global name of this module is left by then

        name = "angelos_display"
        if name not in modules:
            spec = util.spec_from_file_location(name, module)
            if spec is None or spec.loader is None:
                return
            loaded = modules[name] = util.module_from_spec(spec)
            spec.loader.exec_module(loaded)
        modules[name].display(*objects)

    builtins.display = display  # type: ignore[attr-defined]


def _run_code(code: str, args: list[str], chdir: str) -> None:
    """Run Python source as `__main__` of this interpreter."""
    name = "<task>"
    code = code.removeprefix("\ufeff")
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    sys.dont_write_bytecode = True
    if chdir != "/tmp":  # noqa: S108 - a checkout is importable, the scratch folder is not
        sys.path.insert(0, chdir)
    sys.excepthook = _show
    main = sys.modules["__main__"].__dict__
    keep = {"__name__": "__main__", "__builtins__": __builtins__, "__doc__": None}
    keep |= {"__file__": _save(code), "__spec__": None}
    sys.argv = [keep["__file__"], *args]
    main.clear()
    main.update(keep)
    exec(compile(code, name, "exec", dont_inherit=True), main)  # noqa: S102 - what the box is for


def main() -> None:
    """Seal the box and serve one request."""
    link = _socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(link.fileno(), False)  # noqa: FBT003
    link.sendall(_reply(READY))
    rules: _BoxRules = _receive(link)[0]  # type: ignore[assignment]
    try:
        fds = _folders(rules)
        if rules["terminal"] is not None:
            fds["terminal"], fds["program side"] = _open_terminal(*rules["terminal"])
        if rules["broker"]:
            fds["proxy"] = _listen()
        _link_inputs(rules["links"])
        code, listener = _seal(rules)
    except (OSError, ValueError) as error:
        link.sendall(_reply(FAILED, str(error)))
        os._exit(SETUP_FAILED)
    if listener:
        fds["listener"] = listener[0]
    rights = struct.pack(f"{len(fds)}i", *fds.values())
    passed = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if fds else []
    link.sendmsg([_reply(code, fds=tuple(fds))], passed)
    if rules["terminal"] is not None:
        for stream in (0, 1, 2):
            os.dup2(fds["program side"], stream)
    for fd in fds.values():
        os.close(fd)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = sys.__stdout__ = _LiveText(sys.stdout.detach(), "utf-8", line_buffering=True)
    _offer_display()
    _serve(link, unsandboxed=rules["unsandboxed"])


def _serve(link: _socket.socket, *, unsandboxed: bool) -> None:
    """Wait for the request and run it."""
    message, report = _receive(link)
    request: _Request = message  # type: ignore[assignment]
    link.close()
    try:
        _limit(request["rlimits"])
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["chdir"])
    except (OSError, ValueError) as error:
        sys.stderr.write(f"The box could not be prepared: {error}\n")
        sys.stderr.flush()
        os._exit(SETUP_FAILED)
    _add_packages(request["packages"])
    _hold_report(report, inherit=request["code"] is None)
    if unsandboxed:
        _stay_behind()
    if request["code"] is not None:
        _run_code(request["code"], request["argv"], request["chdir"])
    else:
        _execute(request["argv"])


def _add_packages(folder: str) -> None:
    """Let code import packages of a folder; they come before those of the interpreter's site."""
    if folder:
        try:  # noqa: SIM105 - contextlib is not imported here
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        except OSError:
            pass  # it is there already, and read-only
        sites = [i for i, path in enumerate(sys.path) if path.endswith("-packages")]
        sys.path.insert(sites[0] if sites else len(sys.path), folder)


def _hold_report(fds: Sequence[int], *, inherit: bool) -> None:
    """Tell the program the number of its report channel.

    Code that runs in this interpreter holds it alone; a program has to inherit it once, so it is
    the program that must not pass it on.
    """
    for fd in fds:
        os.set_inheritable(fd, inherit)
        os.environ["ANGELOS_REPORT_FD"] = str(fd)


def _execute(argv: list[str]) -> None:
    """Become the program; end with a shell's exit codes if it is not there or cannot be run."""
    try:
        os.execvpe(argv[0], argv, dict(os.environ))  # noqa: S606
    except (OSError, ValueError) as error:  # ValueError: an empty name, a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        sys.stderr.write(f"{argv[0]}: {reason}\n")
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
