"""Parts are watched: what ended or froze is started again, what is busy is left alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.adapters.host import supervision
from angelos.adapters.host.supervision import (
    Backoff,
    Failure,
    Silence,
    SocketLost,
    failure_of,
    keep,
)
from angelos.core.errors import Unavailable
from angelos.core.facts import RestartCause


class FakePart:
    """A part whose probes answer as they are told."""

    name = "fake"
    pid = 2**22 + 1  # no process

    def __init__(self, answers: str = "", silence: Any = None) -> None:
        self.answers = [True if answer == "+" else silence for answer in answers]
        self.exit = asyncio.get_running_loop().create_future()
        self.starts: list[object] = []
        self.restarts = 0

    async def ended(self):
        return await asyncio.shield(self.exit)

    async def probe(self):
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def restart(self):
        self.restarts += 1
        if self.starts and (error := self.starts.pop(0)):
            raise error
        self.exit = asyncio.get_running_loop().create_future()


class Reports:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.done = asyncio.Event()

    def failed(self, part, failure):
        self.failures.append(failure)

    def restarted(self, restart):
        self.done.set()


@pytest.fixture
def soon(monkeypatch):
    """Probe at once."""
    monkeypatch.setattr(supervision, "PROBE_S", 0.01)
    monkeypatch.setattr(supervision, "_FIRST_DELAY_S", 0.0)


@pytest.mark.usefixtures("soon")
async def test_one_that_ends_is_noticed_with_its_exit_code():
    part = FakePart()
    part.exit.set_result(-9)
    assert await failure_of(part) == Failure(RestartCause.ended, -9)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("silence", [False, OSError("refused"), Unavailable("no"), TimeoutError()])
async def test_one_that_does_not_answer_three_times_is_frozen(silence):
    part = FakePart("+--+---", silence)
    assert await failure_of(part) == Failure(RestartCause.frozen)
    assert part.answers == []


@pytest.mark.usefixtures("soon")
async def test_one_that_hangs_is_frozen():
    class Hanging(FakePart):
        async def probe(self):
            await asyncio.Event().wait()

    assert await failure_of(Hanging()) == Failure(RestartCause.frozen)


@pytest.mark.usefixtures("soon")
async def test_one_without_its_socket_is_started_again_at_once():
    part = FakePart("-", SocketLost("removed"))
    assert await failure_of(part) == Failure(RestartCause.unreachable)


@pytest.mark.usefixtures("soon")
async def test_one_that_cannot_be_started_is_tried_for_ever():
    part, reports = FakePart(), Reports()
    part.starts = [Unavailable("no"), OSError("full"), Unavailable("no"), None]
    part.exit.set_result(1)
    keeping = asyncio.create_task(keep(part, reports))
    await asyncio.wait_for(reports.done.wait(), 30)
    keeping.cancel()
    assert part.restarts == 4
    assert reports.failures == [Failure(RestartCause.ended, 1)]


def test_a_busy_one_is_given_more_time():
    silence = Silence()
    for second in range(supervision.BUSY_FAILURES - 1):
        silence = silence.probed(answered=False, now=2.0 * second, cpu_s=1.9 * second)
        assert not silence.frozen
    assert silence.probed(answered=False, now=40.0, cpu_s=40.0).frozen, "it spins"


def test_pauses_grow_up_to_half_a_minute_and_never_end():
    state, delays = Backoff(), []
    for n in range(12):
        state, delay = state.failed(now=float(n))
        delays.append(delay)
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 30.0


@given(st.lists(st.floats(0, 1000), max_size=50))
def test_one_that_failed_seldom_is_started_at_once(pauses):
    state, now = Backoff(), 0.0
    for pause in pauses:
        now += pause
        before, (state, delay) = state, state.failed(now)
        assert 0 <= delay <= 30.0
        if now - before.last >= 60:
            assert delay == supervision._FIRST_DELAY_S
