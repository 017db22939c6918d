"""The channel machine: nothing is lost, doubled or reordered, and nobody hoards."""

from __future__ import annotations

import itertools
from collections import deque

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from angelos.core.channel import (
    Config,
    Deliver,
    Effect,
    End,
    Established,
    Machine,
    Transmit,
)
from angelos.core.errors import InvalidInput, TooLarge
from angelos.core.frames import (
    MAX_FRAME_BYTES,
    MAX_ITEM_BYTES,
    VERSION,
    Ack,
    Batch,
    Bye,
    FactReport,
    Hello,
    Ping,
    Pong,
    Welcome,
    read_frame,
    write_frame,
)

SMALL = Config(window=3, window_bytes=400, idle_s=10, dead_s=30, handshake_s=5)


def fact(name: str, size: int = 3) -> FactReport:
    return FactReport(name, b"x" * size)


def welcome(
    version: int, session: str, *, resumed: bool, window: int, window_bytes: int
) -> Welcome:
    return Welcome(version, session, resumed, 0, window, window_bytes)


def frames(effects: list[Effect]) -> list[object]:
    return [read_frame(e.data) for e in effects if isinstance(e, Transmit)]


def linked(config: Config = SMALL) -> tuple[Machine, Machine]:
    hub, node = Machine("hub-1", config), Machine("node-1", config)
    hello = node.hello(0.0)[0]
    assert isinstance(hello, Transmit)
    welcome = hub.accept(read_frame(hello.data), 0.0)[0]
    assert isinstance(welcome, Transmit)
    assert node.receive(welcome.data, 0.0) == [Established(resumed=False)]
    return hub, node


class World:
    """Two machines, a wire that can be cut, and applications that process when told to."""

    def __init__(self) -> None:
        self.lives = itertools.count(1)
        self.node = Machine("node", SMALL)  # lives through everything
        self.hub = self.new_hub()
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.connected = False
        self.offered: list[str] = []
        self.processed: list[str] = []  # by any life of the hub, durably
        self.inbox: deque[Deliver] = deque()
        self.hub_offered: list[str] = []  # in this life of the hub
        self.node_inbox: deque[Deliver] = deque()
        self.node_processed: list[str] = []  # since the hub's last restart
        self.names = itertools.count()
        self.now = 0.0

    def new_hub(self) -> Machine:
        return Machine(f"hub-{next(self.lives)}", SMALL)

    def carry(self, effects: list[Effect], wire: deque[bytes], inbox: deque[Deliver]) -> None:
        for effect in effects:
            match effect:
                case Transmit(data):
                    wire.append(data)
                case Deliver():
                    inbox.append(effect)
                case Established(resumed=False) if inbox is self.node_inbox:
                    inbox.clear()
                case End():
                    raise AssertionError(effect)
                case _:
                    pass

    def step(self, action: str) -> None:
        getattr(self, action)()
        for machine in (self.hub, self.node):
            assert machine.waiting <= SMALL.window
            assert len(machine._undone) <= SMALL.window

    def cut(self) -> None:
        self.connected = False
        self.up.clear()
        self.down.clear()
        self.hub.lost()
        self.node.lost()

    def restart_hub(self) -> None:
        self.cut()
        self.hub = self.new_hub()
        self.inbox.clear()
        self.hub_offered, self.node_processed = [], []

    def connect(self) -> None:
        self.cut()
        self.connected = True
        self.carry(self.node.hello(self.now), self.up, self.node_inbox)

    def deliver_up(self) -> None:
        if self.up:
            data = self.up.popleft()
            frame = read_frame(data)
            if isinstance(frame, Hello):
                self.carry(self.hub.accept(frame, self.now), self.down, self.inbox)
            else:
                self.carry(self.hub.receive(data, self.now), self.down, self.inbox)

    def deliver_down(self) -> None:
        if self.down:
            data = self.down.popleft()
            self.carry(self.node.receive(data, self.now), self.up, self.node_inbox)

    def offer(self) -> None:
        name = f"n{next(self.names)}"
        if self.node.offer(fact(name, 20)):
            self.offered.append(name)
        self.carry(self.node.flush(), self.up, self.node_inbox)

    def hub_offer(self) -> None:
        name = f"h{next(self.names)}"
        if self.hub.offer(fact(name, 60)):
            self.hub_offered.append(name)
        self.carry(self.hub.flush(), self.down, self.inbox)

    def process(self) -> None:
        if self.inbox:
            batch = self.inbox.popleft()
            self.processed += [e.id for e in batch.items]
            self.carry(self.hub.done(batch.epoch, batch.upto), self.down, self.inbox)

    def node_process(self) -> None:
        if self.node_inbox:
            batch = self.node_inbox.popleft()
            self.node_processed += [e.id for e in batch.items]
            self.carry(self.node.done(batch.epoch, batch.upto), self.up, self.node_inbox)

    def settle(self) -> None:
        self.step("connect")
        while self.up or self.down or self.inbox or self.node_inbox:
            for action in ("deliver_up", "deliver_down", "process", "node_process"):
                self.step(action)


ACTIONS = (
    "offer", "offer", "hub_offer", "deliver_up", "deliver_up", "deliver_down", "deliver_down",
    "process", "node_process", "cut", "connect", "connect",
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(ACTIONS), max_size=120))
def test_whatever_is_lost_each_envelope_arrives_once_and_in_order(actions: list[str]) -> None:
    world = World()
    for action in actions:
        world.step(action)
    world.settle()
    assert world.processed == world.offered
    assert world.node_processed == world.hub_offered
    assert world.node.waiting == world.hub.waiting == 0


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from((*ACTIONS, "restart_hub")), max_size=120))
@example(["hub_offer", "connect", "deliver_up", "deliver_down", "deliver_down", "restart_hub",
          "node_process"])  # fmt: skip
def test_across_restarts_each_envelope_arrives_at_least_once(actions: list[str]) -> None:
    world = World()
    for action in actions:
        world.step(action)
    world.settle()
    assert set(world.processed) == set(world.offered)
    firsts = list(dict.fromkeys(world.processed))
    assert firsts == world.offered  # repeated perhaps, never overtaken
    # What an earlier life of the hub had delivered may still be processed; its queue knows.
    of_this_life = [e for e in world.node_processed if e in world.hub_offered]
    assert of_this_life == world.hub_offered
    assert world.node.waiting == 0


@settings(max_examples=300, deadline=None)
@given(garbage=st.lists(st.binary(max_size=60), max_size=5), opening=st.booleans())
def test_garbage_ends_the_link_with_a_code(garbage: list[bytes], *, opening: bool) -> None:
    _, machine = linked()
    if opening:
        machine.hello(0.0)
    for data in garbage:
        machine.receive(data, 1.0)  # never raises


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5)
    | st.binary(max_size=5) | st.sampled_from(["hello", "welcome", "batch", "ack", "ping", "bye"]),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(values)
def test_well_formed_nonsense_is_invalid_input_or_a_frame(value: object) -> None:
    try:
        frame = read_frame(msgspec.msgpack.encode(value))
    except (InvalidInput, TooLarge):
        return
    assert read_frame(write_frame(frame)) == frame


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Batch(2, (fact("a"),)), "protocol"),  # a gap
        (Batch(0, (fact("a"),)), "protocol"),
        (Batch(1, tuple(fact(str(i)) for i in range(4))), "credit"),
        (Batch(1, (fact("a", 300), fact("b", 300))), "credit"),
        (Ack(1), "protocol"),  # of what was never sent
        (Hello(VERSION, "s", "", 0, 1, 1), "protocol"),
        (welcome(VERSION, "s", resumed=False, window=1, window_bytes=1), "protocol"),
    ],
)
def test_breaking_the_rules_ends_the_link(frame: object, code: str) -> None:
    hub, _ = linked()
    effects = hub.receive(write_frame(frame), 1.0)  # pyright: ignore[reportArgumentType]
    assert [e.code for e in effects if isinstance(e, End)] == [code]
    assert any(isinstance(f, Bye) and f.code == code for f in frames(effects))
    assert hub.receive(write_frame(Ping()), 1.0) == []  # it stays ended


@pytest.mark.parametrize(
    "frame",
    [
        Batch(1, ()),
        Ack(0),
        welcome(VERSION + 1, "s", resumed=False, window=1, window_bytes=1),
        welcome(VERSION, "s", resumed=True, window=1, window_bytes=1),  # resumes what never was
    ],
)
def test_a_wrong_welcome_ends_the_link(frame: object) -> None:
    node = Machine("node", SMALL)
    node.hello(0.0)
    effects = node.receive(write_frame(frame), 1.0)  # pyright: ignore[reportArgumentType]
    assert any(isinstance(e, End) and not e.by_peer for e in effects)


def test_the_first_frame_must_be_a_hello_of_our_version() -> None:
    hub = Machine("hub", SMALL)
    assert any(isinstance(e, End) and e.code == "protocol" for e in hub.accept(Ping(), 0.0))
    old = Hello(VERSION + 1, "n", "", 0, 1, 1)
    assert any(isinstance(e, End) and e.code == "version" for e in hub.accept(old, 0.0))


def test_acknowledging_the_future_in_a_resumed_hello_ends_the_link() -> None:
    hub, _ = linked()
    lie = Hello(VERSION, "node-1", "hub-1", 9, 3, 400)
    assert any(isinstance(e, End) and e.code == "protocol" for e in hub.accept(lie, 1.0))


def test_envelopes_stop_where_credit_ends_and_go_on_with_the_ack() -> None:
    hub, node = linked(Config(window=2, window_bytes=400))
    node.config = Config(window=10, window_bytes=4000)
    for i in range(5):
        assert node.offer(fact(str(i)))
    (batch,) = frames(node.flush())
    assert batch == Batch(1, (fact("0"), fact("1")))
    (delivery,) = hub.receive(write_frame(batch), 0.0)
    assert isinstance(delivery, Deliver)
    (ack,) = hub.done(delivery.epoch, delivery.upto)
    assert isinstance(ack, Transmit)
    assert frames(node.receive(ack.data, 0.0)) == [Batch(3, (fact("2"), fact("3")))]


def test_what_no_window_takes_is_refused_at_once() -> None:
    _, node = linked()
    with pytest.raises(TooLarge):
        node.offer(fact("big", MAX_ITEM_BYTES))
    with pytest.raises(TooLarge):
        read_frame(b"\0" * (MAX_FRAME_BYTES + 1))
    with pytest.raises(InvalidInput):
        read_frame(write_frame(Batch(1, (fact("i" * 200),))))


def test_one_envelope_above_the_window_in_bytes_still_goes_alone() -> None:
    hub, node = linked()
    assert node.offer(fact("big", 5000))
    assert not node.offer(fact("next"))
    (effect,) = node.flush()
    assert isinstance(effect, Transmit)
    assert isinstance(hub.receive(effect.data, 0.0)[0], Deliver)


def test_silence_is_pinged_then_given_up() -> None:
    hub, node = linked()
    assert hub.tick(9.0) == []
    (ping,) = hub.tick(11.0)
    assert isinstance(ping, Transmit)
    assert hub.tick(12.0) == []
    assert frames(node.receive(ping.data, 12.0)) == [Pong()]
    assert any(isinstance(e, End) and e.code == "timeout" for e in hub.tick(31.0))
    assert hub.phase == "down"


def test_a_flood_of_pings_is_answered_once_a_second() -> None:
    hub, _ = linked()
    answers = [e for _ in range(50) for e in hub.receive(write_frame(Ping()), 5.0)]
    assert len(answers) == 1
    assert len(hub.receive(write_frame(Ping()), 6.0)) == 1


def test_a_handshake_that_does_not_end_is_given_up() -> None:
    node = Machine("node", SMALL)
    node.hello(0.0)
    assert node.tick(4.0) == []
    assert any(isinstance(e, End) and e.code == "timeout" for e in node.tick(6.0))


def test_what_an_earlier_session_sent_is_not_acknowledged_in_the_next() -> None:
    hub, node = linked()
    hub.offer(fact("old"))
    (batch,) = hub.flush()
    assert isinstance(batch, Transmit)
    (old,) = node.receive(batch.data, 0.0)
    assert isinstance(old, Deliver)
    node.hello(1.0)
    node.receive(
        write_frame(welcome(VERSION, "hub-2", resumed=False, window=3, window_bytes=400)), 1.0
    )
    (new,) = node.receive(write_frame(Batch(1, (fact("new"),))), 1.0)
    assert isinstance(new, Deliver)
    assert node.done(old.epoch, old.upto) == []
    assert frames(node.done(new.epoch, new.upto)) == [Ack(1)]


def test_bye_carries_the_code_over() -> None:
    hub, node = linked()
    effects = hub.end("fenced", "Another connection of yours was opened.")
    data = effects[0]
    assert isinstance(data, Transmit)
    (end,) = node.receive(data.data, 0.0)
    assert end == End("fenced", "Another connection of yours was opened.", by_peer=True)
