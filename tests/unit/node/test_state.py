"""The words for endings, decided without any box."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from angelos.core.messages import Limits, Status, Tier
from angelos.node.sandbox.models import Ending, Refusal, Usage
from angelos.node.sandbox.verdict import MAX_REFUSALS, MIB, judge, must_stop, outside_path

KERNEL = Usage(source="kernel", cpu_s=0.1)
INSIDE = ("/dev", "/proc", "/tmp", "/usr", "/work")
LIMITS = Limits(wall_s=2, cpu_s=1, memory_mb=64, pids=8, output_bytes=100)
SOCKET = Refusal("socket", "AF_INET", 1)


def ending(**changes: object) -> Ending:
    end = Ending(exit_code=0, duration_s=0.1, tier=Tier.full, usage=KERNEL, inside=INSIDE)
    return dataclasses.replace(end, **changes)  # type: ignore[arg-type]


def word(**changes: object) -> Status:
    return judge(ending(**changes), LIMITS)[0]


def test_137_says_nothing_by_itself() -> None:
    assert word(exit_code=137) is Status.error
    assert word(exit_code=137, usage=Usage(source="kernel", oom_kills=1)) is Status.oom
    assert word(exit_code=None, stop=Status.killed) is Status.killed


def test_a_counter_counts_even_if_the_program_coped() -> None:
    assert word(exit_code=0, usage=Usage(source="kernel", oom_kills=1)) is Status.oom
    assert word(exit_code=0, usage=Usage(source="kernel", pids_refused=3)) is Status.pids


def test_what_the_kernel_saw_goes_before_the_clock() -> None:
    assert word(stop=Status.timeout, usage=Usage(source="kernel", oom_kills=1)) is Status.oom


def test_a_refused_socket_is_denied_only_if_the_program_fails_for_it() -> None:
    trouble = "Traceback\nPermissionError: [Errno 1] Operation not permitted\n"
    status, evidence = judge(ending(exit_code=1, refusals=(SOCKET,), stderr_tail=trouble), LIMITS)
    assert status is Status.denied
    assert evidence["source"] == "kernel"
    assert evidence["refused"] == [{"call": "socket", "family": "AF_INET", "count": 1}]
    assert word(exit_code=0, refusals=(SOCKET,), stderr_tail=trouble) is Status.ok
    assert word(exit_code=1, refusals=(SOCKET,), stderr_tail="1 test failed") is Status.error


def test_an_attack_is_denied_whatever_it_says() -> None:
    assert word(exit_code=3, refusals=(Refusal("ptrace", "", 1),)) is Status.denied


def test_outside_and_inside() -> None:
    missing = "FileNotFoundError: [Errno 2] No such file or directory: {!r}\n"
    closed = "x\nPermissionError: [Errno 13] Permission denied: {!r}"
    assert outside_path(missing.format("/etc/shadow"), INSIDE) == "/etc/shadow"
    assert outside_path(missing.format("/usr/lib/none"), INSIDE) == ""
    assert outside_path(missing.format("/tmp/none"), INSIDE) == ""
    assert outside_path(missing.format("relative"), INSIDE) == ""
    assert outside_path(closed.format("/work/secret"), INSIDE) == "/work/secret"
    assert outside_path(closed.format("/tmp/mine"), INSIDE) == ""
    assert outside_path("", INSIDE) == ""


@given(st.text(max_size=300))
def test_no_text_upsets_it(text: str) -> None:
    assert isinstance(outside_path(text, INSIDE), str)


def test_when_to_stop() -> None:
    def stop(elapsed: float = 0.1, refused: int = 0, **used: object) -> Status | None:
        source = used.pop("source", "kernel")
        return must_stop(Usage(source=source, **used), LIMITS, elapsed, refused)  # type: ignore[arg-type]

    assert stop() is None
    assert stop(elapsed=2.0) is Status.timeout
    assert stop(cpu_s=1.0) is Status.cpu
    assert stop(oom_kills=1) is Status.oom
    assert stop(pids_refused=1) is Status.pids
    assert stop(refused=MAX_REFUSALS) is Status.denied
    assert stop(source="sampler", memory_bytes=65 * MIB) is Status.oom
    assert stop(source="sampler", tasks=9) is Status.pids
    assert stop(memory_bytes=65 * MIB) is None, "the kernel sees to its own limit"
