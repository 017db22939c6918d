"""The feed: follows, asks again, survives a lost system, reviews; and never outside its thread."""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import asynccontextmanager

import msgspec
import pytest

from angelos.core.errors import Forbidden, NotFound, Unavailable
from angelos.dashboard import service
from angelos.dashboard.service import DashboardFeed


class FakeSystem:
    def __init__(self, make) -> None:
        self.make = make
        self.facts: queue.Queue = queue.Queue()
        self.known = {"task-001": self.make.task(), "prop-001": self.make.proposal()}
        self.asked: list[str] = []
        self.after: list[str] = []
        self.connects = 0
        self.threads: set[str] = set()
        self.tasks = FakeTasks(self)
        self.proposals = FakeProposals(self)

    @asynccontextmanager
    async def connect(self):
        self.connects += 1
        self.threads.add(threading.current_thread().name)
        if self.connects == 1:
            raise Unavailable("It is still starting.")
        yield self

    async def status(self):
        return self.make.status()

    async def events(self, after):
        self.after.append(after)
        while True:
            try:
                found = self.facts.get_nowait()
            except queue.Empty:
                await asyncio.sleep(0.01)  # the test's facts come from another thread
                continue
            if found is None:
                raise Unavailable("The link broke.")
            yield found


class FakeTasks:
    def __init__(self, system: FakeSystem) -> None:
        self.system = system

    async def list(self, state="", limit=50):
        return [self.system.known["task-001"]]

    def __getitem__(self, name: str) -> FakeHandle:
        return FakeHandle(self.system, name)


class FakeProposals(FakeTasks):
    async def list(self, state="", repo="", limit=50):
        return [self.system.known["prop-001"]]


class FakeHandle:
    def __init__(self, system: FakeSystem, name: str) -> None:
        self.system = system
        self.name = name

    async def view(self, wait=0):
        self.system.asked.append(self.name)
        if self.name == "task-bug":
            raise ValueError("a bug")
        if self.name not in self.system.known:
            raise NotFound(f"There is no {self.name}.")
        return self.system.known[self.name]

    async def approve(self, digest, comment=""):
        if digest != "d" * 64:
            raise Forbidden("That is not what you saw.")
        view = self.system.make.proposal(state="promoted", revision="e" * 64)
        self.system.known[self.name] = view
        return view

    async def reject(self, digest, comment=""):
        raise AssertionError


class Screen:
    def __init__(self) -> None:
        self.views: queue.Queue = queue.Queue()

    def until(self, predicate):
        while True:
            shown = self.views.get(timeout=20)
            if predicate(shown):
                return shown


@pytest.fixture
def shown(monkeypatch, make):
    monkeypatch.setattr(service, "RETRY_S", 0.05)
    monkeypatch.setattr(service, "MIN_PAUSE_S", 0.0)
    system, screen = FakeSystem(make), Screen()
    feed = DashboardFeed(system.connect, screen.views.put)
    feed.start()
    yield system, screen, feed
    feed.close()
    assert not feed._thread.is_alive()


def test_it_waits_for_a_system_that_is_not_there_yet(shown):
    system, screen, _ = shown
    screen.until(lambda v: "still starting" in v["system"]["detail"])
    view = screen.until(lambda v: v["system"]["connected"])
    assert view["approvals"][0]["message"] == "change 1"
    assert system.threads == {"dashboard"}


def test_facts_are_followed(shown, make):
    system, screen, _ = shown
    screen.until(lambda v: v["system"]["connected"])
    system.facts.put(make.fact("task.output", "task-001", text="hello"))
    screen.until(lambda v: v["tasks"][0]["output"] == "hello")
    system.known["task-002"] = make.task(2)
    system.facts.put(make.fact("task.accepted", "task-002"))
    screen.until(lambda v: [t["id"] for t in v["tasks"]] == ["task-002", "task-001"])
    assert system.asked == ["task-002"]


def test_it_comes_back_after_the_link_broke(shown):
    system, screen, _ = shown
    screen.until(lambda v: v["system"]["connected"])
    system.facts.put(None)
    screen.until(lambda v: "The link broke." in v["system"]["detail"])
    screen.until(lambda v: v["system"]["connected"])
    assert system.connects == 3


def test_what_came_while_it_was_away_is_not_left_out(shown, make):
    system, screen, _ = shown
    screen.until(lambda v: v["system"]["connected"])
    first = msgspec.structs.replace(make.fact("task.output", "task-001", text="a"), offset="5-0")
    system.facts.put(first)
    system.facts.put(None)
    screen.until(lambda v: not v["system"]["connected"])
    system.facts.put(make.fact("task.output", "task-001", text="b"))
    screen.until(lambda v: v["system"]["connected"] and v["tasks"][0]["output"] == "ab")
    system.facts.put(None)
    screen.until(lambda v: not v["system"]["connected"])
    screen.until(lambda v: v["system"]["connected"])
    assert system.after[:2] == ["1-0", "5-0"]


def test_it_does_not_go_on_for_ever_from_where_nothing_comes(shown, make):
    system, screen, _ = shown
    screen.until(lambda v: v["system"]["connected"])
    first = msgspec.structs.replace(make.fact("task.output", "task-001", text="a"), offset="5-0")
    system.facts.put(first)
    for _ in range(2):
        system.facts.put(None)
        screen.until(lambda v: not v["system"]["connected"])
        screen.until(lambda v: v["system"]["connected"])
    system.facts.put(make.fact("task.output", "task-001", text="b"))
    screen.until(lambda v: v["tasks"][0]["output"] == "ab")
    assert system.after == ["1-0", "5-0", "1-0"]


def test_a_task_that_is_long_over_is_no_lost_connection(shown, make):
    system, screen, _ = shown
    screen.until(lambda v: v["system"]["connected"])
    system.facts.put(make.fact("task.finished", "task-000"))
    system.facts.put(make.fact("task.output", "task-001", text="hello"))
    screen.until(lambda v: v["tasks"][0]["output"] == "hello")
    system.known["task-002"] = make.task(2)
    system.facts.put(make.fact("task.accepted", "task-002"))
    screen.until(lambda v: len(v["tasks"]) == 2)
    assert system.asked == ["task-000", "task-002"]
    assert system.connects == 2


def test_a_bug_is_told_in_words_and_does_not_freeze_the_screen(shown, make):
    system, screen, _ = shown
    screen.until(lambda v: v["system"]["connected"])
    system.facts.put(make.fact("task.accepted", "task-bug"))
    view = screen.until(lambda v: not v["system"]["connected"])
    assert view["system"]["detail"].startswith("The dashboard failed (ValueError('a bug'))")
    screen.until(lambda v: v["system"]["connected"])


def test_the_same_refusal_twice_is_two_answers(shown):
    _, screen, feed = shown
    screen.until(lambda v: v["system"]["connected"])
    for times in (1, 2):
        feed.review("prop-001", "another", "approve")
        view = screen.until(lambda v, n=times: v["approvals"][0]["failures"] == n)
        assert view["approvals"][0]["notice"] == "That is not what you saw."


def test_a_review_that_meets_a_bug_is_answered(shown):
    _, screen, feed = shown
    screen.until(lambda v: v["system"]["connected"])
    feed.review("prop-001", "d" * 64, "reject")
    view = screen.until(lambda v: v["approvals"][0]["failures"])
    assert view["approvals"][0]["notice"].startswith("The dashboard failed (AssertionError()")


def test_a_review_is_carried_out_and_a_refusal_is_told(shown):
    _, screen, feed = shown
    screen.until(lambda v: v["system"]["connected"])
    feed.review("prop-001", "another", "approve")
    view = screen.until(lambda v: v["approvals"] and v["approvals"][0]["notice"])
    assert view["approvals"][0]["notice"] == "That is not what you saw."
    feed.review("prop-001", "d" * 64, "approve")
    view = screen.until(lambda v: not v["approvals"])
    assert view["recent"][0]["revision"] == "e" * 12


def test_a_closed_feed_takes_no_reviews(shown):
    _, _, feed = shown
    feed.close()
    feed.review("prop-001", "d" * 64, "approve")
