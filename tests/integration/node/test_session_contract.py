"""What every sandbox with sessions promises (`core.ports.SessionSandbox`).

Each program stands here twice: as the source that a box runs and as the coroutine that
`ScriptedSandbox` runs in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple

import pytest

from angelos.core.errors import Busy, Conflict, InvalidInput, TooLarge, Unavailable
from angelos.core.messages import Limits, Status, Tier
from angelos.core.reports import (
    CaseBegan,
    CaseEnded,
    CaseOutcome,
    CasesCollected,
    ReportProblem,
    RunBegan,
    RunEnded,
    write_event,
)
from angelos.core.run_session import run_session
from angelos.core.runs import Exit, Output, RunSpec
from angelos.core.sessions import (
    MAX_STDIN_PIECE,
    CollectLimits,
    NotCollectedReason,
    SessionSignal,
    SessionSpec,
    TerminalSize,
)
from angelos.node.config import SandboxConfig
from angelos.node.sandbox import seccomp
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.testing import ScriptedSandbox, need

NONCE = "n" * 32
EVENTS = (
    RunBegan(run=NONCE, runner="test 1"),
    CasesCollected(cases=("a",), sentinels=("s",)),
    CaseBegan(case="a", nonce="1" * 32),
    CaseEnded(case="a", nonce="1" * 32, outcome=CaseOutcome.passed),
    CaseBegan(case="s", nonce="2" * 32),
    CaseEnded(case="s", nonce="2" * 32, outcome=CaseOutcome.failed),
    RunEnded(run=NONCE),
)
REPORT = b"".join(map(write_event, EVENTS))


class Program(NamedTuple):
    """One program, as a box and as a script runs it."""

    source: str
    script: object


async def _hello(box):
    await box.write("stdout", b"out\n")
    await box.write("stderr", b"err\n")
    await box.write("stdout", b"\xff\x00\n")
    return 3


HELLO = Program(
    """
import os
os.write(1, b"out\\n"); os.write(2, b"err\\n"); os.write(1, b"\\xff\\x00\\n"); os._exit(3)
""",
    _hello,
)


async def _echo(box):
    while piece := await box.read():
        await box.write("stdout", piece)
    return 0


ECHO = Program(
    """
import os
while piece := os.read(0, 65536):
    os.write(1, piece)
""",
    _echo,
)


async def _forever(box):
    await box.write("stdout", b"ready\n")
    await box.forever()


FOREVER = Program(
    """
import time
print("ready", flush=True)
time.sleep(3600)
""",
    _forever,
)


async def _catch(box):
    box.catches |= {SessionSignal.interrupt, SessionSignal.terminate, SessionSignal.hangup}
    await box.write("stdout", b"ready\n")
    for _ in range(3):
        await box.write("stdout", f"{(await box.next_signal()).value}\n".encode())
    return 7


CATCH = Program(
    """
import queue, signal, sys
names = {signal.SIGINT: "interrupt", signal.SIGTERM: "terminate", signal.SIGHUP: "hangup"}
arrived = queue.SimpleQueue()
for number in names:
    signal.signal(number, lambda number, frame: arrived.put(number))
print("ready", flush=True)
for _ in range(3):
    print(names[arrived.get()], flush=True)
sys.exit(7)
""",
    _catch,
)


async def _flood(box):
    while True:
        await box.write("stdout", b"x" * 1000)


FLOOD = Program(
    """
import os
while True:
    os.write(1, b"x" * 1000)
""",
    _flood,
)


async def _much(box):
    for number in range(8_000):
        await box.write("stdout", b"%08d" % number * 125)
    return 0


MUCH = Program(
    """
import os
for number in range(8_000):
    os.write(1, b"%08d" % number * 125)
""",
    _much,
)


async def _files(box):
    box.files |= {
        "pipe": NotCollectedReason.special, "deep/link": NotCollectedReason.link,
        "deep/er/c.bin": b"\0" * 2000, "deep/b.txt": b"two\n", "a.txt": b"one\n",
    }  # fmt: skip
    return 0


FILES = Program(
    """
import os, pathlib
out = pathlib.Path("/out")
(out / "deep" / "er").mkdir(parents=True)
(out / "a.txt").write_bytes(b"one\\n")
(out / "deep" / "b.txt").write_bytes(b"two\\n")
(out / "deep" / "er" / "c.bin").write_bytes(bytes(2000))
(out / "deep" / "link").symlink_to("/etc/passwd")
os.mkfifo(out / "pipe")
""",
    _files,
)


async def _report(box):
    await box.read()
    for event in EVENTS:
        await box.report(event)
    return 0


REPORTS = Program(
    f"""
import os
os.read(0, 1)
os.write(int(os.environ["ANGELOS_REPORT_FD"]), {REPORT!r})
""",
    _report,
)


async def _cut_report(box):
    await box.report(REPORT[:-30])
    return 0


CUT = Program(
    f"""
import os
os.write(int(os.environ["ANGELOS_REPORT_FD"]), {REPORT[:-30]!r})
""",
    _cut_report,
)


async def _prose(box):
    await box.write("stdout", REPORT)
    return 0


PROSE = Program(f"import os\nos.write(1, {REPORT!r})\n", _prose)


async def _size(box):
    await box.write("stdout", b"ready\r\n")
    await box.read()
    size = box.size
    await box.write("stderr", f"{size.rows} {size.columns}\r\n".encode())
    return 0


SIZE = Program(
    """
import os, sys
print("ready", flush=True)
os.read(0, 1)
size = os.get_terminal_size()
print(size.lines, size.columns, file=sys.stderr, flush=True)
""",
    _size,
)

PROGRAMS = (HELLO, ECHO, FOREVER, CATCH, FLOOD, MUCH, FILES, REPORTS, CUT, PROSE, SIZE)


def spec(program=HELLO, stdin=b"", limits=None, **fields):
    run = RunSpec(argv=(), code=program.source, stdin=stdin, limits=limits or Limits())
    return SessionSpec(run=run, **fields)


@pytest.fixture(params=["scripted", "cgroup", "sampler"])
async def make_sandbox(request):
    """Makes a sandbox in which all programs of this file run; `boxes` at once."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(tier=None, boxes=8):
            if request.param == "scripted":
                scripts = {program.source: program.script for program in PROGRAMS}
                return ScriptedSandbox(scripts, boxes=boxes, tier=tier or Tier.full)
            config = SandboxConfig(
                ready_boxes=0, boxes=boxes, use_cgroups=request.param == "cgroup"
            )
            with pytest.MonkeyPatch.context() as patch:
                if tier is Tier.none:
                    patch.setattr(seccomp, "supported", lambda machine: False)
                sandbox = await stack.enter_async_context(BubblewrapSandbox(config))
            if tier is None:
                need(sandbox.tier in {Tier.full, Tier.reduced}, " ".join(sandbox.reasons))
            return sandbox

        yield make


@pytest.fixture
async def sandbox(make_sandbox):
    return await make_sandbox()


@asynccontextmanager
async def started(sandbox, *args, **fields):
    async with asyncio.timeout(60), await sandbox.start(spec(*args, **fields)) as session:
        yield session


async def all_of(session, stream=None):
    pieces = [o async for o in session.output() if stream in (None, o.stream)]
    return b"".join(piece.data for piece in pieces)


async def upto(output, text):
    """Read until `text` came."""
    came = b""
    async for piece in output:
        came += piece.data
        if text in came:
            return came
    return came


# -- output and end ----------------------------------------------------------------------------


async def test_output_comes_byte_for_byte_and_then_one_end(sandbox):
    async with started(sandbox) as session:
        pieces = [piece async for piece in session.output()]
        by_stream = {
            name: b"".join(p.data for p in pieces if p.stream == name)
            for name in ("stdout", "stderr")
        }
        assert by_stream == {"stdout": b"out\n\xff\x00\n", "stderr": b"err\n"}
        assert all(piece.data for piece in pieces)
        end = await session.wait()
    assert (end.status, end.exit_code) == (Status.error, 3)
    assert end.tier is session.tier is sandbox.tier
    assert end.duration_s >= 0


async def test_the_end_is_the_same_for_everybody_and_stays_true(sandbox):
    async with started(sandbox) as session:
        ends = asyncio.gather(*(session.wait() for _ in range(3)))
        await all_of(session)
        first, *others = await ends
        assert others == [first] * 2
    assert await session.wait() == first


async def test_output_is_read_once(sandbox):
    async with started(sandbox) as session:
        await all_of(session)
        with pytest.raises(Conflict):
            await all_of(session)


async def test_a_cancelled_wait_leaves_the_program_running(sandbox):
    async with started(sandbox, FOREVER) as session, aclosing(session.output()) as output:
        await upto(output, b"ready")
        waiting = asyncio.create_task(session.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await session.signal(SessionSignal.kill)
        assert (await session.wait()).status is Status.killed


async def test_too_much_output_ends_the_program_within_the_limit(sandbox):
    async with started(sandbox, FLOOD, limits=Limits(output_bytes=5_500)) as session:
        assert await all_of(session) == b"x" * 5_500
        assert (await session.wait()).status is Status.output


async def test_a_program_waits_for_whoever_reads_and_may_be_left(sandbox):
    limits = Limits(output_bytes=64_000_000)
    async with (
        started(sandbox, FLOOD, limits=limits) as session,
        aclosing(session.output()) as output,
    ):
        await anext(output)
    assert (await session.wait()).status is Status.killed


async def test_a_program_waits_while_nobody_reads(sandbox):
    async with started(sandbox, MUCH, limits=Limits(output_bytes=16_000_000)) as session:
        ending = asyncio.create_task(session.wait())
        done, _ = await asyncio.wait({ending}, timeout=0.5)
        assert not done
        came = await all_of(session)
        assert came == b"".join(b"%08d" % number * 125 for number in range(8_000))
        assert (await ending).status is Status.ok


async def test_the_wall_limit_ends_a_program(sandbox):
    async with started(sandbox, FOREVER, limits=Limits(wall_s=0.3)) as session:
        assert await all_of(session) == b"ready\n"
        end = await session.wait()
    assert (end.status, end.exit_code) == (Status.timeout, None)


async def test_leaving_ends_the_program(sandbox):
    async with started(sandbox, FOREVER) as session:
        pass
    end = await session.wait()
    assert (end.status, end.exit_code) == (Status.killed, None)


async def test_an_error_of_whoever_uses_it_ends_the_program_too(sandbox):
    with pytest.raises(ZeroDivisionError):
        async with started(sandbox, FOREVER) as session:
            raise ZeroDivisionError
    assert (await session.wait()).status is Status.killed


async def test_what_is_not_there_is_an_end_and_not_an_error(sandbox):
    wrong = SessionSpec(run=RunSpec(argv=("/no/such/program",), limits=Limits()))
    async with await sandbox.start(wrong) as session:
        await all_of(session)
        end = await session.wait()
    assert end.status in {Status.error, Status.denied}


# -- input -------------------------------------------------------------------------------------


async def test_the_first_input_is_all_there_is(sandbox):
    async with started(sandbox, ECHO, stdin=b"once\n") as session:
        assert await all_of(session) == b"once\n"
        with pytest.raises(Conflict):
            await session.write_stdin(b"more")


async def test_one_talks_to_an_interactive_program(sandbox):
    async with started(sandbox, ECHO, stdin=b"first\n", interactive=True) as session:
        async with aclosing(session.output()) as output:
            assert await upto(output, b"first\n") == b"first\n"
            for line in (b"second\n", b"\x00\xff\n"):
                assert await session.write_stdin(line)
                assert await upto(output, line) == line
            await session.close_stdin()
            await session.close_stdin()
            assert await upto(output, b"more") == b""
        assert (await session.wait()).status is Status.ok
        with pytest.raises((Conflict, AssertionError)):
            assert await session.write_stdin(b"late")


async def test_much_input_arrives_whole_and_in_order(sandbox):
    pieces = [bytes([65 + i]) * 100_000 for i in range(20)]
    limits = Limits(output_bytes=10_000_000)
    async with started(sandbox, ECHO, limits=limits, interactive=True) as session:

        async def give():
            for piece in pieces:
                assert await session.write_stdin(piece)
            await session.close_stdin()

        giving = asyncio.create_task(give())
        assert await all_of(session) == b"".join(pieces)
        await giving


async def test_input_has_a_largest_piece(sandbox):
    async with started(sandbox, ECHO, interactive=True) as session:
        with pytest.raises(TooLarge):
            await session.write_stdin(bytes(MAX_STDIN_PIECE + 1))
        await session.close_stdin()
        assert await all_of(session) == b""


async def test_input_for_a_program_that_has_ended_is_dropped(sandbox):
    async with started(sandbox, HELLO, interactive=True) as session:
        await all_of(session)
        await session.wait()
        assert not await session.write_stdin(b"late")
        await session.close_stdin()


# -- signals, terminal, pause ------------------------------------------------------------------


async def test_a_program_catches_signals_in_order(sandbox):
    async with started(sandbox, CATCH) as session, aclosing(session.output()) as output:
        await upto(output, b"ready\n")
        for signal in (SessionSignal.interrupt, SessionSignal.terminate, SessionSignal.hangup):
            await session.signal(signal)
            line = signal.value.encode() + b"\n"
            assert await upto(output, line) == line
        end = await session.wait()
        assert (end.status, end.exit_code) == (Status.error, 7)
        await session.signal(SessionSignal.interrupt)  # nothing happens any more


@pytest.mark.parametrize(
    ("signal", "status", "code"),
    [
        (SessionSignal.terminate, Status.error, 143),
        (SessionSignal.hangup, Status.error, 129),
        (SessionSignal.kill, Status.killed, None),
    ],
)
async def test_a_signal_that_is_not_caught_ends_the_program(sandbox, signal, status, code):
    async with started(sandbox, FOREVER) as session, aclosing(session.output()) as output:
        await upto(output, b"ready")
        await session.signal(signal)
        end = await session.wait()
    assert (end.status, end.exit_code) == (status, code)


async def test_a_terminal_has_a_size_and_one_stream(sandbox):
    size = TerminalSize(rows=10, columns=20)
    async with started(sandbox, SIZE, interactive=True, terminal=size) as session:
        async with aclosing(session.output()) as output:
            await upto(output, b"ready")
            await session.resize(TerminalSize(rows=30, columns=99))
            await session.write_stdin(b"\n")
            pieces = [piece async for piece in output]
        assert b"30 99" in b"".join(piece.data for piece in pieces)
        assert {piece.stream for piece in pieces} == {"stdout"}


async def test_without_a_terminal_there_is_no_size(sandbox):
    async with started(sandbox) as session:
        with pytest.raises(Conflict):
            await session.resize(TerminalSize())


def test_a_spec_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="interactive"):
        spec(terminal=TerminalSize())
    with pytest.raises(ValueError, match="absolute"):
        spec(writable="out")


async def test_a_paused_program_does_nothing_and_its_time_does_not_count(sandbox):
    limits = Limits(wall_s=1.0)
    async with started(sandbox, ECHO, limits=limits, interactive=True) as session:
        async with aclosing(session.output()) as output:
            await session.write_stdin(b"one\n")
            await upto(output, b"one\n")
            await session.pause()
            await session.pause()
            await session.write_stdin(b"two\n")
            coming = asyncio.create_task(anext(output))
            done, _ = await asyncio.wait({coming}, timeout=1.5)  # longer than its wall limit
            assert not done
            await session.resume()
            await session.resume()
            assert (await coming).data == b"two\n"
            await session.close_stdin()
            assert await upto(output, b"more") == b""
        end = await session.wait()
    assert end.status is Status.ok
    assert end.duration_s < 1.0


async def test_a_paused_program_can_be_killed_and_left(sandbox):
    async with started(sandbox, FOREVER) as session:
        await session.pause()
        await session.signal(SessionSignal.kill)
        assert (await session.wait()).status is Status.killed
    async with started(sandbox, FOREVER) as session:
        await session.pause()
    assert (await session.wait()).status is Status.killed


# -- files and report --------------------------------------------------------------------------


@asynccontextmanager
async def with_files(sandbox):
    async with started(sandbox, FILES, writable="/out") as session:
        await all_of(session)
        assert (await session.wait()).status is Status.ok
        yield session


async def test_files_are_collected_in_order_and_links_are_not_followed(sandbox):
    async with with_files(sandbox) as session:
        got = await session.collect(("**",))
        assert [(f.path, f.content) for f in got.files] == [
            ("a.txt", b"one\n"), ("deep/b.txt", b"two\n"), ("deep/er/c.bin", bytes(2000)),
        ]  # fmt: skip
        for file in got.files:
            assert file.sha256 == hashlib.sha256(file.content).hexdigest()
        assert [(n.path, n.reason) for n in got.left_out] == [
            ("deep/link", NotCollectedReason.link), ("pipe", NotCollectedReason.special),
        ]  # fmt: skip
        some = await session.collect(("deep/*", "*.bin"))
        assert [f.path for f in some.files] == ["deep/b.txt"]
        assert await session.collect(("nothing/**",)) == type(got)(files=())


@pytest.mark.parametrize(
    ("limits", "files", "reasons"),
    [
        (CollectLimits(file_bytes=1999), 2, {NotCollectedReason.too_large}),
        (CollectLimits(total_bytes=1000), 2, {NotCollectedReason.too_many}),
        (CollectLimits(files=1), 1, {NotCollectedReason.too_many}),
        (CollectLimits(files=3, file_bytes=2000, total_bytes=2008), 3, set()),
    ],
)
async def test_what_is_over_a_limit_is_left_and_named(sandbox, limits, files, reasons):
    always = {NotCollectedReason.link, NotCollectedReason.special}
    async with with_files(sandbox) as session:
        got = await session.collect(("**",), limits)
    assert len(got.files) == files
    assert {n.reason for n in got.left_out} == always | reasons
    assert len(got.files) + len(got.left_out) == 5


@pytest.mark.parametrize(
    "patterns", [(), ("/etc/passwd",), ("../**",), ("a/../../b",), ("**",) * 101]
)
async def test_patterns_stay_inside(sandbox, patterns):
    async with with_files(sandbox) as session:
        with pytest.raises(InvalidInput):
            await session.collect(patterns)


async def test_files_are_collected_after_the_end_and_before_the_box_is_gone(sandbox):
    async with started(sandbox, FOREVER, writable="/out") as session:
        with pytest.raises(Conflict):
            await session.collect(("**",))
    with pytest.raises(Unavailable):
        await session.collect(("**",))
    async with started(sandbox) as session:
        await all_of(session)
        await session.wait()
        rest = await session.collect(("**",))  # of /tmp, without a folder of its own
        assert {file.path for file in rest.files} <= {"main.py"}


async def test_a_report_comes_over_its_own_channel(sandbox):
    async with started(sandbox, REPORTS, report=NONCE, interactive=True) as session:
        reporting = asyncio.create_task(session.report())  # it waits for the end
        await asyncio.sleep(0)
        await session.close_stdin()
        assert await all_of(session) == b""
        report = await reporting
        assert await session.report() == report
    assert report.complete
    assert [(c.case, c.sentinel, c.outcome) for c in report.cases] == [
        ("a", False, CaseOutcome.passed), ("s", True, CaseOutcome.failed),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        (CUT, ReportProblem.unreadable),
        (PROSE, ReportProblem.not_begun),  # what it prints is no report
        (HELLO, ReportProblem.not_begun),
    ],
)
async def test_without_a_whole_report_it_is_incomplete(sandbox, program, problem):
    async with started(sandbox, program, report=NONCE) as session:
        await all_of(session)
        report = await session.report()
    assert not report.complete
    assert problem in report.problems


async def test_another_runs_report_is_incomplete(sandbox):
    async with started(sandbox, REPORTS, report="o" * 32) as session:
        await all_of(session)
        assert ReportProblem.not_begun in (await session.report()).problems


async def test_without_a_channel_there_is_no_report(sandbox):
    async with started(sandbox) as session:
        await all_of(session)
        with pytest.raises(Conflict):
            await session.report()


# -- the sandbox -------------------------------------------------------------------------------


async def test_nothing_to_run_is_refused(sandbox):
    with pytest.raises(InvalidInput):
        await sandbox.start(SessionSpec(run=RunSpec(argv=(), limits=Limits())))


async def test_a_full_sandbox_is_busy_until_a_session_is_left(make_sandbox):
    sandbox = await make_sandbox(boxes=1)
    async with started(sandbox, FOREVER):
        with pytest.raises(Busy) as error:
            await sandbox.start(spec())
        assert error.value.extra["retry_after_s"] > 0
    async with started(sandbox) as session:
        assert await all_of(session, "stdout") == b"out\n\xff\x00\n"


async def test_sessions_do_not_see_each_other(make_sandbox):
    sandbox = await make_sandbox(boxes=10)

    async def talk(number):
        async with started(sandbox, ECHO, interactive=True) as session:
            await session.write_stdin(f"{number}\n".encode())
            await session.close_stdin()
            return await all_of(session)

    assert await asyncio.gather(*map(talk, range(10))) == [f"{i}\n".encode() for i in range(10)]


async def test_a_cancelled_start_leaves_nothing(make_sandbox):
    sandbox = await make_sandbox(boxes=1)
    starting = asyncio.create_task(sandbox.start(spec(FOREVER)))
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with started(sandbox) as session:
        await all_of(session)


# -- a plain run -------------------------------------------------------------------------------


@pytest.fixture
async def any_run(make_sandbox):
    """A plain run of a sandbox that has room for one."""
    sandbox = await make_sandbox(boxes=1)
    return lambda run: run_session(sandbox, run)


async def events_of(running: AsyncIterator[Output | Exit]):
    async with asyncio.timeout(60):
        return [event async for event in running]


async def test_a_run_is_output_and_then_one_end(any_run):
    *output, end = await events_of(any_run(spec().run))
    assert isinstance(end, Exit)
    assert all(isinstance(event, Output) for event in output)
    stdout = b"".join(event.data for event in output if event.stream == "stdout")
    assert stdout == b"out\n\xff\x00\n"
    assert (end.status, end.exit_code) == (Status.error, 3)


async def test_a_run_is_given_its_input_and_then_the_end_of_it(any_run):
    *output, end = await events_of(any_run(spec(ECHO, stdin=b"in\n" * 30_000).run))
    assert b"".join(event.data for event in output) == b"in\n" * 30_000
    assert end.status is Status.ok


async def test_a_run_that_is_left_ends_and_makes_room(any_run):
    async with aclosing(any_run(spec(FOREVER).run)) as running:
        assert (await anext(running)).data == b"ready\n"
    assert (await events_of(any_run(spec().run)))[-1].exit_code == 3


async def test_a_run_over_its_limits_says_which(any_run):
    *_, end = await events_of(any_run(spec(FLOOD, limits=Limits(output_bytes=2_000)).run))
    assert end.status is Status.output
    *_, end = await events_of(any_run(spec(FOREVER, limits=Limits(wall_s=0.5)).run))
    assert end.status is Status.timeout


async def test_a_run_where_no_box_can_be_had_is_denied_in_words(make_sandbox):
    sandbox = await make_sandbox(tier=Tier.none)
    with pytest.raises(Unavailable):
        await sandbox.start(spec())
    (end,) = await events_of(run_session(sandbox, spec().run))
    assert (end.status, end.tier) == (Status.denied, Tier.none)
    assert end.evidence["reason"]


async def test_a_run_is_not_interactive(sandbox):
    with pytest.raises(InvalidInput):
        await events_of(run_session(sandbox, spec(ECHO, interactive=True)))
