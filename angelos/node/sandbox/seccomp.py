"""System call filters: a small table of names and numbers turned into BPF (seccomp(2)).

A box has two filters. Bubblewrap loads the *base* filter, which passes the calls of the table
(`data/seccomp.json`, moby's list and what is refused beside it). Calls that it does not name fail
with EPERM; `clone3`, which every thread tries first, and calls newer than the table fail with
ENOSYS, upon which programs fall back to older ones; a foreign ABI (32 bit, x32), whose numbers mean
other calls, kills the process.

The shim installs the *notify* filter before a line of the program runs: the node refuses sockets
other than AF_UNIX, the group `refuse`, and the group `checked` by its arguments, and so has the
kernel's own evidence of each attempt. The base filter passes these calls, because in the kernel an
ERRNO outranks a notification. Where the kernel gives no listener, the *refuse* filter replaces the
notify filter.

Filters see arguments only as numbers: they cannot read memory that an argument points to. So
`clone3`, whose flags are in memory, cannot be filtered and is refused as a whole.

    >>> len(base_filter("x86_64")) % 8
    0
"""

from __future__ import annotations

import errno
import json
import socket
import struct
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, Literal

# AUDIT_ARCH_*, SECCOMP_RET_*, BPF instruction codes, and offsets in struct seccomp_data.
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOW, _KILL, _ERRNO, _NOTIFY = 0x7FFF0000, 0x80000000, 0x00050000, 0x7FC00000
_LOAD, _AND, _RETURN, _JUMP_EQ, _JUMP_GT, _JUMP_GE = 0x20, 0x54, 0x06, 0x15, 0x25, 0x35
_NR, _ARCH_OFFSET, _ARG0, _ARG1, _ARG2 = 0, 4, 16, 24, 32
_X32_BIT = 0x40000000
_NAMESPACES = 0x7E020000
"""CLONE_NEW* flags but CLONE_NEWTIME, which clone(2) cannot pass."""
_PERSONALITIES = (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_TTY_INJECTION = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX."""
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_AF_NETLINK = 16
_FILE_KIND = 0o170000
_MADE_KINDS = (0, 0o010000, 0o100000)
"""mknod(2) makes plain files and named pipes, and no devices."""
_PROTOCOLS = (0, 6, 17)
"""The family's default, TCP and UDP: others would have the kernel load rarely used modules."""
_SET_ID = 0o6000
_CREATES = 0o100 | 0o20000000
"""O_CREAT and __O_TMPFILE: without them open(2) has no mode, and its argument may be anything."""
_HOST_MEMORY = ("memfd_create", "shmget", "msgget", "semget", "mq_open")
"""Memory that no process maps: without a cgroup nothing could count it."""
_ENLARGING = (("setsockopt", ((_ARG1, 1), (_ARG2, 7))), ("fcntl", ((_ARG1, 1031),)))
"""SO_SNDBUF and F_SETPIPE_SZ: without a cgroup sockets and pipes keep the size that is counted."""

_NO_RANDOM_ADDRESSES = 0x40000
_NAMESPACE_NAMES = {
    0x20000: "CLONE_NEWNS",
    0x2000000: "CLONE_NEWCGROUP",
    0x4000000: "CLONE_NEWUTS",
    0x8000000: "CLONE_NEWIPC",
    0x10000000: "CLONE_NEWUSER",
    0x20000000: "CLONE_NEWPID",
    0x40000000: "CLONE_NEWNET",
}
_WORD = 0xFFFFFFFF

Instruction = tuple[int, int, int, int]


def supported(machine: str) -> bool:
    """Return whether there is a table for this machine (`platform.machine()`)."""
    return machine in _ARCH


@cache
def table(machine: str) -> dict[str, dict[str, int]]:
    """Return group -> name -> number for `machine`."""
    text = resources.files("angelos.node.sandbox").joinpath("data/seccomp.json").read_text()
    data: dict[str, Any] = json.loads(text)
    return data[machine]


def name_of(machine: str, number: int) -> str:
    """Return a call's name, or `#number` for a call that the table does not have."""
    groups = table(machine).values()
    return next((n for group in groups for n, nr in group.items() if nr == number), f"#{number}")


@cache
def base_filter(machine: str, *, counted: bool = True) -> bytes:
    """Return the base filter; `counted`: a control group counts all memory of the box."""
    groups = table(machine)
    allowed = dict(groups["allow"])
    if not counted:
        for name in _HOST_MEMORY:
            allowed.pop(name, None)
    code = _prologue(machine)
    for number in groups["missing"].values():
        code += _when(number, [_fail(errno.ENOSYS)])
    passed = [*allowed.values(), *groups["refuse"].values(), *groups["checked"].values()]
    for low, high in _ranges(passed):
        code += [(_JUMP_GE, 0, 2, low), (_JUMP_GT, 1, 0, high), _allow()]
    newest = max(number for group in groups.values() for number in group.values())
    code += [(_JUMP_GT, 0, 1, newest), _fail(errno.ENOSYS), _fail(errno.EPERM)]
    return _assemble(code)


@cache
def watch_filter(
    machine: str,
    *,
    action: Literal["notify", "refuse"],
    forks: bool = False,
    inet: bool = False,
    keeps_files: bool = False,
) -> bytes:
    """Return the filter of the calls that are refused and, with `notify`, reported.

    Args:
        machine: As `platform.machine()` names it.
        action: Whether refused calls are reported.
        forks: Ask the node for each new process and thread: without a control group nothing else
            could report that one was refused; sockets and pipes keep their size, which is counted.
        inet: Allow TCP and UDP, in a network namespace with nothing but a loopback; programs
            ask for its addresses so often that netlink is refused without a report.
        keeps_files: What it writes stays on the host: no file gets a set-user-ID or set-group-ID
            bit, with which another user of the host would run it in the box's name.
    """
    groups = table(machine)
    verdict = _give(_NOTIFY) if action == "notify" else _fail(errno.EPERM)
    code = _prologue(machine)
    for name, number in groups["refuse"].items():
        answer = verdict if action == "notify" else _fail(refusal_errno(name, 0))
        code += [(_JUMP_EQ, 0, 1, number), answer]
    for name, arguments in _ENLARGING if forks else ():
        code += _when(groups["allow"][name], _unless(arguments))
    if forks and action == "notify":
        for number in fork_calls(machine):
            code += [(_JUMP_EQ, 0, 1, number), verdict]
    code += _checked_calls(groups["checked"], verdict, keeps_files=keeps_files)
    netlink = _fail(refusal_errno("socket", _AF_NETLINK))
    if action == "notify" and not inet:
        netlink = verdict
    families = [(_JUMP_EQ, 0, 1, _AF_UNIX), _allow(), (_JUMP_EQ, 0, 1, _AF_NETLINK), netlink]
    sockets = [_load(_ARG0), *families, *(_internet() if inet else ()), verdict]
    if keeps_files:
        code += _no_set_id({**groups["allow"], **groups["checked"]})
    return _assemble([*code, *_when(groups["checked"]["socket"], sockets), _allow()])


def _internet() -> list[Instruction]:
    """Allow TCP and UDP; go on with the family loaded for any other family."""
    protocols = [_load(_argument(2)), *_only(list(_PROTOCOLS))]
    skip = len(protocols)
    return [(_JUMP_EQ, 1, 0, _AF_INET), (_JUMP_EQ, 0, skip, _AF_INET6), *protocols]


def _checked_calls(
    checked: dict[str, int], verdict: Instruction, *, keeps_files: bool
) -> list[Instruction]:
    """Refuse the calls whose arguments decide."""
    code: list[Instruction] = []
    no_namespace = [_load(_ARG0), (_AND, 0, 0, _NAMESPACES), *_only([0], verdict)]
    code += _when(checked["clone"], no_namespace)
    code += _when(checked["personality"], [_load(_ARG0), *_only(list(_PERSONALITIES), verdict)])
    code += _when(checked["socketpair"], [_load(_ARG0), *_only([_AF_UNIX], verdict)])
    mask = _FILE_KIND | (_SET_ID if keeps_files else 0)
    for name, argument in (("mknod", _ARG1), ("mknodat", _ARG2)):
        if name in checked:
            kinds = [_load(argument), (_AND, 0, 0, mask), *_only(list(_MADE_KINDS), verdict)]
            code += _when(checked[name], kinds)
    injection = [i for value in _TTY_INJECTION for i in ((_JUMP_EQ, 0, 1, value), verdict)]
    return [*code, *_when(checked["ioctl"], [_load(_ARG1), *injection, _allow()])]


def _no_set_id(calls: dict[str, int]) -> list[Instruction]:
    """Refuse each way to set a set-user-ID or set-group-ID bit (systemd.exec(5), RestrictSUIDSGID).

    openat2 has its mode in memory, which no filter can read; programs fall back to openat.
    """
    code: list[Instruction] = []
    plain = [(_AND, 0, 0, _SET_ID), *_only([0])]
    modes = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "creat": 1}
    for name, mode in modes.items():
        if name in calls:
            code += _when(calls[name], [_load(_argument(mode)), *plain])
    for name, options in (("open", 1), ("openat", 2)):
        if name in calls:
            creates = [(_AND, 0, 0, _CREATES), (_JUMP_EQ, 0, 1, 0), _allow()]
            block = [_load(_argument(options)), *creates, _load(_argument(options + 1)), *plain]
            code += _when(calls[name], block)
    return [*code, *_when(calls["openat2"], [_fail(errno.ENOSYS)])]


@cache
def fork_calls(machine: str) -> frozenset[int]:
    """Return the numbers of the calls that start a process or thread."""
    groups = table(machine)
    calls = {**groups["allow"], **groups["checked"]}
    return frozenset(calls[name] for name in ("clone", "fork", "vfork") if name in calls)


def refusal_errno(call: str, family: int) -> int:
    """Return the error with which a call is refused.

    EPERM, except for netlink: ZeroMQ asks for the machine's addresses even where it uses only Unix
    sockets, and aborts its process (any Jupyter kernel) unless netlink is "not supported"; and
    except for io_uring, which programs do without where the kernel has none.
    """
    if call.startswith("io_uring_"):
        return errno.ENOSYS
    return errno.EOPNOTSUPP if call == "socket" and family == _AF_NETLINK else errno.EPERM


def starts_process(machine: str, number: int, first_argument: int) -> bool:
    """Return whether a call starts a process or thread, and none in a namespace of its own."""
    return number in fork_calls(machine) and not (
        name_of(machine, number) == "clone" and first_argument & _NAMESPACES
    )


def argument_class(call: str, arguments: Sequence[int]) -> str:
    """Return which kind of a call it was, by its arguments: one of a few words, or empty.

    >>> argument_class("socket", (2, 1, 0)), argument_class("unshare", (0x10020000, 0))
    ('AF_INET', 'CLONE_NEWNS|CLONE_NEWUSER')
    """
    match call:
        case "socket" | "socketpair":
            return _family(arguments[0])
        case "clone" | "unshare":
            names = [name for bit, name in _NAMESPACE_NAMES.items() if arguments[0] & bit]
            return "|".join(names)
        case "personality":
            return "ADDR_NO_RANDOMIZE" if arguments[0] & _NO_RANDOM_ADDRESSES else "other"
        case "mknod" | "mknodat":
            mode = arguments[1 if call == "mknod" else 2]
            kinds = {0o020000: "character device", 0o060000: "block device"}
            return kinds.get(mode & _FILE_KIND, "other")
        case "ioctl":
            return {0x5412: "TIOCSTI", 0x541C: "TIOCLINUX"}.get(arguments[1] & _WORD, "other")
        case _:
            return ""


def _family(number: int) -> str:
    try:
        return socket.AddressFamily(number & _WORD).name
    except ValueError:
        return "other"


def _prologue(machine: str) -> list[Instruction]:
    return [
        _load(_ARCH_OFFSET),
        (_JUMP_EQ, 1, 0, _ARCH[machine]),
        _give(_KILL),
        _load(_NR),
        (_JUMP_GE, 0, 1, _X32_BIT),
        _give(_KILL),
    ]


def _when(number: int, block: list[Instruction]) -> list[Instruction]:
    """Run `block`, which must end in a verdict, for one call (BPF only jumps forward)."""
    return [(_JUMP_EQ, 0, len(block), number), *block]


def _only(values: list[int], verdict: Instruction | None = None) -> list[Instruction]:
    """Allow if the loaded word is one of `values`; otherwise give `verdict`, by default EPERM."""
    allow = [i for v in values for i in ((_JUMP_EQ, 0, 1, v), _allow())]
    return [*allow, verdict or _fail(errno.EPERM)]


def _unless(arguments: tuple[tuple[int, int], ...]) -> list[Instruction]:
    """Refuse a call with EPERM if all its arguments are these, allow it otherwise."""
    code: list[Instruction] = [_fail(errno.EPERM)]
    for offset, value in reversed(arguments):
        code = [_load(offset), (_JUMP_EQ, 0, len(code), value), *code]
    return [*code, _allow()]


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if out and out[-1][1] == number - 1:
            out[-1] = (out[-1][0], number)
        else:
            out.append((number, number))
    return out


def _argument(index: int) -> int:
    """Return the offset of the lower half of an argument."""
    return _ARG0 + 8 * index


def _load(offset: int) -> Instruction:
    return (_LOAD, 0, 0, offset)


def _give(verdict: int) -> Instruction:
    return (_RETURN, 0, 0, verdict)


def _allow() -> Instruction:
    return _give(_ALLOW)


def _fail(code: int) -> Instruction:
    return _give(_ERRNO | code)


def _assemble(code: list[Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
