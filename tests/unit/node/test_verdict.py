"""The status that an ending deserves, decided without any box."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from angelos.core.messages import Limits, Status
from angelos.core.runs import EvidenceSource
from angelos.node.sandbox.models import Ending, Refusal, Usage
from angelos.node.sandbox.verdict import MAX_PROBES, MAX_REFUSALS, MIB, judge, must_stop

KERNEL = Usage(source=EvidenceSource.kernel, cpu_s=0.1)
LIMITS = Limits(wall_s=2, cpu_s=1, memory_mb=64, pids=8, output_bytes=100)
SOCKET = Refusal("socket", "AF_INET", 1)


def ending(**changes: object) -> Ending:
    end = Ending(exit_code=0, duration_s=0.1, usage=KERNEL)
    return dataclasses.replace(end, **changes)  # type: ignore[arg-type]


def word(**changes: object) -> Status:
    return judge(ending(**changes), LIMITS)[0]


def test_exit_code_137_proves_nothing() -> None:
    assert word(exit_code=137) is Status.error
    assert word(exit_code=137, usage=Usage(source=EvidenceSource.kernel, oom_kills=1)) is Status.oom
    assert word(exit_code=None, stop=Status.killed) is Status.killed


def test_a_counter_counts_even_if_the_program_coped() -> None:
    assert word(exit_code=0, usage=Usage(source=EvidenceSource.kernel, oom_kills=1)) is Status.oom
    assert (
        word(exit_code=0, usage=Usage(source=EvidenceSource.kernel, pids_refused=3)) is Status.pids
    )


def test_memory_counts_also_where_the_program_ended_before_the_sampler_looked() -> None:
    for code in (0, 1):
        used = Usage(source=EvidenceSource.sampler, memory_bytes=64 * MIB + 1)
        assert word(exit_code=code, usage=used) is Status.oom
        used = dataclasses.replace(used, memory_bytes=64 * MIB)
        assert word(exit_code=code, usage=used) is (Status.error if code else Status.ok)


def test_the_kernels_counters_come_before_the_clock() -> None:
    assert (
        word(stop=Status.timeout, usage=Usage(source=EvidenceSource.kernel, oom_kills=1))
        is Status.oom
    )


def test_a_refused_socket_is_named_and_proves_no_failure() -> None:
    for family in ("AF_INET", "AF_INET6", "AF_NETLINK"):
        probe = Refusal("socket", family, 1, cpu_s=KERNEL.cpu_s)
        status, evidence = judge(ending(exit_code=1, refusals=(probe,)), LIMITS)
        assert (status, evidence["source"]) == (Status.error, "exit")
        assert evidence["refused"] == [{"call": "socket", "argument": family, "count": 1}]
        assert family in evidence["hint"]
    assert word(exit_code=0, refusals=(SOCKET,)) is Status.ok
    strange = Refusal("socket", "AF_ALG", 1, cpu_s=KERNEL.cpu_s)
    assert word(exit_code=1, refusals=(strange,)) is Status.denied


def test_an_attack_is_denied_where_the_program_fails_right_after_it() -> None:
    soon, later = (Usage(source=EvidenceSource.kernel, cpu_s=s) for s in (1.1, 9.0))
    attack = Refusal("ptrace", "", 1, cpu_s=1.0)
    assert word(exit_code=3, refusals=(attack,), usage=soon) is Status.denied
    status, evidence = judge(ending(exit_code=3, refusals=(attack,), usage=later), LIMITS)
    assert status is Status.error
    assert evidence["refused"] == [{"call": "ptrace", "count": 1}]


def test_what_runtimes_probe_weighs_nothing() -> None:
    for call in ("io_uring_setup", "mbind", "personality"):
        assert word(exit_code=1, refusals=(Refusal(call, "", 9),)) is Status.error


def test_a_signal_is_named_by_the_kernel_or_not_claimed() -> None:
    status, evidence = judge(ending(exit_code=139, signal=11), LIMITS)
    assert (status, evidence["signal"]) == (Status.error, "SIGSEGV")
    assert "Segmentation fault" in evidence["reason"]
    _, evidence = judge(ending(exit_code=139, signal=0), LIMITS)
    assert "signal" not in evidence
    assert "reason" not in evidence
    _, evidence = judge(ending(exit_code=139), LIMITS)
    assert "signal" not in evidence
    assert evidence["reason"].startswith("exit code 139")
    assert word(exit_code=159, signal=31) is Status.denied
    assert word(exit_code=159, signal=0) is word(exit_code=159) is Status.error


@given(st.integers(min_value=-1, max_value=255), st.integers(min_value=0, max_value=64))
def test_every_exit_has_a_word(code: int, number: int) -> None:
    assert word(exit_code=code, signal=number) in Status


def test_when_to_stop() -> None:
    def stop(elapsed: float = 0.1, refused: int = 0, **used: object) -> Status | None:
        source = used.pop("source", EvidenceSource.kernel)
        return must_stop(Usage(source=source, **used), LIMITS, elapsed, refused)  # type: ignore[arg-type]

    assert stop() is None
    assert stop(elapsed=2.0) is Status.timeout
    assert stop(cpu_s=1.0) is Status.cpu
    assert stop(oom_kills=1) is Status.oom
    assert stop(pids_refused=1) is Status.pids
    assert stop(refused=MAX_REFUSALS) is Status.denied
    assert must_stop(KERNEL, LIMITS, 0.1, 0, MAX_PROBES) is Status.denied
    assert stop(source=EvidenceSource.sampler, memory_bytes=65 * MIB) is Status.oom
    assert stop(source=EvidenceSource.sampler, tasks=9) is Status.pids
    assert stop(memory_bytes=65 * MIB) is None, "the kernel sees to its own limit"
