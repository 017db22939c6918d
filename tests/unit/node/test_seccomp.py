"""The filters, run through a small BPF machine instead of the kernel."""

from __future__ import annotations

import errno
import struct

import pytest

from angelos.node.sandbox.seccomp import (
    argument_class,
    base_filter,
    fork_calls,
    refusal_errno,
    starts_process,
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
    arch, checked = ARCHES[machine], table(machine)["checked"]
    for number in checked.values():
        assert verdict(base_filter(machine), arch, number) == ALLOW, "ERRNO outranks NOTIFY"
    for action, refuse in (("notify", NOTIFY), ("refuse", ERRNO | errno.EPERM)):
        _decided(watch_filter(machine, action=action), arch, checked, refuse)


def _decided(program: bytes, arch: int, checked: dict[str, int], refuse: int) -> None:
    assert verdict(program, arch, checked["clone"], 0x00000011) == ALLOW
    assert verdict(program, arch, checked["clone"], 0x10000011) == refuse
    assert verdict(program, arch, checked["ioctl"], 0, 0x5401) == ALLOW
    assert verdict(program, arch, checked["ioctl"], 0, 0x5412) == refuse
    assert verdict(program, arch, checked["ioctl"], 0, 0x1_0000_5412) == refuse
    assert verdict(program, arch, checked["personality"], 0x40000) == refuse
    assert verdict(program, arch, checked["socketpair"], 1) == ALLOW
    assert verdict(program, arch, checked["socketpair"], 2) == refuse
    assert verdict(program, arch, checked["mknodat"], 0, 0, 0o010644) == ALLOW
    assert verdict(program, arch, checked["mknodat"], 0, 0, 0o060644) == refuse


def test_files_that_stay_get_no_set_id_bit(machine: str) -> None:
    arch, number = ARCHES[machine], table(machine)["checked"]["mknodat"]
    program = watch_filter(machine, action="refuse", keeps_files=True)
    assert verdict(program, arch, number, 0, 0, 0o100755) == ALLOW
    assert verdict(program, arch, number, 0, 0, 0o104755) == ERRNO | errno.EPERM


def test_a_namespace_is_never_taken_for_a_plain_fork(machine: str) -> None:
    clone = table(machine)["checked"]["clone"]
    assert starts_process(machine, clone, 0x11)
    assert not starts_process(machine, clone, 0x10000011)
    assert argument_class("clone", (0x10000011,)) == "CLONE_NEWUSER"
    assert argument_class("mknod", (0, 0o060644, 0)) == "block device"
    assert argument_class("socket", (0x1_0000_0002, 1, 0)) == "AF_INET"
    assert argument_class("socket", (77_777, 1, 0)) == "other"


def test_a_foreign_abi_kills(machine: str) -> None:
    assert verdict(base_filter(machine), 0x40000003, 1) == KILL
    assert verdict(base_filter(machine), ARCHES[machine], 0x40000001) == KILL


def test_refused_calls_and_forks_are_reported(machine: str) -> None:
    arch, groups = ARCHES[machine], table(machine)
    sees, refuses = (watch_filter(machine, action=a) for a in ("notify", "refuse"))
    socket = groups["checked"]["socket"]
    for name, number in groups["refuse"].items():
        assert verdict(sees, arch, number) == NOTIFY
        assert verdict(refuses, arch, number) == ERRNO | refusal_errno(name, 0)
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
