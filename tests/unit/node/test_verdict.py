"""The status that an ending deserves, decided without any box."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from angelos.core.messages import Limits, Status, Tier
from angelos.core.runs import EvidenceSource
from angelos.node.sandbox.models import Ending, Refusal, Usage
from angelos.node.sandbox.tracebacks import OsError, os_error
from angelos.node.sandbox.verdict import MAX_REFUSALS, MIB, judge, must_stop, outside_path

KERNEL = Usage(source=EvidenceSource.kernel, cpu_s=0.1)
VISIBLE = ("/dev", "/proc", "/tmp", "/usr", "/work")
LIMITS = Limits(wall_s=2, cpu_s=1, memory_mb=64, pids=8, output_bytes=100)
SOCKET = Refusal("socket", "AF_INET", 1)


def ending(**changes: object) -> Ending:
    end = Ending(exit_code=0, duration_s=0.1, tier=Tier.full, usage=KERNEL, visible=VISIBLE)
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


def test_the_kernels_counters_come_before_the_clock() -> None:
    assert (
        word(stop=Status.timeout, usage=Usage(source=EvidenceSource.kernel, oom_kills=1))
        is Status.oom
    )


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


def test_the_words_of_a_program_are_not_read() -> None:
    spoken = "ping: socket: Operation not permitted"
    assert word(exit_code=2, refusals=(SOCKET,), stderr_tail=spoken) is Status.error


def test_a_path_outside_the_box_is_told_from_one_inside() -> None:
    missing = "FileNotFoundError: [Errno 2] No such file or directory: {!r}\n"
    closed = "x\nPermissionError: [Errno 13] Permission denied: {!r}"

    def outside(form: str, path: str) -> str:
        return outside_path(os_error(form.format(path)), VISIBLE)

    assert outside(missing, "/etc/shadow") == "/etc/shadow"
    assert outside(missing, "/usr/lib/none") == ""
    assert outside(missing, "/tmp/none") == ""
    assert outside(missing, "relative") == ""
    assert outside(closed, "/work/secret") == "/work/secret"
    assert outside(closed, "/tmp/own") == ""
    assert outside_path(None, VISIBLE) == ""


def test_the_number_of_an_error_is_read_wherever_the_last_line_has_it() -> None:
    wrapped = "urllib.error.URLError: <urlopen error [Errno 1] Operation not permitted>\n"
    assert os_error(wrapped) == OsError(1)
    assert os_error("[Errno 1] earlier\nValueError: 3") is None


@given(st.text(max_size=300))
def test_no_text_upsets_it(text: str) -> None:
    assert isinstance(outside_path(os_error(text), VISIBLE), str)


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
    assert stop(source=EvidenceSource.sampler, memory_bytes=65 * MIB) is Status.oom
    assert stop(source=EvidenceSource.sampler, tasks=9) is Status.pids
    assert stop(memory_bytes=65 * MIB) is None, "the kernel sees to its own limit"
