"""Keeps a part of the system running: one that has ended or is frozen is started again.

    async with asyncio.TaskGroup() as group:
        group.create_task(keep(part, report))     # until it is cancelled

Each part is probed every `PROBE_S`. A part that has ended is noticed at once. One that does not
answer `FAILURES` probes in a row is frozen, unless it uses the processor: then it is busy, and has
`BUSY_FAILURES`. A program's own text is never evidence.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from angelos.core.errors import AngelError
from angelos.core.facts import RestartCause

log = logging.getLogger(__name__)
PROBE_S = 2.0
FAILURES = 3
BUSY_FAILURES = 15
_BUSY_SHARE = 0.2
_FIRST_DELAY_S, _LAST_DELAY_S = 0.1, 30.0
_STABLE_S = 60.0
_CPU_FIELDS = slice(11, 13)  # utime and stime of /proc/<pid>/stat, after the command's name


class SocketLost(AngelError):
    """The socket of a part was removed: it may be well, but nobody can reach it."""


class Failure(msgspec.Struct, frozen=True):
    """Why a part has to be started again."""

    cause: RestartCause
    exit_code: int | None = None
    """Negative: the number of the signal that killed it. None: it runs, or is no child of ours."""


class Silence(msgspec.Struct, frozen=True):
    """How often in a row a part did not answer, and how busy it has been since the first time.

    >>> silence = Silence().probed(answered=False, now=0.0, cpu_s=1.0)
    >>> silence = silence.probed(answered=False, now=2.0, cpu_s=1.0)
    >>> silence.frozen, silence.probed(answered=False, now=4.0, cpu_s=1.01).frozen
    (False, True)
    >>> silence.probed(answered=False, now=4.0, cpu_s=4.0).frozen      # it works
    False
    >>> silence.probed(answered=True, now=4.0, cpu_s=1.0)
    Silence(failures=0, since=0.0, cpu_s=0.0, busy=False)
    """

    failures: int = 0
    since: float = 0.0
    cpu_s: float = 0.0
    busy: bool = False

    def probed(self, *, answered: bool, now: float, cpu_s: float) -> Silence:
        """Return the state after a probe.

        Args:
            answered: whether the part answered.
            now: monotonic seconds when the probe began.
            cpu_s: processor time that the part has used so far, in seconds.
        """
        if answered:
            return Silence()
        if not self.failures:
            return Silence(1, now, cpu_s)
        busy = cpu_s - self.cpu_s > _BUSY_SHARE * (now - self.since)
        return Silence(self.failures + 1, self.since, self.cpu_s, busy)

    @property
    def frozen(self) -> bool:
        """Whether the part is to be replaced."""
        return self.failures >= (BUSY_FAILURES if self.busy else FAILURES)


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait before a part is started again: longer each time, and never for ever.

    >>> Backoff().failed(now=100.0)
    (Backoff(last=100.0, failures=1), 0.1)
    """

    last: float = float("-inf")
    failures: int = 0

    def failed(self, now: float) -> tuple[Backoff, float]:
        """Return the new state and the seconds to wait; what ran a minute is trusted again."""
        failures = self.failures + 1 if now - self.last < _STABLE_S else 1
        delay = min(_LAST_DELAY_S, _FIRST_DELAY_S * 2 ** min(failures - 1, 20))
        return Backoff(now, failures), delay


class SupervisedPart(Protocol):
    """A process that can be watched and started again."""

    @property
    def name(self) -> str:
        """Its name in messages and facts."""
        ...

    @property
    def pid(self) -> int:
        """Its process; raises `Unavailable` when there is none."""
        ...

    async def ended(self) -> int | None:
        """Wait until its process has ended; return the exit code where it is known."""
        ...

    async def probe(self) -> bool:
        """Return whether it answers; it is cancelled after `PROBE_S`."""
        ...

    async def restart(self) -> None:
        """End what is left of it and start it again; return once it answers."""
        ...


class Restart(msgspec.Struct, frozen=True):
    """A part that was started again."""

    part: str
    failure: Failure
    seconds: float
    """From the failure until it answered again."""


class Reporter(Protocol):
    """Receives what happens to the parts; must not block."""

    def failed(self, part: str, failure: Failure) -> None:
        """A part has failed and is about to be started again."""
        ...

    def restarted(self, restart: Restart) -> None:
        """A part runs again."""
        ...


async def keep(
    part: SupervisedPart, reporter: Reporter, clock: Callable[[], float] = time.monotonic
) -> None:
    """Keep a part running until this is cancelled."""
    backoff = Backoff()
    while True:
        failure = await failure_of(part, clock)
        begin = clock()
        reporter.failed(part.name, failure)
        while True:
            backoff, delay = backoff.failed(clock())
            await asyncio.sleep(delay)
            try:
                await part.restart()
            except (AngelError, OSError) as error:
                log.warning("%s could not be started again: %s", part.name, error)
            else:
                break
        reporter.restarted(Restart(part.name, failure, clock() - begin))


async def failure_of(part: SupervisedPart, clock: Callable[[], float] = time.monotonic) -> Failure:
    """Return once the part has ended or is frozen."""
    silence = Silence()
    ended = asyncio.ensure_future(part.ended())
    try:
        pid = part.pid
        while True:
            begin = clock()
            probing = asyncio.ensure_future(_answers(part))
            try:
                await asyncio.wait({ended, probing}, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    return Failure(RestartCause.ended, ended.result())
                try:
                    answered = probing.result()
                except SocketLost as error:
                    log.warning("%s: %s", part.name, error)
                    return Failure(RestartCause.unreachable)
            finally:
                probing.cancel()
                await asyncio.wait({probing})
            silence = silence.probed(answered=answered, now=begin, cpu_s=cpu_seconds(pid))
            if silence.frozen:
                return Failure(RestartCause.frozen)
            await asyncio.wait({ended}, timeout=max(0.0, begin + PROBE_S - clock()))
    finally:
        ended.cancel()
        await asyncio.wait({ended})


async def _answers(part: SupervisedPart) -> bool:
    try:
        async with asyncio.timeout(PROBE_S):
            return await part.probe()
    except SocketLost:
        raise
    except (AngelError, OSError, TimeoutError):
        return False


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used; 0 when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0.0
    ticks = sum(map(int, stat[stat.rindex(b")") + 2 :].split()[_CPU_FIELDS]))
    return ticks / os.sysconf("SC_CLK_TCK")
