"""The filters, run through a small BPF machine instead of the kernel."""

from __future__ import annotations

import errno
import struct

import pytest

from angelos.node.sandbox.seccomp import (
    base_filter,
    fork_calls,
    supported,
    table,
    watch_filter,
)

ALLOW, KILL, NOTIFY, ERRNO = 0x7FFF0000, 0x80000000, 0x7FC00000, 0x00050000
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def verdict(program: bytes, arch: int, number: int, *args: int) -> int:
    """Return what the filter says of a call (the subset of BPF that is used)."""
    data = struct.pack("=iIQ6Q", number, arch, 0, *(*args, *([0] * (6 - len(args)))))
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at, accumulator = 0, 0
    while True:
        op, yes, no, k = code[at]
        at += 1
        match op:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, k)[0]
            case 0x54:
                accumulator &= k
            case 0x06:
                return k
            case 0x15 | 0x25 | 0x35:
                test = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[op]
                at += yes if test else no
            case _:
                raise AssertionError(op)


@pytest.fixture(params=ARCHES)
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_call_gets_the_groups_verdict(machine: str) -> None:
    groups, program, arch = table(machine), base_filter(machine), ARCHES[machine]
    for number in groups["allow"].values():
        assert verdict(program, arch, number) == ALLOW
    for number in groups["missing"].values():
        assert verdict(program, arch, number) == ERRNO | errno.ENOSYS
    names = {number for group in groups.values() for number in group.values()}
    for number in set(range(max(names))) - names:
        assert verdict(program, arch, number) == ERRNO | errno.EPERM
    assert verdict(program, arch, 5000) == ERRNO | errno.ENOSYS


def test_arguments_decide_about_checked_calls(machine: str) -> None:
    program, arch, checked = base_filter(machine), ARCHES[machine], table(machine)["checked"]
    refuse = ERRNO | errno.EPERM
    assert verdict(program, arch, checked["clone"], 0x00000011) == ALLOW
    assert verdict(program, arch, checked["clone"], 0x10000011) == refuse
    assert verdict(program, arch, checked["ioctl"], 0, 0x5401) == ALLOW
    assert verdict(program, arch, checked["ioctl"], 0, 0x5412) == refuse
    assert verdict(program, arch, checked["ioctl"], 0, 0x1_0000_5412) == refuse
    assert verdict(program, arch, checked["personality"], 0x40000) == refuse
    assert verdict(program, arch, checked["socketpair"], 1) == ALLOW
    assert verdict(program, arch, checked["socketpair"], 2) == refuse


def test_a_foreign_abi_kills(machine: str) -> None:
    assert verdict(base_filter(machine), 0x40000003, 1) == KILL
    assert verdict(base_filter(machine), ARCHES[machine], 0x40000001) == KILL


def test_refused_calls_and_forks_are_reported(machine: str) -> None:
    arch, groups = ARCHES[machine], table(machine)
    sees, refuses = (watch_filter(machine, action=a) for a in ("notify", "refuse"))
    socket = groups["checked"]["socket"]
    for number in groups["refuse"].values():
        assert verdict(sees, arch, number) == NOTIFY
        assert verdict(refuses, arch, number) == ERRNO | errno.EPERM
        assert verdict(base_filter(machine), arch, number) == ALLOW, "ERRNO outranks NOTIFY"
    assert verdict(sees, arch, socket, 1) == verdict(refuses, arch, socket, 1) == ALLOW
    assert verdict(sees, arch, socket, 2) == verdict(sees, arch, socket, 16) == NOTIFY
    assert verdict(refuses, arch, socket, 40) == ERRNO | errno.EPERM
    assert verdict(refuses, arch, socket, 16) == ERRNO | errno.EOPNOTSUPP
    for number in fork_calls(machine):
        assert verdict(sees, arch, number) == ALLOW
        assert verdict(watch_filter(machine, action="notify", forks=True), arch, number) == NOTIFY


def test_memory_that_nothing_counts_cannot_be_allocated(machine: str) -> None:
    number = table(machine)["allow"]["memfd_create"]
    assert verdict(base_filter(machine, counted=False), ARCHES[machine], number) != ALLOW


def test_unknown_machines_have_no_table() -> None:
    assert not supported("riscv64")
